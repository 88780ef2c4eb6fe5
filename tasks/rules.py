"""Rules: what each stage lets pass."""

from typing import Literal

from pydantic import BaseModel, Field

from models.writing.mentions import CounterfactualRule

__all__ = ["DetectionRules", "MaskRules", "PairRules", "PromptRules"]


class PromptRules(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Which texts are good enough."""

    max_rounds: int = Field(default=3, ge=1)
    """How often texts are asked for; after the first time, only the missing ones."""
    duplicate_similarity: float | None = Field(default=0.8, gt=0, le=1)
    """A text is dropped if it shares at least this part of its word pairs (Jaccard) with another of
    its class set; texts under 8 words must match word for word. null keeps all."""
    counterfactual: CounterfactualRule = "nothing"
    """How a mention is replaced: by the word "nothing" as in the paper, or by a gap."""


class PairRules(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Which pairs of images are good enough."""

    min_deviation: float = Field(default=2.0, ge=0, le=128)
    """An image is blank if no colour channel's standard deviation over the pixels (0..255) reaches
    this; a black frame has 0."""


class DetectionRules(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Which detections are good enough; the detector has thresholds of its own."""

    require: Literal["all", "any"] = "all"
    """Whether every class of a sample must be found, or one is enough and the classes that are not
    found leave the sample."""
    counterfactual: Literal["reject", "record"] = "reject"
    """What happens when the detector finds a class of the sample in the counterfactual."""


class MaskRules(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Which masks are good enough."""

    min_area: float = Field(default=0.002, ge=0, le=1)
    """Smallest share of the image that a class may cover in the label map."""
    max_area: float = Field(default=0.9, ge=0, le=1)
    """Largest share of the image that a class may cover: more is a mask of the background."""
