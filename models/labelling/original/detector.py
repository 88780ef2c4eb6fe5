"""Grounding DINO of its authors' package, behind the same span scores as that of transformers."""

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor, nn

from models.arithmetic import rounding_of
from models.devices import pick_device
from models.folders import NETWORK_CONFIG, read_json, require_possible
from models.labelling.captions import Caption
from models.labelling.original.checkpoints import load_checkpoint
from models.labelling.original.config import OriginalDetectorConfig
from models.labelling.original.files import (
    find_checkpoint,
    find_text_encoder,
    original_folder,
    read_settings,
)
from models.labelling.original.packages import (
    detector_package,
    original_module,
    require_detector_packages,
)
from models.labelling.span_detector import SpanDetector, TokenScores
from models.processors import load_whole_tokenizer, require_fit
from models.threads import in_threads
from models.weights import Weights, loading
from storage.errors import InputError

_log = logging.getLogger(__name__)

_RELEASED = {"swint": "GroundingDINO_SwinT_OGC.py", "swinb": "GroundingDINO_SwinB_cfg.py"}
_MEAN, _DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_TOWER = "swin_"  # another one would be downloaded by the package
_MISSING = object()
_MAX_TOKENS = 256  # the package has it in its code, whatever the settings say
# For training: memory against time. A network that only looks is the same without.
_FOR_TRAINING = {"use_checkpoint": False, "use_transformer_ckpt": False}


class OriginalGroundingDino(SpanDetector):
    """Grounding DINO of `groundingdino-py`.

    Args:
        config: Checkpoint and thresholds.

    Raises:
        InputError: If a package is missing or does not fit, or the checkpoint is missing, damaged,
            incomplete, or of another architecture.
    """

    def __init__(self, config: OriginalDetectorConfig) -> None:
        require_detector_packages()
        super().__init__(config, _Network(config))


class _Network:
    """The network with its tokenizer.

    Args:
        config: Checkpoint and arithmetic.
    """

    def __init__(self, config: OriginalDetectorConfig) -> None:
        self._config = config
        self._device = pick_device(config.device)
        folder = original_folder(config.model)
        checkpoint = find_checkpoint(folder)
        self._settings = _read_settings(config, checkpoint)
        text = find_text_encoder(folder)
        weights = Weights(str(folder), None)
        self.tokenizer: Any = load_whole_tokenizer(weights, "BertTokenizer", part=text.name)
        encoder = _read_encoder(text, checkpoint)
        require_fit(self.tokenizer, encoder.get("vocab_size", 0), weights)
        with loading(weights, reading=f"{text.name}/{NETWORK_CONFIG}"), _quiet():
            network = _build(self._settings, encoder, self.tokenizer)
        # Old code that works; the package's authors are told at every call.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"groundingdino\.")
        load_checkpoint(network, checkpoint)
        self._network = network.eval().to(self._device)
        _log.info("detector %s loaded from %s", config.model, checkpoint)

    @property
    def max_tokens(self) -> int:
        """Longest caption that the network reads."""
        return min(self._settings["max_text_len"], _MAX_TOKENS)

    @torch.inference_mode()
    def encode(self, images: Sequence[UInt8[np.ndarray, "height width 3"]]) -> list[Tensor]:
        """Prepare images of one size; the package itself looks at one anew for each caption."""
        prepared = in_threads(lambda image: self._pixels(Image.fromarray(image)), images)
        self._require_places(prepared[0])
        return [pixels.to(self._device) for pixels in prepared]

    @torch.inference_mode()
    def score(self, encoded: Sequence[Tensor], captions: Sequence[Caption]) -> list[TokenScores]:
        """Score each caption on its image.

        The package mixes up the masks of captions that stand in one batch, so each has a pass of
        its own.
        """
        return [
            self._score(pixels, caption) for pixels, caption in zip(encoded, captions, strict=True)
        ]

    def _score(self, pixels: Tensor, caption: Caption) -> TokenScores:
        with rounding_of(self._config.dtype, self._device):
            outputs = self._network(pixels[None], captions=[caption.text])
        return TokenScores(
            outputs["pred_logits"][0].sigmoid().cpu().numpy(),
            outputs["pred_boxes"][0].cpu().numpy(),
        )

    def _pixels(self, picture: Image.Image) -> Tensor:
        """Prepare a picture as the package does for a released checkpoint."""
        transforms = original_module("groundingdino.datasets.transforms")
        # Its `RandomResize` is this, after a draw of one size from one.
        resized, _ = transforms.resize(
            picture, None, self._config.short_side, self._config.long_side
        )
        tensor, _ = transforms.ToTensor()(resized, None)
        return transforms.Normalize(_MEAN, _DEVIATION)(tensor)[0]

    def _require_places(self, pixels: Tensor) -> None:
        """Each query starts at a place of the picture of its own: check that there are enough."""
        height, width = pixels.shape[1:]
        first = min(self._settings["return_interm_indices"]) + 2
        levels = range(first, first + self._settings["num_feature_levels"])
        places = sum(math.ceil(height / 2**n) * math.ceil(width / 2**n) for n in levels)
        if places < self._settings["num_queries"]:
            message = (
                f"a picture of {width} x {height} pixels has {places} places for "
                f"{self._settings['num_queries']} queries, expected as many; raise `short_side`"
            )
            raise InputError(message)


def _read_settings(config: OriginalDetectorConfig, checkpoint: Path) -> dict[str, Any]:
    """What the network is built by: all that a released one has, of the same types."""
    released = detector_package() / "config"
    path = config.settings or released / _RELEASED[config.architecture]
    settings = read_settings(path)
    expected = read_settings(released / _RELEASED["swint"])
    for name in sorted(expected.keys() - _FOR_TRAINING.keys()):
        if not _is_like(settings.get(name, _MISSING), expected[name]):
            message = (
                f"settings {str(path)!r} say {name} is {settings.get(name, 'missing')!r}, expected "
                f"something like {expected[name]!r}, as in {released / _RELEASED['swint']}"
            )
            raise InputError(message)
    require_possible(path, settings, checkpoint.stat().st_size)
    return {**settings, **_FOR_TRAINING}


def _is_like(value: Any, example: Any) -> bool:
    """Whether a setting may stand where the example does; image towers must be of its kind."""
    if isinstance(example, str) and example.startswith(_TOWER):
        return isinstance(value, str) and value.startswith(_TOWER)
    if isinstance(example, float):
        return isinstance(value, int | float)
    return example is None or type(value) is type(example)


def _read_encoder(text: Path, checkpoint: Path) -> dict[str, Any]:
    path = text / NETWORK_CONFIG
    settings = read_json(path)
    require_possible(path, settings, checkpoint.stat().st_size)
    return settings


def _build(settings: Mapping[str, Any], encoder: dict[str, Any], tokenizer: Any) -> nn.Module:
    """The network with random weights; the checkpoint has those of its text encoder too."""
    from transformers import BertConfig, BertModel

    class Bert(BertModel):
        """BERT whose masks do not warn of what the package passes and transformers drops."""

        def get_extended_attention_mask(
            self, attention_mask: Tensor, input_shape: Any, _device: Any = None
        ) -> Tensor:
            mask: Any = super()
            return mask.get_extended_attention_mask(attention_mask, input_shape)

    models = original_module("groundingdino.models")
    transformer = original_module("groundingdino.models.GroundingDINO.transformer")
    parts = original_module("groundingdino.util.get_tokenlizer")
    width = transformer.gen_sineembed_for_position(torch.zeros(1, 1, 4)).shape[-1] // 2
    if settings["hidden_dim"] != width:
        message = f"hidden_dim is {settings['hidden_dim']}, expected {width}: the package fixes it"
        raise InputError(message)
    torch.meshgrid(torch.zeros(1), torch.zeros(1))  # torch says once a process that it will change
    made = {
        "get_tokenlizer": lambda _: tokenizer,
        "get_pretrained_language_model": lambda _: Bert(BertConfig.from_dict(encoder)),
    }
    with _replaced(parts, made):
        return models.build_model(SimpleNamespace(**settings))


@contextmanager
def _replaced(module: Any, functions: Mapping[str, Any]) -> Iterator[None]:
    """Let the package take its text encoder from us: it would print, and read weights twice."""
    before = {name: getattr(module, name) for name in functions}
    vars(module).update(functions)
    try:
        yield
    finally:
        vars(module).update(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep from users what old code warns its authors of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
