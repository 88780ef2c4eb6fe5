"""OWLv2 of `transformers`, asked one text a phrase."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.arithmetic import keep_in_float32, rounding_of
from models.devices import pick_device
from models.labelling.config import Owlv2Config
from models.labelling.phrase_detector import PhraseDetector, PhraseScores
from models.networks import load_network
from models.processors import load_image_processor, load_whole_tokenizer, require_fit
from models.threads import in_threads
from models.weights import resolve_weights

_log = logging.getLogger(__name__)


class Owlv2(PhraseDetector):
    """OWLv2 of `transformers`.

    Args:
        config: Checkpoint and thresholds.

    Raises:
        InputError: If the checkpoint is missing, incomplete, or of another architecture.
    """

    def __init__(self, config: Owlv2Config) -> None:
        super().__init__(config, _Network(config))


class _Network:
    """The network with its processors.

    Args:
        config: Checkpoint and arithmetic.
    """

    def __init__(self, config: Owlv2Config) -> None:
        from transformers import Owlv2ForObjectDetection

        self._dtype = config.dtype
        self._device = pick_device(config.device)
        weights = resolve_weights(config.model, config.revision)
        network = load_network(
            Owlv2ForObjectDetection, weights, model_type="owlv2", dtype=config.dtype
        )
        self._kind = network.dtype
        if self._kind != torch.float32:
            keep_in_float32(network.box_head)  # half precision knows a place of 960 to 2 pixels
        self._network: Any = network.to(self._device)
        self._images: Any = load_image_processor(weights, "Owlv2ImageProcessor")
        self._tokenizer: Any = load_whole_tokenizer(weights, "CLIPTokenizer")
        require_fit(self._tokenizer, network.config.text_config.vocab_size, weights)
        _log.info("detector %s loaded from %s", config.model, weights.source)

    @property
    def max_tokens(self) -> int:
        """Longest text that the network reads."""
        return self._network.config.text_config.max_position_embeddings

    def count_tokens(self, text: str) -> int:
        """Count a text's tokens, special tokens included."""
        return len(self._tokenizer(text).input_ids)

    @torch.inference_mode()
    def score(
        self, pictures: Sequence[Image.Image], texts: Sequence[Sequence[str]]
    ) -> list[PhraseScores]:
        """Score each picture's own texts on it."""
        pixels = self._pixels(pictures)
        ids, mask = self._tokens(texts)
        with rounding_of(self._dtype, self._device):
            outputs = self._network(
                pixel_values=pixels.to(self._device, self._kind),
                input_ids=ids.to(self._device),
                attention_mask=mask.to(self._device),
            )
        scores = outputs.logits.float().sigmoid().cpu().numpy()
        boxes = outputs.pred_boxes.float().cpu().numpy()
        return [
            PhraseScores(own[:, : len(asked)], found * _square_in(picture))
            for own, found, asked, picture in zip(scores, boxes, texts, pictures, strict=True)
        ]

    def _pixels(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Prepare pictures, each by itself; all come out as squares of one size."""
        prepared = in_threads(lambda own: self._images(images=[own], return_tensors="pt"), pictures)
        return torch.cat([own["pixel_values"] for own in prepared])

    def _tokens(self, texts: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
        """All texts, with as many for each picture: a text of zeros is one that is not there."""
        most = max(len(own) for own in texts)
        ids = torch.zeros((len(texts), most, self.max_tokens), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for index, own in enumerate(texts):
            for place, text in enumerate(own):
                tokens = torch.tensor(self._tokenizer(text).input_ids)
                ids[index, place, : len(tokens)] = tokens
                mask[index, place, : len(tokens)] = 1
        mask[:, :, 0] = 1  # a text without a token would make numbers that are none
        return ids.flatten(0, 1), mask.flatten(0, 1)


def _square_in(picture: Image.Image) -> np.ndarray:
    """The square that the network saw, in terms of the picture at its upper left."""
    side = max(picture.size)
    return np.array([side / picture.width, side / picture.height] * 2, np.float32)
