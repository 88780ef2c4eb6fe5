"""What the stages need of a model; everything else is up to the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from models.attention_maps import AttentionMaps, MapsWanted
from models.masks import PackedMasks
from storage.vocabulary import ClassRecord

__all__ = [
    "AttendedClass",
    "AttentionLabeller",
    "AwaitedAnswers",
    "BatchingWriter",
    "ClassScout",
    "CutMasks",
    "Detector",
    "FoundBoxes",
    "FoundObjects",
    "ImagePainter",
    "ImageRequest",
    "InpaintRequest",
    "Inpainter",
    "Labeller",
    "PaintedImage",
    "PaintedPair",
    "PairPainter",
    "PairRequest",
    "PromptWriter",
    "RecordedScene",
    "RecordingPainter",
    "Segmenter",
    "TextAnswer",
    "TextRequest",
    "TokenCounter",
    "WaitingWriter",
]


@dataclass(frozen=True)
class TextRequest:
    """A request for scene texts that name the same classes.

    Attributes:
        classes: The one or two classes that every text must name.
        count: How many texts are wanted, at least 1.
        seed: Seed of the writer's random choices.
        round: 0 for the first request, +1 for each repeat; another round is another request, so
            an answer that was of no use is not served again from a cache.
        avoid: Texts that already exist for these classes.
    """

    classes: tuple[ClassRecord, ...]
    count: int
    seed: int
    round: int = 0
    avoid: tuple[str, ...] = ()


@dataclass(frozen=True)
class TextAnswer:
    """What a writer made of a request.

    Attributes:
        texts: Up to ``count`` texts, not yet checked for mentions, length or likeness.
        failure: Empty, or why texts are missing: ``refused`` or ``failed`` and the details.
        refused: Whether the service declined to answer; otherwise a failure was technical.
        awaited: Whether the answer comes hours later; then nothing else is known of it.
    """

    texts: tuple[str, ...]
    failure: str = ""
    refused: bool = False
    awaited: bool = False


@runtime_checkable
class PromptWriter(Protocol):
    """Writes scene texts."""

    @property
    def name(self) -> str:
        """What the records say wrote the text."""
        ...

    def write(self, requests: Sequence[TextRequest]) -> list[TextAnswer]:
        """Answer every request, in order; a request that cannot be answered says so.

        A writer that is down raises TransientError, and is asked for all of it again later: what
        it had answered by then it should still know.
        """
        ...


@runtime_checkable
class WaitingWriter(PromptWriter, Protocol):
    """A writer that may have to wait long for its answers, and can be told to give up."""

    def write_while(
        self, requests: Sequence[TextRequest], is_wanted: Callable[[], bool]
    ) -> list[TextAnswer]:
        """Like `write`; once nobody wants it any more, what was not sent is not answered."""
        ...


@dataclass(frozen=True)
class AwaitedAnswers:
    """What a writer waits for.

    Attributes:
        calls: Calls that are to be answered.
        batches: Batches that they are in.
        since: When the first of those was made; None if there are none.
        next_look: When to look again; None if somebody has to bring the answers.
        exported: Calls that somebody has to bring the answers of.
    """

    calls: int
    batches: int
    since: datetime | None
    next_look: datetime | None
    exported: int = 0


@runtime_checkable
class BatchingWriter(WaitingWriter, Protocol):
    """A writer that can ask for many answers at once, which come hours later."""

    def settle(self, check: Callable[[], None]) -> None:
        """Take in the answers that have come; `check` may raise to end it."""
        ...

    def send(self, check: Callable[[], None], is_wanted: Callable[[], bool]) -> bool:
        """Ask for all answers that were wanted and are awaited.

        Says whether some are there now.
        """
        ...

    def awaited(self) -> AwaitedAnswers:
        """What is waited for now."""
        ...


@dataclass(frozen=True)
class AttendedClass:
    """A class whose words a painter's attention is recorded for.

    Attributes:
        name: What the class prompt calls it.
        spans: Its mentions in the text: first character, and one past the last.
    """

    name: str
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class PairRequest:
    """One pair to paint.

    Attributes:
        text: Prompt of the positive image.
        counterfactual_text: Prompt of the counterfactual image.
        seed: Seed of the pair's initial latent.
        attended: The classes whose maps are recorded, if any are.
    """

    text: str
    counterfactual_text: str
    seed: int
    attended: tuple[AttendedClass, ...] = ()


@dataclass(frozen=True)
class PaintedPair:
    """A positive and a counterfactual image.

    Attributes:
        image: Positive, RGB.
        counterfactual: Counterfactual, RGB, of the same size.
        unsafe: Whether the safety checker flagged either.
        finite: Whether all numbers behind the pixels were; otherwise they mean nothing.
        maps: Where the painter looked for the classes; None if that was not recorded.
    """

    image: UInt8[np.ndarray, "height width 3"]
    counterfactual: UInt8[np.ndarray, "height width 3"]
    unsafe: bool
    finite: bool = True
    maps: AttentionMaps | None = None


@dataclass(frozen=True)
class ImageRequest:
    """One image to paint.

    Attributes:
        text: Its prompt.
        seed: Seed of its initial latent; in a pair with this seed it is the same image.
        is_twin: Whether it is the pair's counterfactual.
    """

    text: str
    seed: int
    is_twin: bool = False


@dataclass(frozen=True)
class InpaintRequest:
    """An image of which a region is to be painted over.

    Attributes:
        image: RGB.
        region: What is to be painted over.
        text: What the whole image shows then.
        seed: Seed of the noise in the region.
    """

    image: UInt8[np.ndarray, "height width 3"]
    region: Bool[np.ndarray, "height width"]
    text: str
    seed: int


@dataclass(frozen=True)
class PaintedImage:
    """One image.

    Attributes:
        image: RGB.
        unsafe: Whether the safety checker flagged it.
        finite: Whether all numbers behind the pixels were; otherwise they mean nothing.
    """

    image: UInt8[np.ndarray, "height width 3"]
    unsafe: bool
    finite: bool = True


@runtime_checkable
class TokenCounter(Protocol):
    """Knows how long a text is for a painter; threads may share it."""

    @property
    def max_tokens(self) -> int:
        """Longest text that the painter reads, special tokens included."""
        ...

    def count_tokens(self, text: str) -> int:
        """Count a text's tokens, special tokens included."""
        ...


@runtime_checkable
class PairPainter(Protocol):
    """Paints scenes and their counterfactuals."""

    def paint(self, requests: Sequence[PairRequest]) -> list[PaintedPair]:
        """Paint every pair, in order; a pair depends on its own request alone."""
        ...


@runtime_checkable
class RecordingPainter(PairPainter, Protocol):
    """A painter that can say where it looked for each class."""

    def paint_recorded(
        self, requests: Sequence[PairRequest], wanted: MapsWanted
    ) -> list[PaintedPair]:
        """Paint every pair, with maps; the pictures are those of `paint`."""
        ...


@runtime_checkable
class ImagePainter(Protocol):
    """A painter that paints images without counterfactuals too."""

    def paint_images(self, requests: Sequence[ImageRequest]) -> list[PaintedImage]:
        """Paint every image, in order; an image depends on its own request alone."""
        ...


@runtime_checkable
class Inpainter(Protocol):
    """Paints regions of images over."""

    def inpaint(self, requests: Sequence[InpaintRequest]) -> list[PaintedImage]:
        """Paint each region over, in order; a picture depends on its own request alone.

        Outside its region a picture need not be the image: that is laid over it again.
        """
        ...


@dataclass(frozen=True)
class FoundBoxes:
    """Boxes in one image.

    Attributes:
        xyxy: Corners in pixels of the image given, clipped to it.
        scores: Span score of the phrase for the box, in [0, 1].
        phrases: Index of the phrase in the list asked for.
        best_scores: For every phrase asked for the best score of any box, above the thresholds or
            not: what to say about a phrase that was not found.
        finite: Whether all numbers behind the boxes were; otherwise there are none.
    """

    xyxy: Float32[np.ndarray, "boxes 4"]
    scores: Float32[np.ndarray, " boxes"]
    phrases: np.ndarray
    best_scores: Float32[np.ndarray, " asked"]
    finite: bool = True


@runtime_checkable
class Detector(Protocol):
    """Finds objects by phrase."""

    def detect(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        phrases: Sequence[tuple[str, ...]],
    ) -> list[FoundBoxes]:
        """Find each image's own phrases in it; thresholds and per-phrase NMS are applied."""
        ...


@dataclass(frozen=True)
class CutMasks:
    """Masks in one image, one per prompt box.

    Attributes:
        masks: Binary masks at the image's size, as one array or packed.
        predicted_ious: The segmenter's own estimate for each mask.
        finite: Whether all numbers behind the masks were; otherwise they mean nothing.
    """

    masks: Bool[np.ndarray, "boxes height width"] | PackedMasks
    predicted_ious: Float32[np.ndarray, " boxes"]
    finite: bool = True


@runtime_checkable
class Segmenter(Protocol):
    """Cuts objects out of images, given their boxes."""

    def segment(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        boxes: Sequence[Float32[np.ndarray, "_ 4"]],
    ) -> list[CutMasks]:
        """Cut one mask for each box (xyxy, pixels); each image has at least one box."""
        ...


@dataclass(frozen=True)
class FoundObjects:
    """Boxes in one image, and what is cut out along them.

    Attributes:
        boxes: The boxes.
        cuts: A mask for each box, in their order; of no box none.
        uncertain: Pixels of which the labeller does not know what they show; None if it always
            decides.
    """

    boxes: FoundBoxes
    cuts: CutMasks
    uncertain: Bool[np.ndarray, "height width"] | None = None


@runtime_checkable
class Labeller(Detector, Protocol):
    """Finds objects by phrase and cuts them out."""

    def label(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        phrases: Sequence[tuple[str, ...]],
    ) -> list[FoundObjects]:
        """Find each image's own phrases in it, with masks; the boxes are those of `detect`."""
        ...


@runtime_checkable
class ClassScout(Protocol):
    """Says which of many classes an image may show, cheaply and without being sure."""

    def likeness(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        phrases: Sequence[tuple[str, ...]],
    ) -> Float32[np.ndarray, "images classes"]:
        """How like each class, given by its phrases, some part of each image is; in any unit."""
        ...


@dataclass(frozen=True, eq=False)
class RecordedScene:
    """An image, and where its painter looked for each class of its sample.

    Attributes:
        image: RGB, as it is stored.
        maps: What was recorded.
        names: The classes, as the detector is asked for them.
        present: Positions of those that are known to be in the image; None if the labeller is to
            judge.
    """

    image: UInt8[np.ndarray, "height width 3"]
    maps: AttentionMaps
    names: tuple[str, ...]
    present: frozenset[int] | None = None


@runtime_checkable
class AttentionLabeller(Protocol):
    """Finds objects where the painter looked for their words, and cuts them out.

    In a result `phrases` holds positions in the scene's `names`.
    """

    def label_scenes(self, scenes: Sequence[RecordedScene]) -> list[FoundObjects]:
        """Find each scene's own classes in its image; a class that was not drawn is not found."""
        ...

    def find_in_twins(self, scenes: Sequence[RecordedScene]) -> list[FoundBoxes]:
        """Find each scene's own classes in its counterfactual, whose picture is the scene's."""
        ...
