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


class SegmenterConfig(ModelConfig, frozen=True):
    """A SAM checkpoint and how its masks are read; the defaults are those of Grounded-SAM."""

    added_later: ClassVar[frozenset[str]] = frozenset({"kind"})

    kind: Literal["sam"] = "sam"
    """Tells this segmenter from others."""
    mask_threshold: float = 0.0
    """Logit above which a pixel belongs to the object."""
    multimask: bool = False
    """Let the decoder propose three masks a box and take the one it thinks best; otherwise it
    makes one."""
