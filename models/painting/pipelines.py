"""Text-to-image pipelines of diffusers, loaded part by part and ready to paint."""

import inspect
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from models.folders import pipeline_parts
from models.loading import importing
from models.networks import load_part
from models.painting.config import CHECKER_PARTS, SamplingConfig
from models.painting.families import FAMILIES, INPAINTING, Family, family_of
from models.painting.parts import assemble, load_parts, part_class, read_pipeline_index
from models.painting.safety import SafetyChecker
from models.painting.samplers import choose_sampler
from models.painting.steps import keep_steps_on_the_processor
from models.preparation import ImagePreparation
from models.weights import Weights, resolve_weights
from storage.errors import InputError

_log = logging.getLogger(__name__)

_EXTRACTOR = "CLIPImageProcessor"
_SAMPLER = "scheduler"


@dataclass(frozen=True)
class LoadedPipeline:
    """A pipeline that is ready to paint.

    Attributes:
        pipeline: It; has no safety checker of its own.
        family: In what it differs from others.
        checker: Judges pictures; None if there is none or it is not asked.
        text_tokens: How much of a text it reads; None if its tokenizers say so.
    """

    pipeline: Any
    family: Family
    checker: SafetyChecker | None
    text_tokens: int | None

    @property
    def network(self) -> Any:
        """The part that takes noise away."""
        return getattr(self.pipeline, self.family.network)

    @property
    def takes_guidance(self) -> bool:
        """Whether guidance is an input of the network."""
        return bool(self.network.config.get(self.family.guidance_input))

    def latent_shape(
        self, model: str, size: tuple[int, int], channels: int | None = None
    ) -> tuple[int, int, int]:
        """Shape of a picture's noise.

        Args:
            model: What messages call the checkpoint.
            size: Height and width of a picture, in pixels.
            channels: Of the noise; empty if the network sees nothing else.

        Returns:
            Channels, height and width.

        Raises:
            InputError: If it cannot paint that size.
        """
        factor = self.pipeline.vae_scale_factor
        patch = self.family.patch or self.network.config.patch_size
        step = math.lcm(self.family.multiple, factor * patch)
        most = (self.network.config.get("pos_embed_max_size") or math.inf) * patch * factor
        height, width = size
        if height % step or width % step or max(width, height) > most:
            limit = "" if most is math.inf else f" up to {most}"
            message = (
                f"painter {model!r} cannot paint {width} x {height} pixels; "
                f"expected multiples of {step}{limit}"
            )
            raise InputError(message)
        seen: int = self.network.config.in_channels // (4 if self.family.packed else 1)
        return channels or seen, height // factor, width // factor


def load_pipeline(
    config: SamplingConfig, device: torch.device, families: Mapping[str, Family] = FAMILIES
) -> LoadedPipeline:
    """Load a painter's pipeline with its sampler, and its safety checker if that is asked.

    Args:
        config: Checkpoint and sampling.
        device: Where it paints.
        families: Those that will do, by the class that an index names.

    Raises:
        InputError: If the checkpoint is missing or damaged, is no pipeline of a known family, or
            does not fit what the configuration asks for.
    """
    weights = resolve_weights(config.model, config.revision)
    index = read_pipeline_index(weights)
    family = family_of(index, weights.source, families)
    length = family.text_tokens(set(pipeline_parts(index)), config.text_tokens, weights.source)
    make = pipeline_class(family.pipeline)
    own = load_parts(weights, index, [_SAMPLER], dtype=config.dtype)[_SAMPLER]
    sampler = choose_sampler(own, family, config)  # small, and may be refused
    parts = load_parts(weights, index, _needed(make, family, index), dtype=config.dtype)
    _require_pair(parts["vae"], parts[family.network], family, config)
    if family.overflows and config.dtype == "float16" and parts["vae"].config.force_upcast:
        _decode_in_float32(parts["vae"])
    checker = _checker(weights, index, config, device)
    if family.network == "unet":  # others are not asked for their step at every turn
        keep_steps_on_the_processor(sampler, parts["unet"])
    pipeline = assemble(make, weights, index, parts | {_SAMPLER: sampler})
    _log.info("painter %s loaded from %s", config.model, weights.source)
    return LoadedPipeline(pipeline.to(device), family, checker, length)


def pipeline_class(name: str) -> Any:
    """A pipeline's class."""
    with importing():  # the library does so when it is asked for a name
        import diffusers

        return getattr(diffusers, name)


def _needed(make: Any, family: Family, index: dict[str, Any]) -> list[str]:
    """Parts that are loaded beside the sampler; what the index lacks of them is told by name."""
    there = set(pipeline_parts(index))
    useless = {_SAMPLER, *CHECKER_PARTS}
    for part, with_it in family.optional.items():
        useless |= with_it | {part} if part not in there else set()
    parameters = inspect.signature(make).parameters
    return [
        name
        for name, each in parameters.items()
        if each.default is inspect.Parameter.empty and name not in useless
    ]


def _checker(
    weights: Weights, index: dict[str, Any], config: SamplingConfig, device: torch.device
) -> SafetyChecker | None:
    if not config.safety_checker or "safety_checker" not in set(pipeline_parts(index)):
        return None
    kind = part_class(index, "safety_checker")
    network = load_part(kind, weights, dtype=config.dtype, part="safety_checker")
    preparation = ImagePreparation(weights, _EXTRACTOR, device, part="feature_extractor")
    return SafetyChecker(network.to(device), preparation)


def _decode_in_float32(vae: Any) -> None:
    """Once and for all; the pipeline itself would turn it there and back for every batch."""
    vae.to(torch.float32)
    first = vae.post_quant_conv if vae.post_quant_conv is not None else vae.decoder
    first.register_forward_pre_hook(lambda _first, latents: (latents[0].float(), *latents[1:]))


def _require_pair(vae: Any, network: Any, family: Family, config: SamplingConfig) -> None:
    """Refuse a network that wants more than a noise; one for inpainting may see the image too."""
    wanted = network.config.in_channels // (4 if family.packed else 1)
    given = vae.config.get("latent_channels") or vae.config.get("z_dim")
    seen = {given, 2 * given + 1} if family.pipeline in INPAINTING else {given}
    if wanted not in seen:
        message = (
            f"painter {config.model!r} has a network that takes {wanted} channels beside an "
            f"autoencoder of {given}, expected as many; take a checkpoint that paints from texts "
            "alone"
        )
        raise InputError(message)
