"""Settings of the painter; nothing here needs torch."""

from typing import ClassVar, Literal

from pydantic import Field

from models.configs import ModelConfig
from models.folders import PIPELINE_INDEX, pipeline_parts, read_json
from models.painting.families import Sampler, family_of
from models.weights import require_marker, resolve_weights

CHECKER_PARTS = frozenset({"safety_checker", "feature_extractor"})
"""Parts of a pipeline that judge images, and have no part in painting them."""


class PainterConfig(ModelConfig, frozen=True):
    """A text-to-image checkpoint and how it is sampled; the defaults are those of MagicSeg."""

    marker: ClassVar[str] = PIPELINE_INDEX
    added_later: ClassVar[frozenset[str]] = frozenset({"kind", "text_tokens"})
    of_the_machine: ClassVar[frozenset[str]] = ModelConfig.of_the_machine | {"compile"}

    kind: Literal["stable-diffusion"] = "stable-diffusion"
    """Tells this painter from others."""
    steps: int = Field(20, ge=1)
    """Denoising steps."""
    guidance: float = Field(7.5, ge=0)
    """How strongly texts guide: an input of the network if it takes one, otherwise the scale of
    classifier-free guidance, where up to 1 there is none and painting takes half the time."""
    height: int = Field(512, ge=8)
    """Pixels; a multiple of what the checkpoint shrinks by."""
    width: int = Field(512, ge=8)
    """Pixels; a multiple of what the checkpoint shrinks by."""
    scheduler: Sampler | None = None
    """Sampler; empty means the checkpoint's own."""
    timestep_spacing: Literal["leading", "linspace", "trailing"] | None = None
    """Where the sampler's steps lie; empty means the checkpoint's own."""
    text_tokens: int | None = Field(None, ge=8)
    """How much of a text is read, for checkpoints that can be told: fewer tokens paint faster, and
    longer texts are rejected. Empty means what the checkpoint's pipeline reads."""
    shared_latent: bool = True
    """Start both images of a pair from one noise; otherwise each has its own."""
    safety_checker: bool = True
    """Let the checkpoint's safety checker judge the images, if it has one."""

    compile: bool = True
    """On a GPU, compile the networks when the first batch is painted, which takes a minute and
    paints faster from then on. Pictures differ by rounding, as those of another GPU do."""

    @property
    def unneeded_parts(self) -> frozenset[str]:
        """What only judges images, if they are not judged."""
        return frozenset() if self.safety_checker else CHECKER_PARTS

    def check(self) -> str:
        """Look for the weights without loading them, and for what can be done with them.

        Raises:
            InputError: If they are missing, or are of no pipeline that can paint as it is asked to.
        """
        where = super().check()
        weights = resolve_weights(self.model, self.revision)
        index = read_json(require_marker(weights, self.marker))
        family = family_of(index, weights.source)
        family.text_tokens(set(pipeline_parts(index)), self.text_tokens, weights.source)
        return where
