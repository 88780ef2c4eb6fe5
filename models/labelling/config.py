"""Settings of the models that label images; nothing here needs torch."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from models.configs import ModelConfig

if TYPE_CHECKING:
    import torch


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


class CompiledConfig(ModelConfig, frozen=True):
    """A network of which a part is compiled on a GPU."""

    of_the_machine: ClassVar[frozenset[str]] = ModelConfig.of_the_machine | {"compile"}

    compile: bool = True
    """On a GPU, compile what takes most of the time when the first batch is full, which takes up to
    a minute and pays after some thousand images. What is found differs by rounding, as that of
    another GPU does."""


def compiled_batches(config: CompiledConfig, device: "torch.device") -> int | None:
    """Images of the batches for which a network is compiled on a device; None for none."""
    return config.batch_size if config.compile and device.type == "cuda" else None


class DetectorConfig(SpanConfig, CompiledConfig, frozen=True):
    """A Grounding DINO checkpoint and its thresholds."""

    added_later: ClassVar[frozenset[str]] = frozenset({"kind"})

    kind: Literal["grounding-dino"] = "grounding-dino"
    """Tells this detector from others."""


class MmGroundingDinoConfig(SpanConfig, CompiledConfig, frozen=True):
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


_OF_THE_MACHINE = BoxSegmenterConfig.of_the_machine | CompiledConfig.of_the_machine


class SegmenterConfig(BoxSegmenterConfig, CompiledConfig, frozen=True):
    """A SAM checkpoint and how its masks are read."""

    added_later: ClassVar[frozenset[str]] = frozenset({"kind"})
    of_the_machine: ClassVar[frozenset[str]] = _OF_THE_MACHINE

    kind: Literal["sam"] = "sam"
    """Tells this segmenter from others."""


class SamHqConfig(BoxSegmenterConfig, CompiledConfig, frozen=True):
    """A SAM-HQ checkpoint and how its masks are read."""

    of_the_machine: ClassVar[frozenset[str]] = _OF_THE_MACHINE

    kind: Literal["sam-hq"] = "sam-hq"
    """Tells this segmenter from others."""


class Sam2Config(BoxSegmenterConfig, frozen=True):
    """A SAM 2 checkpoint and how its masks are read."""

    kind: Literal["sam2"] = "sam2"
    """Tells this segmenter from others."""
