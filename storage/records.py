"""The records that travel between the stages; they are the on-disk format too.

A sample is known by its ``key`` everywhere. Class identity is the vocabulary index ``class_id``
(0-based); a label map stores ``class_id + 1``, 0 is background and 65535 is ignored.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Self, TypeVar

from pydantic import (
    BaseModel,
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
    model_serializer,
    model_validator,
)

from storage.documents import explain
from storage.errors import DataError

__all__ = [
    "BACKGROUND_LABEL",
    "IGNORE_LABEL",
    "Box",
    "BoxMask",
    "Detection",
    "Instance",
    "MaskSample",
    "Mention",
    "Others",
    "PlannedSample",
    "PlannedShard",
    "Prompt",
    "Reason",
    "Rejected",
    "Stage",
    "TwinCheck",
]

BACKGROUND_LABEL = 0
IGNORE_LABEL = 65535


class Stage(StrEnum):
    """The stages, in the order in which a sample passes them."""

    PROMPTS = "prompts"
    PAIRS = "pairs"
    DETECTIONS = "detections"
    MASKS = "masks"
    TWINS = "twins"
    CHECKS = "checks"
    OTHERS = "others"
    SHARDS = "shards"

    @property
    def is_optional(self) -> bool:
        """Whether there are datasets whose samples do not pass it."""
        return self in {Stage.TWINS, Stage.CHECKS, Stage.OTHERS}

    @property
    def holds_pictures(self) -> bool:
        """Whether its output is an archive of pictures, not rows alone."""
        return self in {Stage.PAIRS, Stage.TWINS}


class Reason(StrEnum):
    """Why a sample was dropped.

    The first block is *rejected* (the sample is not good enough; a rerun gives the same answer),
    the second *failed* (the service did not deliver; a rerun may).
    """

    CLASS_NOT_MENTIONED = "class-not-mentioned"
    TEXT_TOO_LONG = "text-too-long"
    NEAR_DUPLICATE = "near-duplicate"
    NOT_FINITE = "not-finite"
    UNSAFE = "unsafe"
    BLANK_IMAGE = "blank-image"
    CLASS_NOT_FOUND = "class-not-found"
    CLASS_IN_COUNTERFACTUAL = "class-in-counterfactual"
    TOO_MANY_BOXES = "too-many-boxes"
    MASK_TOO_SMALL = "mask-too-small"
    MASK_TOO_LARGE = "mask-too-large"
    WRITER_REFUSED = "writer-refused"

    WRITER_FAILED = "writer-failed"

    @property
    def is_failure(self) -> bool:
        """Whether a rerun of the same sample may end differently."""
        return self is Reason.WRITER_FAILED


class Record(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """A frozen, strict record."""


RecordT = TypeVar("RecordT", bound=BaseModel)

_OBJECT = TypeAdapter(dict[str, Any])


def read_record(kind: type[RecordT], data: bytes, place: str, *, way_out: str) -> RecordT:
    """Read a record from its JSON.

    Args:
        kind: Which record.
        data: JSON text.
        place: Where it was read, for messages.
        way_out: What to do if it is damaged.

    Raises:
        DataError: The bytes are no such record.
    """
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        message = f"{place} is not a {kind.__name__} record ({explain(kind, error)}); {way_out}"
        raise DataError(message) from error


def read_object(data: bytes, place: str, *, way_out: str) -> dict[str, Any]:
    """Read a JSON object whose fields another version of the engine may have chosen.

    Args:
        data: JSON text.
        place: Where it was read, for messages.
        way_out: What to do if it is damaged.

    Raises:
        DataError: The bytes are no JSON object, or one that is nested without end.
    """
    try:
        return _OBJECT.validate_json(data)
    except ValidationError as error:
        message = f"{place} is not a JSON object ({explain(None, error)}); {way_out}"
        raise DataError(message) from error


def _left_out(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    """Fields as they are written: those that records had not always are left out while empty."""
    return {name: each for name, each in fields.items() if each or name not in names}


class PlannedSample(Record, frozen=True):
    """What the plan fixes about one sample before any work is done."""

    key: str
    """16 characters ``[0-9a-f]``: slice id and sample index; sorts in plan order."""
    index: int = Field(ge=0)
    """Position in the slice."""
    class_ids: tuple[int, ...] = Field(min_length=1, max_length=2)
    """Vocabulary indices, distinct, in the order in which the text should name them."""
    seed: int = Field(ge=0, lt=2**63)
    """Seed of every random choice for this sample."""


class PlannedShard(Record, frozen=True):
    """A run of consecutive samples that is packed into one tar."""

    slice_id: str
    """8 hex digits of the slice."""
    index: int = Field(ge=0)
    """Position in the slice."""
    samples: tuple[PlannedSample, ...] = Field(min_length=1)
    """The samples, in order of their index."""

    @property
    def name(self) -> str:
        """``<slice id>-<six digits>``: unique in a dataset and free of class names."""
        return f"{self.slice_id}-{self.index:06d}"


class Mention(Record, frozen=True):
    """A place in a text where a class is named."""

    class_id: int = Field(ge=0)
    """Vocabulary index."""
    start: int = Field(ge=0)
    """First character, 0-based."""
    end: int = Field(gt=0)
    """One past the last character."""


class Rejected(Record, frozen=True):
    """A sample that left the pipeline, and why."""

    key: str
    """Sample key."""
    stage: Stage
    """Where it left."""
    reason: Reason
    """Why, from the enumeration."""
    detail: str
    """The values behind the reason, in words; may be empty."""


class Prompt(Record, frozen=True):
    """A scene text and its counterfactual."""

    key: str
    """Sample key."""
    text: str
    """What the positive image shows."""
    counterfactual_text: str
    """The same text with every class mention replaced."""
    mentions: tuple[Mention, ...] = Field(min_length=1)
    """All mentions in ``text``, by start; every class of the sample has at least one."""
    writer: str
    """What wrote the text: template set, or model name."""


class Pair(Record, frozen=True):
    """A painted pair, or one picture of it; the pixels travel beside this record, by the same key.

    Where the counterfactual is painted over the image, each of the two has a record of its own.
    """

    key: str
    """Sample key."""
    width: int = Field(gt=0)
    """Pixels."""
    height: int = Field(gt=0)
    """Pixels."""
    image_sha256: str = ""
    """Digest of the positive image's bytes; empty if it is elsewhere, and in older records."""
    counterfactual_sha256: str = ""
    """Digest of the counterfactual image's bytes; likewise."""
    maps_sha256: str = ""
    """Digest of the bytes of the painter's attention maps; empty, and not written, if there are
    none."""

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, write: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return _left_out(write(self), "maps_sha256")

    @property
    def has_image(self) -> bool:
        """Whether the positive image is here; an older record, without digests, is about both."""
        return bool(self.image_sha256 or not self.counterfactual_sha256)

    @property
    def has_counterfactual(self) -> bool:
        """Whether the counterfactual image is here."""
        return bool(self.counterfactual_sha256 or not self.image_sha256)


class Box(Record, frozen=True):
    """One detected object."""

    class_id: int = Field(ge=0)
    """Vocabulary index."""
    score: float = Field(ge=0, le=1)
    """Span score of the class for this box."""
    xyxy: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
    """Left, top, right, bottom in pixels of the stored image."""


class BoxMask(Record, frozen=True):
    """What was cut out along a box in the pass that found it."""

    rle: str
    """COCO run-length counts (compressed, ASCII) at the size of the stored image."""
    predicted_iou: FiniteFloat
    """The labeller's own estimate of the mask's IoU."""


class Detection(Record, frozen=True):
    """The boxes of one pair."""

    key: str
    """Sample key."""
    boxes: tuple[Box, ...] = Field(min_length=1)
    """Objects found in the positive image, best score first."""
    counterfactual_boxes: tuple[Box, ...]
    """Objects of the same classes found in the counterfactual; ideally none."""
    masks: tuple[BoxMask, ...] = ()
    """One for each of ``boxes``, if one labeller finds and cuts; otherwise they are cut later, and
    nothing is written here."""
    uncertain: str = ""
    """Pixels of which the labeller does not know what they show, as COCO run-length counts; empty,
    and not written, if it decides about all."""

    @model_validator(mode="after")
    def _masks_of_all_boxes(self) -> Self:
        if self.masks and len(self.masks) != len(self.boxes):
            message = f"{len(self.masks)} masks, expected one for each of {len(self.boxes)} boxes"
            raise ValueError(message)
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, write: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return _left_out(write(self), "masks", "uncertain")


class Instance(Record, frozen=True):
    """One object's mask."""

    class_id: int = Field(ge=0)
    """Vocabulary index."""
    score: float = Field(ge=0, le=1)
    """Detector's span score."""
    predicted_iou: FiniteFloat
    """The segmenter's own estimate of its mask's IoU."""
    xyxy: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
    """The prompt box, in pixels."""
    area: int = Field(gt=0)
    """Pixels of the mask before overlaps are resolved."""
    rle: str
    """COCO run-length counts (compressed, ASCII), column-major as ``pycocotools`` has it."""


class MaskSample(Record, frozen=True):
    """The instance masks of one positive image."""

    key: str
    """Sample key."""
    width: int = Field(gt=0)
    """Pixels."""
    height: int = Field(gt=0)
    """Pixels."""
    instances: tuple[Instance, ...] = Field(min_length=1)
    """In order of the detector's boxes."""
    uncertain: str = ""
    """Pixels that are ignored where no instance lies, as COCO run-length counts; empty, and not
    written, if there are none."""

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, write: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return _left_out(write(self), "uncertain")


class TwinCheck(Record, frozen=True):
    """What the detector found in a counterfactual that was painted over its image."""

    key: str
    """Sample key."""
    counterfactual_boxes: tuple[Box, ...]
    """Objects of the sample's classes found in it; ideally none."""


class Others(Record, frozen=True):
    """Objects in an image of classes that nobody asked for."""

    key: str
    """Sample key."""
    asked: tuple[int, ...]
    """Vocabulary indices of the classes that were looked for, ascending; none of the sample's."""
    instances: tuple[Instance, ...]
    """What was found, best score first; ideally nothing."""

    @property
    def class_ids(self) -> tuple[int, ...]:
        """The classes that were found, ascending."""
        return tuple(sorted({instance.class_id for instance in self.instances}))
