"""How a student is scored; nothing here needs torch."""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field, model_validator

from evaluation.scoring.metrics import Average
from evaluation.scoring.points import PointRules

__all__ = ["Background", "InferenceConfig", "Overlap", "ScoringConfig", "SeveralPhrases"]


class ViewConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """At which size and in which windows an image is shown.

    The defaults are those of the released MagicSeg and ZegCLIP settings.
    """

    short_side: int = Field(default=512, ge=8)
    """Pixels of the shorter side after resizing, the ratio kept."""
    long_side: int = Field(default=2048, ge=8)
    """Most pixels of the longer side; it wins over `short_side`."""
    window: int | None = Field(default=512, ge=8)
    """Side of the square windows in pixels; the whole image at once when empty."""
    stride: int = Field(default=426, ge=1)
    """Pixels from one window to the next."""

    @model_validator(mode="after")
    def _windows_touch(self) -> "ViewConfig":
        if self.window is not None and self.stride > self.window:
            message = (
                f"stride {self.stride} is larger than window {self.window}: pixels between the "
                f"windows would have no score, choose a stride of at most {self.window}"
            )
            raise ValueError(message)
        return self


class Background(StrEnum):
    """When a pixel is background."""

    RAW = "raw"
    """The best class's sigmoid score is below the threshold."""
    SOFTMAX = "softmax"
    """The best class's probability among all classes is below the threshold."""
    CONSTANT = "constant"
    """A channel of constant score stands before the classes and wins ties: the best sigmoid score
    must exceed the threshold (TCL's rule)."""
    WORDS = "words"
    """A background word has the best probability among all classes and background words, or the
    best probability is below the threshold (the rule of SCLIP and ClearCLIP)."""
    GROUPVIT = "groupvit"
    """The best score is below the threshold and below the best score of the image. A class's score
    is its probability among all classes, times that among the five nearest to the image; others
    have none (GroupViT's rule)."""
    NONE = "none"
    """By no rule: for class sets without background, and for segmenters that have learned it."""


class Overlap(StrEnum):
    """What is averaged where windows overlap."""

    SCORES = "scores"
    """The scores of each window."""
    LOGITS = "logits"
    """The logits of each window; they become scores at the original image's size."""


class InferenceConfig(ViewConfig, frozen=True):
    """How an image is shown to the student and how its scores become labels.

    The defaults are those of the released MagicSeg and ZegCLIP settings: short side 512, windows of
    512 at a stride of 426; no offset is subtracted from seen classes.
    """

    background: Background = Background.RAW
    """The background rule."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """The background rule's threshold on the score."""
    softmax_scale: float = Field(default=1.0, gt=0)
    """What logits are multiplied by before a softmax, for the rules `softmax`, `words` and
    `groupvit`."""
    overlap: Overlap = Overlap.SCORES
    """What is averaged where windows overlap."""
    batch_size: int = Field(default=8, ge=1)
    """Windows in one forward pass."""
    class_chunk: int = Field(default=8, ge=1)
    """Classes whose full-size scores are held at once; changes speed and memory only. 8 maps of
    512 x 512 fit a CPU's cache; an H200 took 17 ms an image with 8, and 4.7 ms with 128."""
    seen_offset: float = Field(default=0.0, ge=0, le=1)
    """What is subtracted from the scores of the seen classes before the best class is chosen, if
    `zero_shot` names a split: trained classes are surer of themselves. ZegCLIP has 0.1."""

    @model_validator(mode="after")
    def _nearest_of_each_window(self) -> "InferenceConfig":
        if self.background is Background.GROUPVIT and self.overlap is Overlap.LOGITS:
            message = (
                "background groupvit came with overlap logits, expected scores: each window has "
                "nearest classes of its own, so its logits cannot be averaged with another's"
            )
            raise ValueError(message)
        return self


PREFERRED = "preferred"

OFFICIAL = "official"


class SeveralPhrases(StrEnum):
    """How a class with several phrases is scored."""

    FIRST = "first"
    """Only its first phrase counts."""
    AVERAGE = "average"
    """Its embedding is the mean of theirs."""
    BEST = "best"
    """Each has a row of its own, and for each pixel the best one counts (SCLIP)."""


class TextConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """How a class name becomes text."""

    templates: str = "zegclip_multi15"
    """Name of the set of sentences around the class names."""
    names: str = PREFERRED
    """What the classes are called: `preferred`, the benchmark's phrases in our words, of which the
    first is clearest and the others are aliases; `official`, the benchmark's own names; or the
    names of a published work: groupvit, sclip, clearclip, maskclip, clip_diy, catseg."""
    several: SeveralPhrases = SeveralPhrases.FIRST
    """How a class with several phrases is scored."""
    background_words: str = "background"
    """Words that stand for the background under the background rule `words`: `background`, the
    word itself, or `sclip`, a list of things that are seldom asked for."""


class ScoringConfig(TextConfig, frozen=True):
    """How a student is scored."""

    preset: str | None = None
    """A published protocol to follow. Run parameters and the command line take from it whatever
    they do not set; what differs from it is printed beside every number."""
    inference: InferenceConfig = InferenceConfig()
    """Windows, background rule and threshold."""
    average: Average = Average.OCCURRING
    """Which classes the mean is taken over: those in the truth or the prediction (`occurring`),
    those in the truth (`true`), or `all`, one that occurs nowhere counting 0."""
    thresholds: tuple[float, ...] = Field(
        default=tuple(round(0.05 * step, 2) for step in range(1, 20)), max_length=255
    )
    """Background thresholds of the curve, ascending; only for class sets with background. On points
    the thresholds of the point rules' curve."""
    num_examples: int = Field(default=8, ge=0)
    """Images whose label maps are kept for the report, evenly spread over the split."""
    zero_shot: str | None = None
    """A split of the classes into seen and unseen ones, of which the means and their harmonic mean
    are told too: `voc15_5`, `coco_stuff156_15`, `miniature11_3`. For students that were trained
    without the unseen names (`training.zero_shot.left_out`)."""
    points: PointRules = PointRules()
    """How answers at points become one number."""

    def identity(self) -> dict[str, Any]:
        """All settings; those that came later are left out where they have their defaults."""
        found = self.model_dump(mode="json")
        if self.zero_shot is None:
            del found["zero_shot"]
        if not self.inference.seen_offset:
            del found["inference"]["seen_offset"]
        return found
