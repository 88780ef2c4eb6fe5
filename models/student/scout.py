"""The scout: which classes of a whole vocabulary an image may show, by a frozen CLIP."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel

from models.arithmetic import rounding_of
from models.devices import pick_device
from models.networks import load_network
from models.processors import require_fit
from models.student.clip import load_tokenizer
from models.student.config import CHANNELS
from models.student.scout_config import ClipScoutConfig
from models.student.text_embeddings import TextEncoder, embed_phrases
from models.weights import resolve_weights

_log = logging.getLogger(__name__)

_Names = tuple[tuple[str, ...], ...]


class ClipScout:
    """Compares windows of images with class names in CLIP's joint space.

    Args:
        config: Checkpoint and windows.

    Raises:
        InputError: If the checkpoint is missing, incomplete, or not of a CLIP.
    """

    def __init__(self, config: ClipScoutConfig) -> None:
        self._config = config
        self._device = pick_device(config.device)
        weights = resolve_weights(config.model, config.revision)
        network = load_network(CLIPModel, weights, model_type="clip", dtype=config.dtype)
        self._network: Any = network.to(self._device)
        tokenizer = load_tokenizer(config.model, config.revision)
        require_fit(tokenizer, network.config.text_config.vocab_size, weights)
        self._texts = TextEncoder(self._network, tokenizer)
        self._side = int(network.config.vision_config.image_size)
        mean, deviation = (torch.tensor(row)[:, None, None] for row in CHANNELS["clip"])
        self._mean, self._deviation = mean.to(self._device), deviation.to(self._device)
        self._table: tuple[_Names, Tensor] | None = None
        _log.info("scout %s loaded from %s", config.model, weights.source)

    @torch.inference_mode()
    def likeness(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        phrases: Sequence[tuple[str, ...]],
    ) -> Float32[np.ndarray, "images classes"]:
        """Say how like each class the window of an image is that is most like it.

        Args:
            images: RGB; sizes may differ.
            phrases: What each class is called, at least one phrase each.

        Returns:
            Cosine in [-1, 1]; NaN where a number behind it is none.

        Raises:
            InputError: If a class has no phrase, or its text vector is not finite.
        """
        found = np.zeros((len(images), len(phrases)), np.float32)
        if not images:
            return found
        with rounding_of(self._config.dtype, self._device):
            table = self._text_vectors(tuple(phrases))  # (C, embed)
            # Each image by itself, so that the company it comes in does not change a bit.
            for row, image in enumerate(images):
                vectors = self._encode(self._windows(image))  # (windows, embed)
                found[row] = (vectors @ table.T).float().amax(dim=0).cpu().numpy()
        return found

    def _text_vectors(self, phrases: _Names) -> Tensor:
        """One unit vector a class; those of the classes asked for last are kept."""
        if self._table is None or self._table[0] != phrases:
            table = embed_phrases(self._texts, phrases, self._config.templates)
            self._table = phrases, table
        return self._table[1]

    def _windows(
        self, image: UInt8[np.ndarray, "height width 3"]
    ) -> Float[Tensor, "windows 3 side side"]:
        """Windows of an image at the network's size, normalised; each image by itself."""
        pixels = torch.tensor(image, device=self._device)
        pixels = pixels.permute(2, 0, 1).float() / 255  # (3, H, W)
        height, width = pixels.shape[1:]
        side = max(1, round(self._config.window * min(height, width)))
        crops = torch.stack(
            [
                pixels[:, top : top + side, left : left + side]
                for top in self._places(height - side)
                for left in self._places(width - side)
            ]
        )
        size = (self._side, self._side)
        large = F.interpolate(crops, size, mode="bicubic", align_corners=False, antialias=True)
        return (large.clamp(0, 1) - self._mean) / self._deviation

    def _places(self, last: int) -> Iterator[int]:
        """Where windows begin along a side, from 0 to `last`."""
        return iter(np.linspace(0, last, self._config.windows).round().astype(int).tolist())

    def _encode(
        self, windows: Float[Tensor, "windows 3 side side"]
    ) -> Float[Tensor, "windows embed"]:
        """Unit vectors of windows."""
        dtype, rows = self._network.dtype, []
        for part in windows.split(self._config.batch_size):
            pooled = self._network.vision_model(part.to(dtype)).pooler_output
            rows.append(F.normalize(self._network.visual_projection(pooled), dim=-1))
        return torch.cat(rows)
