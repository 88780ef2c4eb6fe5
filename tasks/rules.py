"""Rules: what each stage lets pass."""

from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, Field, model_validator

from models.attention_maps import MapsWanted
from models.writing.mentions import CounterfactualRule

__all__ = ["DetectionRules", "MaskRules", "OtherRules", "PairRules", "PromptRules", "TwinRules"]


class Rules(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What a stage lets pass.

    Attributes:
        added_later: Fields that older identities do not have; they are left out while they hold
            their default, so that what was made before they existed keeps its key.
    """

    added_later: ClassVar[frozenset[str]] = frozenset()

    def identity(self) -> dict[str, Any]:
        """Say what passes, as it is part of the keys of what is made."""
        fields = type(self).model_fields
        unused = {name for name in self.added_later if getattr(self, name) == fields[name].default}
        return self.model_dump(mode="json", exclude=unused)


class PromptRules(Rules, frozen=True):
    """Which texts are good enough."""

    added_later: ClassVar[frozenset[str]] = frozenset({"append_classes"})

    max_rounds: int = Field(default=3, ge=1)
    """How often texts are asked for; after the first time, only the missing ones."""
    duplicate_similarity: float | None = Field(default=0.8, gt=0, le=1)
    """A text is dropped if it shares at least this part of its word pairs (Jaccard) with another of
    its class set; texts under 8 words must match word for word. null keeps all."""
    counterfactual: CounterfactualRule = "nothing"
    """How a mention is replaced: by the word "nothing" as in the paper, or by a gap."""
    append_classes: bool = False
    """Whether each text ends with the names of its classes once more, as Dataset Diffusion paints
    (arXiv 2309.14303): "a cat by the sea; cat"."""


class PairRules(Rules, frozen=True):
    """Which pairs of images are good enough."""

    added_later: ClassVar[frozenset[str]] = frozenset({"record"})

    min_deviation: float = Field(default=2.0, ge=0, le=128)
    """An image is blank if no colour channel's standard deviation over the pixels (0..255) reaches
    this; a black frame has 0."""
    record: MapsWanted | None = None
    """Attention maps of the painter that are kept with each pair; null for those that the labeller
    reads, which may be none. Whoever means to label the same pictures in several ways records here
    what all of them read: maps cannot be made later without painting again."""

    def identity(self) -> dict[str, Any]:
        """Say what passes; what is recorded is told once, whoever asks for it."""
        return {name: each for name, each in super().identity().items() if name != "record"}


class DetectionRules(Rules, frozen=True):
    """Which detections are good enough; the detector has thresholds of its own."""

    added_later: ClassVar[frozenset[str]] = frozenset({"max_boxes"})

    require: Literal["all", "any"] = "all"
    """Whether every class of a sample must be found, or one is enough and the classes that are not
    found leave the sample."""
    counterfactual: Literal["reject", "record"] = "reject"
    """What happens when the detector finds a class of the sample in the counterfactual."""
    max_boxes: int | None = Field(default=None, ge=1)
    """Most boxes that a class may have in an image; more say that the detector sees it in every
    corner. null allows any number."""


class MaskRules(Rules, frozen=True):
    """Which masks are good enough."""

    min_area: float = Field(default=0.002, ge=0, le=1)
    """Smallest share of the image that a class may cover in the label map."""
    max_area: float = Field(default=0.9, ge=0, le=1)
    """Largest share of the image that a class may cover: more is a mask of the background."""


class TwinRules(Rules, frozen=True):
    """How counterfactual images are made."""

    way: Literal["paint", "later", "inpaint"] = "paint"
    """Painted with the image, from the same noise, as in the paper; or so painted later, where the
    image has passed all its rules, which gives the same pictures and paints none for images that
    are dropped; or the image with its objects painted over, which keeps everything else as it
    is."""
    grow: float = Field(default=0.06, ge=0, le=0.5)
    """How far beyond the objects is painted over, as a share of the image's shorter side."""
    feather: float = Field(default=0.03, ge=0, le=0.5)
    """Over how much of that the new picture fades into the image; at most `grow`, so that nothing
    is left of the objects."""

    @model_validator(mode="after")
    def _keep_objects_covered(self) -> Self:
        if self.feather > self.grow:
            message = f"feather is {self.feather:g}, expected at most grow, which is {self.grow:g}"
            raise ValueError(message)
        return self


class OtherRules(Rules, frozen=True):
    """Whether images are looked through for objects of classes that nobody asked for."""

    way: Literal["none", "ignore", "labels"] = "none"
    """`none` does not look, as in the paper, so that such objects are taught as background;
    `ignore` marks their pixels as of unknown class; `labels` makes them objects of the sample. In
    both, their classes are kept out of the image's negatives."""
    mentioned: bool = True
    """Whether classes are looked for that the text names beside the sample's own."""
    nearest: int = Field(default=5, ge=0)
    """Of the other classes, how many are looked for: those that some part of the image is most
    like, by the profile's scout."""
    min_score: float = Field(default=0.35, ge=0, le=1)
    """Least score of a box, beside the detector's own thresholds: nobody says that these objects
    are there, so more is asked of them."""
    max_overlap: float = Field(default=0.5, ge=0, le=1)
    """Largest share of such an object that may lie on the sample's own: more is one of these under
    another name."""
    min_area: float = Field(default=0.002, ge=0, le=1)
    """Smallest share of the image that such an object may cover outside the sample's own."""
    max_area: float = Field(default=0.9, ge=0, le=1)
    """Largest share: more is a mask of the background."""

    @model_validator(mode="after")
    def _look_for_something(self) -> Self:
        if self.way != "none" and not self.mentioned and not self.nearest:
            message = (
                "mentioned is false and nearest is 0, so that no class is looked for; expected one "
                "of them, or way 'none'"
            )
            raise ValueError(message)
        return self

    def identity(self) -> dict[str, Any]:
        """Say what passes; what becomes of it is a matter of packing."""
        return {name: each for name, each in super().identity().items() if name != "way"}
