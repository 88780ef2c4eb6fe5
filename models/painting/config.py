"""Settings of painter and inpainter; nothing here needs torch."""

from typing import ClassVar, Literal, Self

from pydantic import Field

from models.attention_maps import MapsWanted
from models.configs import ModelConfig
from models.folders import NETWORK_CONFIG, PIPELINE_INDEX, pipeline_parts, read_json
from models.painting.attention_grids import require_resolutions, require_unet
from models.painting.families import INPAINTING, REPAINTING, Sampler, family_of
from models.weights import require_marker, resolve_weights
from storage.errors import InputError

CHECKER_PARTS = frozenset({"safety_checker", "feature_extractor"})
"""Parts of a pipeline that judge images, and have no part in painting them."""


class SamplingConfig(ModelConfig, frozen=True):
    """A diffusion checkpoint and how it is sampled; the defaults are those of MagicSeg."""

    marker: ClassVar[str] = PIPELINE_INDEX
    added_later: ClassVar[frozenset[str]] = frozenset({"kind", "text_tokens"})
    of_the_machine: ClassVar[frozenset[str]] = ModelConfig.of_the_machine | {"compile"}

    steps: int = Field(20, ge=1)
    """Denoising steps."""
    guidance: float = Field(7.5, ge=0)
    """How strongly texts guide: an input of the network if it takes one, otherwise the scale of
    classifier-free guidance, where up to 1 there is none and painting takes half the time."""
    scheduler: Sampler | None = None
    """Sampler; empty means the checkpoint's own."""
    timestep_spacing: Literal["leading", "linspace", "trailing"] | None = None
    """Where the sampler's steps lie; empty means the checkpoint's own."""
    text_tokens: int | None = Field(None, ge=8)
    """How much of a text is read, for checkpoints that can be told: fewer tokens paint faster, and
    longer texts are rejected. Empty means what the checkpoint's pipeline reads."""
    safety_checker: bool = True
    """Let the checkpoint's safety checker judge the images, if it has one."""

    compile: bool = True
    """On a GPU, compile the networks when the first batch is painted, which takes a minute and
    paints faster from then on. Pictures differ by rounding, as those of another GPU do."""

    @property
    def unneeded_parts(self) -> frozenset[str]:
        """What only judges images, if they are not judged."""
        return frozenset() if self.safety_checker else CHECKER_PARTS


class PainterConfig(SamplingConfig, frozen=True):
    """A text-to-image checkpoint and how it is sampled; the defaults are those of MagicSeg."""

    kind: Literal["stable-diffusion"] = "stable-diffusion"
    """Tells this painter from others."""
    height: int = Field(512, ge=8)
    """Pixels; a multiple of what the checkpoint shrinks by."""
    width: int = Field(512, ge=8)
    """Pixels; a multiple of what the checkpoint shrinks by."""
    shared_latent: bool = True
    """Start both images of a pair from one noise; otherwise each has its own."""

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

    def check_maps(self, wanted: MapsWanted) -> None:
        """Look whether the painter has the attention that is to be recorded, without loading it.

        Args:
            wanted: What is to be recorded.

        Raises:
            InputError: If its weights are missing, its network has no cross-attention, or none at a
                resolution.
        """
        weights = resolve_weights(self.model, self.revision)
        family = family_of(read_json(require_marker(weights, self.marker)), weights.source)
        require_unet(family.pipeline, family.network)
        network, decoder = (
            read_json(require_marker(weights, f"{part}/{NETWORK_CONFIG}"))
            for part in (family.network, "vae")
        )
        factor = 2 ** (len(decoder["block_out_channels"]) - 1)
        latent = self.height // factor, self.width // factor
        require_resolutions(family.pipeline, network, latent, wanted)


class InpainterConfig(SamplingConfig, frozen=True):
    """A checkpoint that paints a region of an image over, and how it is sampled.

    A checkpoint for inpainting sees the image around the region. An ordinary one is held to it: at
    each step, everything outside the region is replaced by the image with that step's noise.
    """

    kind: Literal["diffusion"] = "diffusion"
    """Tells this inpainter from others."""

    @classmethod
    def of_painter(cls, painter: object) -> Self:
        """The painter's own checkpoint, sampled as it is for images.

        Args:
            painter: Its configuration.

        Raises:
            InputError: It is of a kind that paints no regions.
        """
        if not isinstance(painter, PainterConfig):
            message = (
                f"a painter of the kind {getattr(painter, 'kind', '')!r} cannot paint over a "
                "region, expected one of the kind 'stable-diffusion'; add an `inpainter` to the "
                "profile, or set `twins.way` to 'paint'"
            )
            raise InputError(message)
        shared = SamplingConfig.model_fields
        return cls.model_validate({name: getattr(painter, name) for name in shared})

    def check(self) -> str:
        """Look for the weights without loading them; say where they are.

        Raises:
            InputError: If they are missing, or are none that can paint over a region.
        """
        found = super().check()
        weights = resolve_weights(self.model, self.revision)
        name = read_json(require_marker(weights, self.marker)).get("_class_name")
        if name not in {*INPAINTING, *REPAINTING}:
            message = (
                f"inpainter {self.model!r} is a {name}, expected one of "
                f"{', '.join([*INPAINTING, *REPAINTING])}; add an `inpainter` with such a "
                "checkpoint to the profile, or set `twins.way` to 'paint'"
            )
            raise InputError(message)
        return found
