"""Pictures as networks take them: resized, cropped, normalised and padded on the network's device.

What is done is read from the checkpoint's `preprocessor_config.json`, through the library's own
class. Pixels are those of that class, to the bit: sizes follow its rules, bytes are resized as
Pillow does it, and since a normalised number depends on one byte alone, it is looked up in a table
that was computed as the class computes. On a CPU Pillow itself resizes; a GPU is given the bytes
and does the rest, so that it does not wait for the processor.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor

from models.processors import load_image_processor
from models.resampling import KNOWN_FILTERS, resized_as_pillow
from models.threads import in_threads
from models.weights import Weights
from storage.errors import InputError

_Size = tuple[int, int]
_CHANNELS = 3
_FILE = "preprocessor_config.json"


@dataclass(frozen=True)
class Prepared:
    """A picture as a network takes it.

    Attributes:
        pixels: Normalised, with an axis for the pictures of a batch, on the network's device; one
            picture, unless several of one size were given together.
        inside: Height and width of the picture in them; the rest, below and to the right, is
            padding.
    """

    pixels: Float32[Tensor, "pictures 3 height width"]
    inside: _Size


@dataclass(frozen=True)
class Steps:
    """What is done to each picture.

    Attributes:
        sized: From the height and width of a picture to those that it is brought to.
        resample: How.
        crop: Height and width of what is cut out of the middle; None for all.
        table: For each channel what each byte becomes.
        padded: Height and width that zeros are added up to; None for none.
    """

    sized: Callable[[_Size], _Size]
    resample: Image.Resampling
    crop: _Size | None
    table: Float32[np.ndarray, "3 256"]
    padded: _Size | None

    def with_pillow(self, picture: UInt8[np.ndarray, "_ _ 3"]) -> Prepared:
        """Prepare a picture on the CPU."""
        high, wide = self._goal(_size(picture))
        made = np.asarray(Image.fromarray(picture).resize((wide, high), self.resample))
        made = made[_middle(_size(made), self.crop)]
        inside = _size(made)
        pixels = np.zeros((1, _CHANNELS, *self._square(inside)), np.float32)
        for channel, row in enumerate(self.table):
            own = pixels[0, channel, : inside[0], : inside[1]]
            np.take(row, made[..., channel], out=own, mode="clip")  # no byte is beyond the row
        return Prepared(torch.from_numpy(pixels), inside)

    def on_device(
        self, picture: UInt8[np.ndarray, "_ _ 3"], table: Float32[Tensor, "3 256"]
    ) -> Prepared:
        """Prepare a picture in torch.

        Args:
            picture: Goes to the device of the table as it is.
            table: The same as the steps have.
        """
        # A copy: the array may be read-only, of which torch would warn.
        given = torch.tensor(np.ascontiguousarray(picture), device=table.device)
        return self.of_tensor(given[None], table)

    def of_tensor(
        self, pictures: UInt8[Tensor, "pictures _ _ 3"], table: Float32[Tensor, "3 256"]
    ) -> Prepared:
        """Prepare pictures of one size in torch.

        Args:
            pictures: On the device of the table, which is the same as the steps have.
            table: What each byte becomes.
        """
        made = resized_as_pillow(pictures, self._goal(_size(pictures[0])), self.resample)
        made = made[:, *_middle(_size(made[0]), self.crop)]
        inside = _size(made[0])
        rows = torch.arange(_CHANNELS, device=table.device)[:, None, None]
        pixels = table[rows, made.permute(0, 3, 1, 2).int()]
        high, wide = self._square(inside)
        padding = (0, wide - inside[1], 0, high - inside[0])
        return Prepared(F.pad(pixels, padding), inside)

    def _goal(self, size: _Size) -> _Size:
        goal = self.sized(size) if min(size) else (0, 0)
        if min(goal) < 1:
            message = (
                f"a picture of {size[1]} x {size[0]} pixels would become one of "
                f"{goal[1]} x {goal[0]}, expected at least one pixel each way"
            )
            raise InputError(message)
        return goal

    def _square(self, inside: _Size) -> _Size:
        padded = self.padded or inside
        if inside[0] > padded[0] or inside[1] > padded[1]:
            message = (
                f"a picture is to be padded from {inside[1]} x {inside[0]} to {padded[1]} x "
                f"{padded[0]} pixels, expected a `pad_size` of {_FILE} that has room for it"
            )
            raise InputError(message)
        return padded


class ImagePreparation:
    """Prepares pictures for a network.

    Args:
        weights: The checkpoint, with the file of its image processor.
        name: The processor's class, as in `load_image_processor`.
        device: Where the network computes.
        part: Its folder in a pipeline; empty beside a network.
        size: Height and width that pictures are brought to, instead of what the file says.

    Raises:
        InputError: If the file is missing or damaged, or asks for what is not done here.
    """

    def __init__(
        self,
        weights: Weights,
        name: str,
        device: torch.device,
        *,
        part: str = "",
        size: _Size | None = None,
    ) -> None:
        processor = load_image_processor(weights, name, part=part)
        where = f"{_FILE} of {part + ' of ' if part else ''}{weights.source!r}"
        self._steps = read_steps(processor, where, size)
        self._table = torch.from_numpy(self._steps.table).to(device)

    def prepare(self, pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Prepared]:
        """Prepare pictures, each by itself.

        Args:
            pictures: RGB; sizes may differ.

        Raises:
            InputError: If a picture would have no pixels, or more than it can be padded to.
        """
        if self._table.device.type == "cpu":
            return in_threads(self._steps.with_pillow, pictures)
        return [self._steps.on_device(picture, self._table) for picture in pictures]

    def prepare_painted(
        self, pictures: UInt8[Tensor, "pictures _ _ 3"]
    ) -> Float32[Tensor, "pictures 3 height width"]:
        """Prepare pictures of one size that are on the network's device already.

        Args:
            pictures: RGB.

        Raises:
            InputError: As `prepare`.
        """
        if self._table.device.type == "cpu":
            return torch.cat([own.pixels for own in self.prepare(list(pictures.numpy()))])
        return self._steps.of_tensor(pictures, self._table).pixels


def read_steps(processor: Any, where: str, size: _Size | None = None) -> Steps:
    """Say what an image processor of transformers does.

    Args:
        processor: It, loaded.
        where: What messages call its file.
        size: Height and width that pictures are brought to, instead of what it says.

    Raises:
        InputError: If it does what is not done here.
    """
    sizing = _AS_IT_IS
    if processor.do_resize:
        sizing = _exactly(size) if size is not None else _sizing(processor.size, where)
    crop = _both(processor, "crop_size", where) if _does(processor, "do_center_crop") else None
    if crop is not None and (crop[0] > sizing.smallest[0] or crop[1] > sizing.smallest[1]):
        message = (
            f"{where} cuts {crop[1]} x {crop[0]} pixels out of pictures that may have fewer, "
            f"expected `do_center_crop: false` or a `size` that leaves as many"
        )
        raise InputError(message)
    pads = _does(processor, "do_pad") and getattr(processor, "pad_size", None) is not None
    return Steps(
        sized=sizing.rule,
        resample=_filter(processor.resample if processor.do_resize else None, where),
        crop=crop,
        table=_table(processor, where),
        padded=_both(processor, "pad_size", where) if pads else None,
    )


@dataclass(frozen=True)
class _Sizing:
    """A rule of sizes, with the height and width that whatever comes out has at least."""

    rule: Callable[[_Size], _Size]
    smallest: _Size = (1, 1)


_AS_IT_IS = _Sizing(lambda picture: picture)


def _sizing(size: Any, where: str) -> _Sizing:
    names = ("height", "width", "shortest_edge", "longest_edge")
    height, width, short, long = (_edge(size, name, where) for name in names)
    if short and long:
        return _Sizing(partial(_by_both_edges, short, long))
    if short:
        return _Sizing(partial(_by_short_edge, short), (short, short))
    if long:
        return _Sizing(partial(_by_long_edge, long))
    if height and width:
        return _exactly((height, width))
    message = (
        f"{where} has {size!r} as its size, expected `height` and `width`, `shortest_edge`, "
        "`longest_edge`, or both edges"
    )
    raise InputError(message)


def _exactly(size: _Size) -> _Sizing:
    return _Sizing(lambda _picture: size, size)


def _by_both_edges(short: int, long: int, picture: _Size) -> _Size:
    """The shorter edge gets its length, or less if the longer one would be too long."""
    low, top = min(picture), max(picture)
    exact: float = short
    if top / low * short > long:
        exact = long * low / top
        short = round(exact)
    if low == short:
        return picture
    return _with_edges(short, int(exact * top / low), picture)


def _by_short_edge(short: int, picture: _Size) -> _Size:
    return _with_edges(short, int(short * max(picture) / min(picture)), picture)


def _by_long_edge(long: int, picture: _Size) -> _Size:
    scale = long / max(picture)
    return int(picture[0] * scale + 0.5), int(picture[1] * scale + 0.5)


def _with_edges(short: int, long: int, picture: _Size) -> _Size:
    height, width = picture
    return (long, short) if width < height else (short, long)


def _edge(size: Any, name: str, where: str) -> int | None:
    """A length in a size, which transformers 4 has as a dictionary and 5 as an object."""
    found = size.get(name) if isinstance(size, Mapping) else getattr(size, name, None)
    if found is None or (isinstance(found, int) and found > 0):
        return found
    message = f"{where} has {found!r} as `{name}`, expected a number of pixels"
    raise InputError(message)


def _both(processor: Any, name: str, where: str) -> _Size:
    size = getattr(processor, name)
    height, width = (_edge(size, edge, where) for edge in ("height", "width"))
    if height and width:
        return height, width
    message = f"{where} has {size!r} as `{name}`, expected `height` and `width`"
    raise InputError(message)


def _does(processor: Any, name: str) -> bool:
    return bool(getattr(processor, name, None))


def _filter(found: Any, where: str) -> Image.Resampling:
    """The filter, which without a word is bilinear in the library too."""
    known = {int(each): each for each in KNOWN_FILTERS}
    chosen = known.get(Image.Resampling.BILINEAR if found is None else found)
    if chosen is None:
        names = (f"{number} ({known[number].name.lower()})" for number in sorted(known))
        message = f"{where} has {found!r} as `resample`, expected {' or '.join(names)}"
        raise InputError(message)
    return chosen


def _table(processor: Any, where: str) -> Float32[np.ndarray, "3 256"]:
    """What becomes of each byte, rounded where the library rounds."""
    values = np.tile(np.arange(256, dtype=np.float64), (_CHANNELS, 1))
    if processor.do_rescale:
        values *= processor.rescale_factor
    values = values.astype(np.float32)
    if processor.do_normalize:
        mean, deviation = (_numbers(processor, name, where) for name in ("image_mean", "image_std"))
        values = (values - mean) / deviation
    if not np.isfinite(values).all():
        message = f"{where} makes numbers that are none, expected `image_std` above 0"
        raise InputError(message)
    return values


def _numbers(processor: Any, name: str, where: str) -> Float32[np.ndarray, "_ 1"]:
    """A number for each channel, or one for all."""
    found = getattr(processor, name)
    try:
        return np.broadcast_to(np.array(found, np.float32), _CHANNELS)[:, None]
    except (TypeError, ValueError) as error:
        message = f"{where} has {found!r} as `{name}`, expected {_CHANNELS} numbers"
        raise InputError(message) from error


def _size(picture: np.ndarray | Tensor) -> _Size:
    return picture.shape[0], picture.shape[1]


def _middle(size: _Size, crop: _Size | None) -> tuple[slice, slice]:
    """The rows and columns that are cut out."""
    top, left = ((whole - part) // 2 for whole, part in zip(size, crop or size, strict=True))
    high, wide = crop or size
    return slice(top, top + high), slice(left, left + wide)
