"""Settings of the models that label images; nothing here needs torch."""

from typing import ClassVar, Literal

from pydantic import Field

from models.configs import ModelConfig


class SpanConfig(ModelConfig, frozen=True):
    """A detector that scores the tokens of phrases; the defaults are those of MagicSeg."""

    box_threshold: float = Field(0.30, ge=0, lt=1)
    """A box is kept if the best token of its phrase scores more than this."""
    text_threshold: float = Field(0.25, ge=0, lt=1)
    """A box is given a phrase if the phrase's score for it is more than this."""
    phrase_score: Literal["mean", "max"] = "mean"
    """How a phrase's score comes from the scores of its tokens."""
    nms_iou: float = Field(0.7, gt=0, le=1)
    """Of two boxes of one phrase that overlap more than this, the better one stays."""


class DetectorConfig(SpanConfig, frozen=True):
    """A Grounding DINO checkpoint and its thresholds."""

    added_later: ClassVar[frozenset[str]] = frozenset({"kind"})

    kind: Literal["grounding-dino"] = "grounding-dino"
    """Tells this detector from others."""


class MmGroundingDinoConfig(SpanConfig, frozen=True):
    """An MM-Grounding-DINO checkpoint and its thresholds."""

    kind: Literal["mm-grounding-dino"] = "mm-grounding-dino"
    """Tells this detector from others."""


class Owlv2Config(ModelConfig, frozen=True):
    """An OWLv2 checkpoint and its thresholds."""

    kind: Literal["owlv2"] = "owlv2"
    """Tells this detector from others."""
    threshold: float = Field(0.2, ge=0, lt=1)
    """A box is given the phrase that scores best for it, if the score is more than this."""
    nms_iou: float = Field(0.7, gt=0, le=1)
    """Of two boxes of one phrase that overlap more than this, the better one stays."""
    text: str = Field("a photo of a {}", pattern=r"^[^{}]*\{\}[^{}]*$")
    """What the network is asked for each phrase, which stands in place of {}."""


class BoxSegmenterConfig(ModelConfig, frozen=True):
    """A segmenter that is prompted with boxes; the defaults are those of Grounded-SAM."""

    of_the_machine: ClassVar[frozenset[str]] = ModelConfig.of_the_machine | {"boxes_at_once"}

    mask_threshold: float = 0.0
    """Logit above which a pixel belongs to the object."""
    multimask: bool = False
    """Let the decoder propose three masks a box and take the one it thinks best; otherwise it
    makes one."""
    boxes_at_once: int = Field(64, ge=1)
    """How many boxes are decoded at once, over all images of a batch; each takes some 44 MB."""


class SegmenterConfig(BoxSegmenterConfig, frozen=True):
    """A SAM checkpoint and how its masks are read."""

    added_later: ClassVar[frozenset[str]] = frozenset({"kind"})

    kind: Literal["sam"] = "sam"
    """Tells this segmenter from others."""


class SamHqConfig(BoxSegmenterConfig, frozen=True):
    """A SAM-HQ checkpoint and how its masks are read."""

    kind: Literal["sam-hq"] = "sam-hq"
    """Tells this segmenter from others."""


class Sam2Config(BoxSegmenterConfig, frozen=True):
    """A SAM 2 checkpoint and how its masks are read."""

    kind: Literal["sam2"] = "sam2"
    """Tells this segmenter from others."""
