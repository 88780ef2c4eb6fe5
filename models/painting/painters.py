"""Painters: text-to-image diffusion that gives a scene and its counterfactual from one noise."""

import logging
import math
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import chain
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from models.arithmetic import rounding_of
from models.compiling import Compiled
from models.devices import pick_device
from models.folders import pipeline_parts
from models.networks import load_part
from models.painting.config import PainterConfig
from models.painting.finite_pixels import FinitePixels
from models.painting.safety import SafetyChecker
from models.painting.tokens import part_class, pipeline_tokenizer, read_pipeline_index
from models.processors import load_image_processor, require_fit
from models.protocols import PaintedPair, PairRequest
from models.weights import Weights, loading, resolve_weights
from storage.errors import InputError

_log = logging.getLogger(__name__)

_SCHEDULERS = {
    "ddim": ("DDIMScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
}


_NETWORKS = ("vae", "text_encoder", "unet")
_EXTRACTOR = "CLIPImageProcessor"
_LIBRARIES = {
    "diffusers": "diffusers",
    "transformers": "transformers",
    "stable_diffusion": "diffusers.pipelines.stable_diffusion",
}


class DiffusionPairPainter:
    """Stable Diffusion pairs, batched over pairs and over positive and counterfactual.

    A pair depends on its own request alone: its noise is drawn in float32 on the CPU from a
    generator of its own, so that neither the device nor the company in the batch change it. Every
    batch is filled up to the full size, because another batch size makes another order of
    additions.

    Args:
        config: Checkpoint and sampling.

    Raises:
        InputError: If the checkpoint is missing, is not a Stable Diffusion pipeline, or cannot
            paint the size asked for.
    """

    def __init__(self, config: PainterConfig) -> None:
        self.config = config
        self.device = pick_device(config.device)
        self._pipeline, self._checker = _load(config, self.device)
        if config.compile and self.device.type == "cuda":
            _compile(self._pipeline)
        self._shape = _latent_shape(self._pipeline, config)
        self._pixels = FinitePixels(self._pipeline.vae.decoder)
        self._unconditional = self._embed([""])

    def paint(self, requests: Sequence[PairRequest]) -> list[PaintedPair]:
        """Paint every pair, in order.

        Args:
            requests: What to paint; a text that is too long for the text encoder is cut.

        Returns:
            Pairs of the config's size; pictures that the safety checker flagged are black.
        """
        return list(chain.from_iterable(self._pairs(requests)))

    def _pairs(self, requests: Sequence[PairRequest]) -> Iterator[list[PaintedPair]]:
        size = self.config.batch_size
        for first in range(0, len(requests), size):
            batch = requests[first : first + size]
            filled = [*batch, *[batch[-1]] * (size - len(batch))]
            yield self._paint_batch(filled)[: len(batch)]

    @torch.inference_mode()
    def _paint_batch(self, batch: Sequence[PairRequest]) -> list[PaintedPair]:
        texts = [request.text for request in batch]
        texts += [request.counterfactual_text for request in batch]
        starts = [self._start(request.seed, own=False) for request in batch]
        starts += [
            self._start(request.seed, own=not self.config.shared_latent) for request in batch
        ]
        prompts = self._embed(texts)
        self._pixels.forget()
        latents = torch.stack([latent for latent, _ in starts]).to(self.device, prompts.dtype)
        with rounding_of(self.config.dtype, self.device):
            output = self._pipeline(
                prompt_embeds=prompts,
                negative_prompt_embeds=self._unconditional.expand_as(prompts),
                latents=latents,
                generator=[generator for _, generator in starts],
                num_inference_steps=self.config.steps,
                guidance_scale=self.config.guidance,
                height=self.config.height,
                width=self.config.width,
                output_type="pt",
            )
        images = _to_bytes(output.images)
        unsafe = [False] * len(texts) if self._checker is None else self._checker.flagged(images)
        images[unsafe] = 0
        finite = self._pixels.finite
        count = len(batch)
        return [
            PaintedPair(
                images[i],
                images[count + i],
                unsafe=unsafe[i] or unsafe[count + i],
                finite=finite[i] and finite[count + i],
            )
            for i in range(count)
        ]

    def _start(
        self, seed: int, *, own: bool
    ) -> tuple[Float[Tensor, "channels height width"], torch.Generator]:
        """Draw a noise; the generator that goes on from there feeds samplers that draw more."""
        generator = torch.Generator("cpu").manual_seed(seed)
        latent = torch.randn(self._shape, generator=generator)
        if own:
            latent = torch.randn(self._shape, generator=generator)
        return latent, generator

    @torch.inference_mode()
    def _embed(self, texts: list[str]) -> Float[Tensor, "texts tokens width"]:
        embeddings, _ = self._pipeline.encode_prompt(
            texts, self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return embeddings


def _compile(pipeline: Any) -> None:
    """Compile what takes nearly all of the time; every batch has the same shape."""
    # Not the decoder as a module: what watches its pixels would be compiled with it.
    for name, network in (("unet", pipeline.unet), ("vae", pipeline.vae.decoder)):
        network.forward = Compiled(network.forward, f"the painter's {name}")


def _load(config: PainterConfig, device: torch.device) -> tuple[Any, SafetyChecker | None]:
    """Load every part of the pipeline by itself: the library would not say what one lacks."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
        StableDiffusionPipeline,
    )

    make: Any = StableDiffusionPipeline
    weights = resolve_weights(config.model, config.revision)
    index = read_pipeline_index(weights)
    networks = {name: _network(weights, index, name, config.dtype) for name in _NETWORKS}
    with_checker = config.safety_checker and "safety_checker" in set(pipeline_parts(index))
    tokenizer = pipeline_tokenizer(weights, index)
    require_fit(tokenizer, networks["text_encoder"].config.vocab_size, weights)
    with loading(weights, "scheduler"):
        scheduler = _class(index, "scheduler").from_pretrained(
            weights.source, subfolder="scheduler", **weights.options
        )
        scheduler = _scheduler(scheduler, config)
    checker = None
    if with_checker:
        network = _network(weights, index, "safety_checker", config.dtype)
        extractor = load_image_processor(weights, _EXTRACTOR, part="feature_extractor")
        checker = SafetyChecker(network.to(device), extractor)
    with loading(weights):
        pipeline = make(
            **networks,
            tokenizer=tokenizer,
            scheduler=scheduler,
            safety_checker=None,  # it is asked by us
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    _log.info("painter %s loaded from %s", config.model, weights.source)
    return pipeline.to(device), checker


def _network(weights: Weights, index: dict[str, Any], part: str, dtype: str) -> Any:
    return load_part(_class(index, part), weights, dtype=dtype, part=part)


def _class(index: dict[str, Any], part: str) -> Any:
    """The class of a part.

    Raises:
        InputError: If the index names a class that the library does not have.
    """
    library, name = part_class(index, part)
    found = (
        getattr(import_module(_LIBRARIES[library]), name, None) if library in _LIBRARIES else None
    )
    if found is None:
        message = (
            f"{PainterConfig.marker} says {part!r} is {name!r} of {library!r}, which is not known; "
            "expected a class of diffusers or transformers"
        )
        raise InputError(message)
    return found


def _scheduler(own: Any, config: PainterConfig) -> Any:
    import diffusers

    options: dict[str, Any] = {}
    if config.timestep_spacing is not None:
        options["timestep_spacing"] = config.timestep_spacing
    if config.scheduler is None:
        return type(own).from_config(own.config, **options)
    name, defaults = _SCHEDULERS[config.scheduler]
    return getattr(diffusers, name).from_config(own.config, **defaults, **options)


def _latent_shape(pipeline: Any, config: PainterConfig) -> tuple[int, int, int]:
    factor = pipeline.vae_scale_factor
    step = math.lcm(8, factor)  # the pipeline itself asks for multiples of 8
    if config.height % step or config.width % step:
        message = (
            f"painter {config.model!r} cannot paint {config.width} x {config.height} pixels; "
            f"expected multiples of {step}"
        )
        raise InputError(message)
    channels = pipeline.unet.config.in_channels
    return channels, config.height // factor, config.width // factor


def _to_bytes(
    images: Float[Tensor, "images 3 height width"],
) -> UInt8[np.ndarray, "images height width 3"]:
    scaled = (images.float() * 255).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()
