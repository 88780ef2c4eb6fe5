"""Splicing: several samples side by side in one image, as DiffuMask (ICCV 2023) enlarges its data.

Tiles are shrunk before they are joined, as far as no view could show the difference: 8 by 8 tiles
of 512 pixels would be an image of 4,096, of which a view of 512 at double scale is made from 1,024.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from storage.records import BACKGROUND_LABEL, IGNORE_LABEL
from training.augmentation import Crop, LabelledPair
from training.config import AugmentationConfig

_SPREAD = 4
"""Neighbours of a position among which its tiles are drawn, a tile."""


@dataclass(frozen=True)
class SampleTile:
    """A sample that may become a part of an image.

    Attributes:
        pair: Images and labels as stored.
        class_ids: Vocabulary indices of its classes.
        excluded: Names that must not be its negatives, see `training.negatives`.
    """

    pair: LabelledPair
    class_ids: tuple[int, ...]
    excluded: tuple[int, ...]


def draw_grid(config: AugmentationConfig, rng: np.random.Generator) -> tuple[int, int]:
    """Draw whether an image is spliced, and of how many rows and columns; (1, 1) if it is not."""
    if rng.random() >= config.splice:
        return 1, 1
    grids = sorted(config.splice_grids)
    weights = np.array([config.splice_grids[grid] for grid in grids], float)
    rows, _, columns = grids[int(rng.choice(len(grids), p=weights / weights.sum()))].partition("x")
    return int(rows), int(columns)


def draw_tiles(
    tile: Callable[[int], SampleTile],
    grid: tuple[int, int],
    most_classes: int,
    rng: np.random.Generator,
) -> list[SampleTile]:
    """Draw the tiles of an image.

    A tile whose classes would be too many in all gives its place to one that is there already.

    Args:
        tile: Gives the sample that is so many places after the image's own in the run; 0 is that.
            Near ones are asked for, because a training on shards in windows has those at hand.
        grid: Rows and columns.
        most_classes: Names that an image is trained against.
        rng: Of this position.

    Returns:
        As many as the grid has places, row by row; the image's own somewhere among them.
    """
    count = grid[0] * grid[1]
    places = 1 + rng.choice(_SPREAD * count, count - 1, replace=False)
    tiles = [tile(0)]
    classes = set(tiles[0].class_ids)
    for place in places.tolist():
        drawn = tile(place)
        if len(classes | set(drawn.class_ids)) > most_classes:
            drawn = tiles[int(rng.integers(len(tiles)))]
        classes.update(drawn.class_ids)
        tiles.append(drawn)
    return [tiles[k] for k in rng.permutation(count).tolist()]


def splice(
    tiles: Sequence[SampleTile],
    grid: tuple[int, int],
    short_side: int,
    *,
    padding: tuple[int, int, int],
) -> SampleTile:
    """Join tiles to one sample.

    All have the size of the first; one of another shape is fitted into that, with padding around
    it. Where a class of another tile is none that was looked for, background is ignored. There is a
    counterfactual if every tile has one: an object that stays would be in both images.

    Args:
        tiles: Row by row.
        grid: Rows and columns.
        short_side: Pixels of the short side that the whole needs at most.
        padding: Colour around a tile of another shape; its labels are ignored.
    """
    rows, columns = grid
    height, width = tiles[0].pair.labels.shape
    shrink = min(1.0, short_side / min(rows * height, columns * width))
    size = max(1, round(height * shrink)), max(1, round(width * shrink))
    classes = tuple(dict.fromkeys(k for tile in tiles for k in tile.class_ids))
    fitted = [_fitted(tile, size, classes, padding) for tile in tiles]
    twins = [pair.counterfactual for pair in fitted if pair.counterfactual is not None]
    pair = LabelledPair(
        image=_joined([each.image for each in fitted], grid),
        counterfactual=_joined(twins, grid) if len(twins) == len(fitted) else None,
        labels=_joined([each.labels for each in fitted], grid),
    )
    excluded = {k for tile in tiles for k in tile.excluded}
    return SampleTile(pair, classes, tuple(sorted(excluded.difference(classes))))


def _joined(parts: Sequence[np.ndarray], grid: tuple[int, int]) -> np.ndarray:
    rows, columns = grid
    lines = [np.concatenate(parts[r * columns : (r + 1) * columns], axis=1) for r in range(rows)]
    return np.concatenate(lines, axis=0)


def _fitted(
    tile: SampleTile, size: tuple[int, int], classes: Sequence[int], padding: tuple[int, int, int]
) -> LabelledPair:
    pair = tile.pair
    labels = pair.labels
    if set(tile.excluded) & set(classes).difference(tile.class_ids):
        labels = np.where(labels == BACKGROUND_LABEL, np.uint16(IGNORE_LABEL), labels)
    if labels.shape == size:
        return LabelledPair(pair.image, pair.counterfactual, labels)
    scale = min(size[0] / labels.shape[0], size[1] / labels.shape[1])
    height, width = (max(1, round(side * scale)) for side in labels.shape)
    crop = Crop(0, 0, height, width, height / labels.shape[0], width / labels.shape[1])
    canvas = np.full(size, IGNORE_LABEL, np.uint16)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    canvas[top : top + height, left : left + width] = crop.cut_labels(labels)

    def shown(pixels: UInt8[np.ndarray, "_ _ 3"]) -> UInt8[np.ndarray, "_ _ 3"]:
        found = np.empty((*size, 3), np.uint8)
        found[:] = padding
        found[top : top + height, left : left + width] = crop.cut(pixels)
        return found

    twin = pair.counterfactual
    return LabelledPair(shown(pair.image), None if twin is None else shown(twin), canvas)
