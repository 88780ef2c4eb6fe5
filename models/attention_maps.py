"""Attention maps: where a painter looked, while it painted, for the words of each class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from jaxtyping import Float32
from pydantic import BaseModel, Field

from storage.errors import DataError

__all__ = ["AttentionMaps", "MapsWanted", "TokenMaps", "pack_maps", "unpack_maps"]

_CELLS = "self"
_CLASSES = "classes"
_GRID = "grid"
_USUAL_TOKENS = 3
_HALF_BYTES = 2


class MapsWanted(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Which maps are recorded, or read by a labeller.

    Resolutions are rows of a grid of cells (columns, if the picture is higher than wide): a latent
    of 64 x 64 is seen at 64, 32, 16 and 8.
    """

    mentions: bool = True
    """Those of the class mentions in the text."""
    class_prompt: bool = True
    """Those of the class names alone, in the image and its counterfactual."""
    cross: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    """Resolutions of the attention to words."""
    cells: int | None = Field(None, ge=1)
    """Resolution of the attention of cells to cells; null for none. A sample takes two bytes for
    each two cells: 2 MB at 32."""

    def identity(self) -> dict[str, Any]:
        """Say what is recorded, as it is part of the keys of what is painted."""
        return self.model_dump(mode="json") | {"cross": sorted(set(self.cross))}

    @property
    def usual_bytes(self) -> int:
        """About what the maps of a sample take: of square pictures, with three tokens in all."""
        parts = self.mentions + 2 * self.class_prompt
        words = _USUAL_TOKENS * parts * sum(side**2 for side in set(self.cross))
        return _HALF_BYTES * (words + (self.cells or 0) ** 4)

    def holds(self, other: "MapsWanted") -> bool:
        """Whether all that another wants is among it."""
        return (
            self.mentions >= other.mentions
            and self.class_prompt >= other.class_prompt
            and {*self.cross} >= {*other.cross}
            and other.cells in {None, self.cells}
        )


@dataclass(frozen=True, eq=False)
class TokenMaps:
    """Maps of the tokens that name classes.

    Attributes:
        classes: For each token the position of its class among those of the sample; a class whose
            tokens the painter did not read has none.
        maps: By resolution: the probability with which each cell attends to the token, mean over
            heads, layers of the resolution, and calls of the network.
    """

    classes: tuple[int, ...]
    maps: Mapping[int, Float32[np.ndarray, "tokens rows columns"]]

    def of_class(self, position: int) -> dict[int, Float32[np.ndarray, "tokens rows columns"]]:
        """The maps of one class's tokens, by resolution."""
        own = [index for index, each in enumerate(self.classes) if each == position]
        return {resolution: each[own] for resolution, each in self.maps.items()}


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """What a labeller can know of a pair from its painting.

    Attributes:
        mentions: Of the mentions in the text; None if they were not wanted.
        prompt: Of the class names alone, in the image; None if they were not wanted.
        twin_prompt: Of the class names alone, in the counterfactual; likewise.
        cells: How each cell of the image attends to each other, rows sum to 1; None if that was
            not wanted.
        grid: Rows and columns of those cells; (0, 0) if there are none.
    """

    mentions: TokenMaps | None
    prompt: TokenMaps | None
    twin_prompt: TokenMaps | None
    cells: Float32[np.ndarray, "cells cells"] | None
    grid: tuple[int, int] = (0, 0)

    @property
    def finite(self) -> bool:
        """Whether all numbers are."""
        parts = (self.mentions, self.prompt, self.twin_prompt)
        maps = [each for part in parts if part is not None for each in part.maps.values()]
        cells = [] if self.cells is None else [self.cells]
        return all(bool(np.isfinite(each).all()) for each in [*maps, *cells])


_PARTS = ("mentions", "prompt", "twin_prompt")


def pack_maps(maps: AttentionMaps) -> bytes:
    """Write maps as safetensors of half precision; equal maps give equal bytes."""
    from safetensors.numpy import save

    arrays: dict[str, np.ndarray] = {}
    for name in _PARTS:
        part: TokenMaps | None = getattr(maps, name)
        if part is None:
            continue
        arrays[f"{name}.{_CLASSES}"] = np.array(part.classes, np.uint8)
        for resolution, each in part.maps.items():
            arrays[f"{name}.{resolution}"] = np.ascontiguousarray(each, np.float16)
    if maps.cells is not None:
        arrays[_CELLS] = np.ascontiguousarray(maps.cells, np.float16)
        arrays[_GRID] = np.array(maps.grid, np.int32)
    return save(arrays)


def unpack_maps(data: bytes, *, name: str = "attention maps") -> AttentionMaps:
    """Read maps that `pack_maps` wrote.

    Args:
        data: Their bytes.
        name: What messages call them.

    Raises:
        DataError: They are no such maps.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(data)
        mentions, prompt, twin = (_part(arrays, part) for part in _PARTS)
        cells, grid = arrays.get(_CELLS), (0, 0)
        if cells is not None:
            grid = _grid(arrays[_GRID], cells)
            cells = _rows_of_one(cells.astype(np.float32))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        message = f"{name} cannot be read ({error}), expected maps of attention; verify the dataset"
        raise DataError(message) from error
    return AttentionMaps(mentions, prompt, twin, cells, grid)


def _part(arrays: Mapping[str, np.ndarray], name: str) -> TokenMaps | None:
    prefix = f"{name}."
    own = {key[len(prefix) :]: each for key, each in arrays.items() if key.startswith(prefix)}
    if not own:
        return None
    classes = own.pop(_CLASSES)
    for key, each in own.items():
        if each.ndim != 3 or len(each) != len(classes):
            message = f"{name}.{key} has the shape {each.shape} for {len(classes)} tokens"
            raise ValueError(message)
    maps = {int(key): each.astype(np.float32) for key, each in own.items()}
    return TokenMaps(tuple(classes.tolist()), maps)


def _grid(found: np.ndarray, cells: np.ndarray) -> tuple[int, int]:
    rows, columns = found.tolist()
    if cells.shape != (rows * columns, rows * columns):
        message = f"attention of the shape {cells.shape} on {rows} x {columns} cells"
        raise ValueError(message)
    return rows, columns


def _rows_of_one(cells: Float32[np.ndarray, "cells cells"]) -> Float32[np.ndarray, "cells cells"]:
    """Make up for what half precision rounds away."""
    sums = cells.sum(axis=1, keepdims=True)
    return cells / np.where(sums > 0, sums, 1)


def tokens_of_spans(
    offsets: Sequence[tuple[int, int]], spans: Sequence[Sequence[tuple[int, int]]]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which tokens name which classes.

    Args:
        offsets: First character of each token and one past its last; equal for special tokens.
        spans: For each class, its mentions in the same characters.

    Returns:
        Positions of the tokens, and for each the position of its class; a token that lies in
        mentions of two classes stands for both.
    """
    found = [
        (token, index)
        for index, own in enumerate(spans)
        for token, (start, end) in enumerate(offsets)
        if start < end and any(start < stop and first < end for first, stop in own)
    ]
    return tuple(token for token, _ in found), tuple(index for _, index in found)
