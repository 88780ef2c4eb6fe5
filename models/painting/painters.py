"""Painters: text-to-image diffusion that gives a scene and its counterfactual from one noise."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from models.attention_maps import AttentionMaps, MapsWanted
from models.devices import pick_device
from models.painting.attention import (
    AttentionRecorder,
    Listened,
    class_prompt,
    listen_for,
    require_attention,
)
from models.painting.brush import Brush, full_batches
from models.painting.config import PainterConfig
from models.painting.holding import as_pixels, held_to
from models.painting.pipelines import load_pipeline
from models.protocols import ImageRequest, PaintedImage, PaintedPair, PairRequest
from storage.errors import InputError


@dataclass(frozen=True, eq=False)
class SeenPair:
    """Two pictures that a painter is shown as if it were about to paint them.

    Attributes:
        request: Their texts, the seed of the noise, and the classes to look for.
        image: Positive, RGB.
        counterfactual: Counterfactual, RGB.
    """

    request: PairRequest
    image: UInt8[np.ndarray, "height width 3"]
    counterfactual: UInt8[np.ndarray, "height width 3"]


class DiffusionPairPainter:
    """Pairs of a text-to-image pipeline, batched over pairs and over positive and counterfactual.

    A pair depends on its own request alone: its noise is drawn in float32 on the CPU from a
    generator of its own, so that neither the device nor the company in the batch change it. Every
    batch is filled up to the full size, because another batch size makes another order of
    additions.

    Args:
        config: Checkpoint and sampling.

    Attributes:
        config: As given.
        loaded: The pipeline.

    Raises:
        InputError: If the checkpoint is missing, is no pipeline of a known family, or cannot
            paint as it is asked to.
    """

    def __init__(self, config: PainterConfig) -> None:
        self.config = config
        self.loaded = load_pipeline(config, pick_device(config.device))
        self._brush = Brush(self.loaded, config)
        self._size = config.height, config.width
        self._shape = self.loaded.latent_shape(config.model, self._size)

    def paint(self, requests: Sequence[PairRequest]) -> list[PaintedPair]:
        """Paint every pair, in order.

        Args:
            requests: What to paint; a text that is too long for the text encoders is cut.

        Returns:
            Pairs of the config's size; pictures that the safety checker flagged are black.
        """
        painted: list[PaintedPair] = []
        for batch, count in full_batches(requests, self.config.batch_size):
            painted += self._paint_batch(batch)[:count]
        return painted

    def paint_recorded(
        self, requests: Sequence[PairRequest], wanted: MapsWanted
    ) -> list[PaintedPair]:
        """Paint every pair, in order, and record where the network looks for its classes.

        Args:
            requests: What to paint, with the classes; maps of tokens that a text is too long for
                are not there.
            wanted: What to record.

        Returns:
            The pairs that `paint` gives, with maps.

        Raises:
            InputError: If the network has no such attention.
        """
        require_attention(self.loaded, wanted, self._shape[-2:])
        painted: list[PaintedPair] = []
        for batch, count in full_batches(requests, self.config.batch_size):
            recorder = self._recorder(batch, wanted)
            pairs = self._paint_batch(batch, recorder)
            maps = recorder.maps([self._listened(each) for each in batch])
            painted += list(map(_with_maps, pairs, maps))[:count]
        return painted

    @torch.inference_mode()
    def look_at(self, scenes: Sequence[SeenPair], wanted: MapsWanted) -> list[AttentionMaps]:
        """Record where the network looks for classes in pictures that it did not paint.

        They are given to it step after step with the noise that the step has, as if it were about
        to paint them.

        Args:
            scenes: Pictures of the painter's size, and what would be painted.
            wanted: What to record.

        Raises:
            InputError: If the network has no such attention, or a picture another size.
        """
        require_attention(self.loaded, wanted, self._shape[-2:])
        found: list[AttentionMaps] = []
        for batch, count in full_batches(scenes, self.config.batch_size):
            requests = [scene.request for scene in batch]
            pictures = [each.image for each in batch] + [each.counterfactual for each in batch]
            recorder = self._recorder(requests, wanted)
            self._paint_batch(requests, recorder, self._pixels(pictures))
            found += recorder.maps(list(map(self._listened, requests)))[:count]
        return found

    def paint_images(self, requests: Sequence[ImageRequest]) -> list[PaintedImage]:
        """Paint pictures alone, as many at once as in pairs; each is the one that its pair has."""
        painted: list[PaintedImage] = []
        for batch, count in full_batches(requests, 2 * self.config.batch_size):
            starts = [
                self._start(request.seed, own=request.is_twin and not self.config.shared_latent)
                for request in batch
            ]
            painted += self._painted([request.text for request in batch], starts)[:count]
        return painted

    def _recorder(self, batch: Sequence[PairRequest], wanted: MapsWanted) -> AttentionRecorder:
        prompts = [class_prompt(each.attended) for each in batch]
        read = self._brush.read(prompts) if wanted.class_prompt else None
        return AttentionRecorder(self.loaded, wanted, self._shape[-2:], 2 * len(batch), read)

    def _pixels(
        self, pictures: Sequence[UInt8[np.ndarray, "height width 3"]]
    ) -> Float[Tensor, "pictures 3 height width"]:
        sizes = {picture.shape[:2] for picture in pictures}
        if sizes != {self._size}:
            message = (
                f"pictures are of the sizes {sorted(sizes)} (height, width), expected the "
                f"painter's, {self._size}; resize them"
            )
            raise InputError(message)
        return as_pixels(torch.from_numpy(np.stack(pictures)))

    def _listened(self, request: PairRequest) -> Listened:
        return listen_for(self.loaded.pipeline.tokenizer, request.text, request.attended)

    def _paint_batch(
        self,
        batch: Sequence[PairRequest],
        recorder: AttentionRecorder | None = None,
        held: Float[Tensor, "pictures 3 _ _"] | None = None,
    ) -> list[PaintedPair]:
        texts = [request.text for request in batch]
        texts += [request.counterfactual_text for request in batch]
        starts = [self._start(request.seed, own=False) for request in batch]
        starts += [
            self._start(request.seed, own=not self.config.shared_latent) for request in batch
        ]
        painted, count = self._painted(texts, starts, recorder, held), len(batch)
        return [
            PaintedPair(
                image.image,
                twin.image,
                unsafe=image.unsafe or twin.unsafe,
                finite=image.finite and twin.finite,
            )
            for image, twin in zip(painted[:count], painted[count:], strict=True)
        ]

    def _painted(
        self,
        texts: Sequence[str],
        starts: Sequence[tuple[Float[Tensor, "channels height width"], torch.Generator]],
        recorder: AttentionRecorder | None = None,
        held: Float[Tensor, "pictures 3 _ _"] | None = None,
    ) -> list[PaintedImage]:
        noises, generators = zip(*starts, strict=True)
        watched = None if recorder is None else recorder.listening()
        more = None if held is None else held_to(self._brush, held, noises)
        return self._brush.paint(texts, noises, generators, self._size, more, watched)

    def _start(
        self, seed: int, *, own: bool
    ) -> tuple[Float[Tensor, "channels height width"], torch.Generator]:
        """Draw a noise; the generator that goes on from there feeds samplers that draw more."""
        generator = torch.Generator("cpu").manual_seed(seed)
        latent = torch.randn(self._shape, generator=generator)
        if own:
            latent = torch.randn(self._shape, generator=generator)
        return latent, generator


def _with_maps(pair: PaintedPair, maps: AttentionMaps) -> PaintedPair:
    return replace(pair, maps=maps, finite=pair.finite and maps.finite)
