"""SAM 3: one network that finds what a phrase names and cuts it out."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from torch import Tensor

from models.arithmetic import rounding_of, torch_dtype
from models.devices import pick_device
from models.labelling.boxes import clipped
from models.labelling.sam3_config import Sam3Config, network_name
from models.networks import load_part
from models.preparation import ImagePreparation
from models.processors import load_whole_tokenizer, require_fit
from models.protocols import CutMasks, FoundBoxes, FoundObjects
from models.weights import resolve_weights
from storage.errors import InputError

_log = logging.getLogger(__name__)

_MAX_TOKENS = 32  # what the library's processor fills each phrase up to
_VALUES_AT_ONCE = 32_000_000  # of masks that are enlarged: 128 MB
_ENCODERS = frozenset({"vision_encoder", "text_encoder", "text_projection"})


class Sam3:
    """SAM 3 of `transformers`, asked for each phrase of an image by itself.

    An image is encoded once, whatever is asked of it. Pairs of an image and a phrase share batches,
    also those of several images. An object's score is its own probability times the probability
    that the phrase is present at all; each query of the network is one object, so that nothing
    has to be suppressed. The network does not judge its masks: what it says of a mask is the score
    of the object.

    Args:
        config: Checkpoint and thresholds.

    Raises:
        InputError: If the checkpoint is missing, incomplete, or of another architecture, or the
            installed transformers does not know it.
    """

    def __init__(self, config: Sam3Config) -> None:
        self._config = config
        self._network = _Network(config)

    def detect(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], phrases: Sequence[tuple[str, ...]]
    ) -> list[FoundBoxes]:
        """Find each image's own phrases in it.

        Args:
            images: RGB; sizes may differ.
            phrases: For each image what to look for.

        Returns:
            For each image its boxes, best score first.

        Raises:
            InputError: If a phrase is empty or longer than the network reads, or the two lists
                differ in length.
        """
        return [found.boxes for found in self._found(images, phrases, with_masks=False)]

    def label(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], phrases: Sequence[tuple[str, ...]]
    ) -> list[FoundObjects]:
        """Find each image's own phrases in it, with masks; the boxes are those of `detect`.

        Args:
            images: RGB; sizes may differ.
            phrases: For each image what to look for.

        Returns:
            For each image its objects, best score first; masks have its size.

        Raises:
            InputError: If a phrase is empty or longer than the network reads, or the two lists
                differ in length.
        """
        return list(self._found(images, phrases, with_masks=True))

    def _found(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        phrases: Sequence[tuple[str, ...]],
        *,
        with_masks: bool,
    ) -> Iterator[FoundObjects]:
        if len(images) != len(phrases):
            message = f"{len(images)} images came with phrases of {len(phrases)}, expected as many"
            raise InputError(message)
        tokens = {phrase: self._network.read(phrase) for own in phrases for phrase in own}
        size = self._config.batch_size
        for first in range(0, len(images), size):
            part = slice(first, first + size)
            yield from self._look(images[part], phrases[part], tokens, with_masks)

    def _look(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        phrases: Sequence[tuple[str, ...]],
        tokens: dict[str, "_Tokens"],
        with_masks: bool,
    ) -> list[FoundObjects]:
        """Encode a batch of images, and ask for all of their phrases."""
        features = self._network.encode(images)
        pairs = [(row, phrase) for row, own in enumerate(phrases) for phrase in dict.fromkeys(own)]
        found: dict[tuple[int, str], _Objects] = {}
        size = self._config.batch_size
        for first in range(0, len(pairs), size):
            batch = pairs[first : first + size]
            answers = self._network.ask(
                features, [row for row, _ in batch], [tokens[phrase] for _, phrase in batch]
            )
            for (row, phrase), answer in zip(batch, answers, strict=True):
                found[row, phrase] = self._objects(answer, images[row].shape[:2], with_masks)
        return [
            _merged([found[row, phrase] for phrase in own], images[row].shape[:2])
            for row, own in enumerate(phrases)
        ]

    def _objects(self, answer: "_Answer", size: tuple[int, int], with_masks: bool) -> "_Objects":
        boxes = clipped(answer.boxes.cpu().numpy(), (size[1], size[0]))
        scores = answer.scores.cpu().numpy()
        extent = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        kept = np.flatnonzero((scores > self._config.score_threshold) & extent)
        logits = answer.logits[torch.from_numpy(kept).to(answer.logits.device)]
        masks = self._enlarged(logits, size) if with_masks else np.zeros((0, *size), np.bool_)
        return _Objects(
            boxes=boxes[kept],
            scores=scores[kept],
            best=np.float32(scores.max()),
            masks=masks,
            finite=bool(np.isfinite(boxes).all() and np.isfinite(scores).all()),
            whole=not with_masks or bool(logits.isfinite().all()),
        )

    def _enlarged(
        self, logits: Float[Tensor, "kept rows columns"], size: tuple[int, int]
    ) -> Bool[np.ndarray, "kept height width"]:
        """Bring masks to the size of the image, some at a time; probabilities are interpolated."""
        masks = np.zeros((len(logits), *size), np.bool_)
        chunk = max(1, _VALUES_AT_ONCE // (size[0] * size[1]))
        for first in range(0, len(logits), chunk):
            part = slice(first, first + chunk)
            enlarged = torch.nn.functional.interpolate(
                logits[None, part].sigmoid(), size=size, mode="bilinear", align_corners=False
            )
            masks[part] = (enlarged[0] > self._config.mask_threshold).cpu().numpy()
        return masks


@dataclass(frozen=True)
class _Tokens:
    """A phrase in the words of the tokenizer, filled up."""

    ids: Int64[Tensor, " length"]
    mask: Int64[Tensor, " length"]


@dataclass(frozen=True)
class _Answer:
    """What the network says of one phrase in one image; boxes are corners relative to it."""

    boxes: Float32[Tensor, "queries 4"]
    scores: Float32[Tensor, " queries"]
    logits: Float32[Tensor, "queries rows columns"]


@dataclass(frozen=True)
class _Objects:
    """What was found of one phrase in one image.

    Attributes:
        boxes: xyxy in pixels.
        scores: Of each box.
        best: Of all queries, kept or not.
        masks: For each box, if they were asked for.
        finite: Whether boxes and scores of all queries are.
        whole: Whether the masks are finite.
    """

    boxes: Float32[np.ndarray, "kept 4"]
    scores: Float32[np.ndarray, " kept"]
    best: np.float32
    masks: Bool[np.ndarray, "_ height width"]
    finite: bool
    whole: bool


def _merged(found: Sequence[_Objects], size: tuple[int, int]) -> FoundObjects:
    """Put the objects of an image's phrases in one list, best score first."""
    if not all(each.finite for each in found):
        nothing = np.zeros((0, 4), np.float32)
        best = np.zeros(len(found), np.float32)
        boxes = FoundBoxes(nothing, nothing[:, 0], np.zeros(0, np.int64), best, finite=False)
        return FoundObjects(boxes, CutMasks(np.zeros((0, *size), np.bool_), nothing[:, 0]))
    scores = np.concatenate([np.zeros(0, np.float32), *(each.scores for each in found)])
    order = np.argsort(-scores, kind="stable")
    counts = [len(each.scores) for each in found]
    masks = np.concatenate([np.zeros((0, *size), np.bool_), *(each.masks for each in found)])
    boxes = FoundBoxes(
        xyxy=np.concatenate([np.zeros((0, 4), np.float32), *(each.boxes for each in found)])[order],
        scores=scores[order],
        phrases=np.repeat(np.arange(len(found)), counts)[order],
        best_scores=np.array([each.best for each in found], np.float32),
    )
    cuts = CutMasks(
        masks[order] if len(masks) else masks,
        boxes.scores[: len(masks)],
        finite=all(each.whole for each in found),
    )
    return FoundObjects(boxes, cuts)


class _Network:
    """The network with its processors.

    Args:
        config: Checkpoint and arithmetic.
    """

    def __init__(self, config: Sam3Config) -> None:
        import transformers

        self._dtype = config.dtype
        self._device = pick_device(config.device)
        weights = resolve_weights(config.model, config.revision)
        kind = getattr(transformers, network_name(weights))
        network = load_part(kind, weights, dtype=config.dtype)
        _decode_in_float32(network, torch_dtype(config.dtype))
        self._network = network.to(self._device)
        # transformers has a processor of its own for SAM 3 that takes torchvision; this one
        # resizes and normalises alike with Pillow, and reads the same file.
        side = network.config.vision_config.image_size
        self._images = ImagePreparation(
            weights, "ViTImageProcessor", self._device, size=(side, side)
        )
        self._tokenizer: Any = load_whole_tokenizer(weights, "CLIPTokenizer")
        text = network.config.text_config
        require_fit(self._tokenizer, text.vocab_size, weights)
        self._length = min(_MAX_TOKENS, text.max_position_embeddings)
        _log.info("labeller %s loaded from %s", config.model, weights.source)

    def read(self, phrase: str) -> _Tokens:
        """Turn a phrase into tokens.

        Raises:
            InputError: If it is empty, or longer than the network reads.
        """
        if not phrase.strip():
            message = f"phrase {phrase!r} has no words, expected what the labeller should look for"
            raise InputError(message)
        found = self._tokenizer(
            phrase, padding="max_length", max_length=self._length, return_tensors="pt"
        )
        tokens = _Tokens(found["input_ids"][0], found["attention_mask"][0])
        if len(tokens.ids) > self._length:
            message = (
                f"phrase {phrase!r} has {len(tokens.ids)} tokens, expected at most {self._length}"
            )
            raise InputError(message)
        return tokens

    @torch.inference_mode()
    def encode(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> Any:
        """Encode images, each once; all become squares of one size."""
        prepared = self._images.prepare(images)
        pixels = torch.cat([own.pixels for own in prepared])
        pixels = pixels.to(self._device, torch_dtype(self._dtype))
        with rounding_of(self._dtype, self._device):
            return self._network.get_vision_features(pixel_values=pixels)

    @torch.inference_mode()
    def ask(self, features: Any, rows: Sequence[int], phrases: Sequence[_Tokens]) -> list[_Answer]:
        """Ask for phrases in images that are encoded.

        Args:
            features: Of the images.
            rows: Which image each phrase is looked for in.
            phrases: As many.
        """
        chosen = torch.tensor(rows, device=self._device)
        with rounding_of(self._dtype, self._device):
            outputs = self._network(
                vision_embeds=type(features)(
                    fpn_hidden_states=_taken(features.fpn_hidden_states, chosen),
                    fpn_position_encoding=_taken(features.fpn_position_encoding, chosen),
                ),
                input_ids=torch.stack([each.ids for each in phrases]).to(self._device),
                attention_mask=torch.stack([each.mask for each in phrases]).to(self._device),
            )
        scores = outputs.pred_logits.sigmoid() * outputs.presence_logits.sigmoid()
        return [
            _Answer(*own)
            for own in zip(outputs.pred_boxes, scores, outputs.pred_masks, strict=True)
        ]


def _taken(levels: Sequence[Tensor], rows: Tensor) -> tuple[Tensor, ...]:
    return tuple(level[rows] for level in levels)


def _decode_in_float32(network: Any, kind: torch.dtype) -> None:
    """Let only the two encoders, nearly all of the weights, compute in half precision.

    Places and boxes would be known to within a pixel or four of 1,008 in what follows them.
    """
    if kind == torch.float32:
        return
    for name, part in network.named_children():
        if name not in _ENCODERS:
            part.float()
    neck = network.vision_encoder.neck.float()
    neck.register_forward_pre_hook(lambda _module, found: (found[0].float(),))
    network.text_projection.register_forward_hook(lambda _module, _words, found: found.float())
