"""Painters: text-to-image diffusion that gives a scene and its counterfactual from one noise."""

import logging
import math
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from models.devices import pick_device
from models.painting.config import PainterConfig
from models.painting.tokens import read_pipeline_index
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
        self._pipeline = _load(config).to(self.device)
        self._shape = _latent_shape(self._pipeline, config)
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
        output = self._pipeline(
            prompt_embeds=prompts,
            negative_prompt_embeds=self._unconditional.expand_as(prompts),
            latents=torch.stack([latent for latent, _ in starts]).to(self.device, prompts.dtype),
            generator=[generator for _, generator in starts],
            num_inference_steps=self.config.steps,
            guidance_scale=self.config.guidance,
            height=self.config.height,
            width=self.config.width,
            output_type="pt",
        )
        images = _to_bytes(output.images)
        unsafe = output.nsfw_content_detected or [False] * len(texts)
        count = len(batch)
        return [
            PaintedPair(images[i], images[count + i], bool(unsafe[i] or unsafe[count + i]))
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


def _load(config: PainterConfig) -> Any:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from diffusers.utils import logging as diffusers_logging

    weights = resolve_weights(config.model, config.revision)
    parts = _parts(weights)
    options: dict[str, Any] = {"dtype": getattr(torch, config.dtype)}
    if not config.safety_checker or "safety_checker" not in parts:
        options |= {"safety_checker": None, "requires_safety_checker": False}
    diffusers_logging.disable_progress_bar()
    with loading(weights):
        pipeline: Any = DiffusionPipeline.from_pretrained(
            weights.source, **weights.options, **options
        )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = _scheduler(pipeline.scheduler, config)
    _log.info("painter %s loaded from %s", config.model, weights.source)
    return pipeline


def _parts(weights: Weights) -> set[str]:
    """Names of the pipeline's parts that have weights of their own."""
    index = read_pipeline_index(weights)
    return {name for name, part in index.items() if isinstance(part, list) and part[0] is not None}


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
