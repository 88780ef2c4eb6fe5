"""The order in which the epochs of a run show the samples."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Epochs:
    """Samples by position of the run; every epoch shows each of them once, in an order of its own.

    A window is a number of shards, drawn anew for every epoch, whose samples are mixed. All shards
    in one window mix best. With small windows an epoch reads shard after shard, so that a machine
    never needs more than two windows of a remote dataset.

    Attributes:
        seed: Root of every random choice.
        sizes: Samples of each shard; samples are numbered through, shard after shard.
        mixed_shards: Shards in a window; nothing means all.
    """

    seed: int
    sizes: tuple[int, ...]
    mixed_shards: int | None

    def place(self, position: int) -> tuple[int, int]:
        """The epoch of a position, and the number of its sample."""
        epoch, place = divmod(position, sum(self.sizes))
        return epoch, int(self._order(epoch)[0][place])

    def needed(self, position: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Numbers of the shards of a position's window, and of the window after it."""
        epoch, place = divmod(position, sum(self.sizes))
        ends, windows = self._order(epoch)[1:]
        number = int(np.searchsorted(ends, place, side="right"))
        if number + 1 < len(windows):
            return windows[number], windows[number + 1]
        return windows[number], self._order(epoch + 1)[2][0]

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray, list[tuple[int, ...]]]:
        if self.mixed_shards is None:
            return _mixed(self.seed, epoch, self.sizes)
        return _windowed(self.seed, epoch, self.sizes, self.mixed_shards)


@lru_cache(maxsize=4)
def _mixed(
    seed: int, epoch: int, sizes: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, ...]]]:
    """An epoch with one window: order of the samples, ends of the windows, their shards."""
    count = sum(sizes)
    order = np.random.default_rng((seed, epoch)).permutation(count)
    return order, np.array([count]), [tuple(range(len(sizes)))]


@lru_cache(maxsize=4)
def _windowed(
    seed: int, epoch: int, sizes: tuple[int, ...], mixed_shards: int
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, ...]]]:
    """An epoch with windows of a few shards."""
    rng = np.random.default_rng((seed, epoch))
    shards = rng.permutation(len(sizes)).tolist()
    firsts = np.cumsum((0, *sizes))
    windows = [tuple(shards[i : i + mixed_shards]) for i in range(0, len(shards), mixed_shards)]
    parts = [
        rng.permutation(np.concatenate([np.arange(firsts[s], firsts[s + 1]) for s in window]))
        for window in windows
    ]
    return np.concatenate(parts), np.cumsum([len(part) for part in parts]), windows
