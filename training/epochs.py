"""The order in which the epochs of a run show the samples."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from storage.identity import derive_seed
from training.shares import turn_of


@dataclass(frozen=True)
class Epochs:
    """Samples by position of the run; every epoch shows each of them once, in an order of its own.

    A window is a number of shards, drawn afresh for every epoch, whose samples are mixed. All
    shards in one window mix best. With small windows an epoch reads shard after shard, so that a
    machine never needs more than two windows of a remote dataset.

    Attributes:
        seed: Seed of every random choice.
        sizes: Samples of each shard; samples are numbered through, shard after shard.
        mixed_shards: Shards in a window; None means all.
    """

    seed: int
    sizes: tuple[int, ...]
    mixed_shards: int | None

    def place(self, position: int) -> tuple[int, int]:
        """The epoch of a position, and the number of its sample."""
        epoch, place = divmod(position, sum(self.sizes))
        return epoch, int(self._order(epoch).samples[place])

    def needed(self, position: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Numbers of the shards of a position's window, and of the window after it."""
        epoch, place = divmod(position, sum(self.sizes))
        order = self._order(epoch)
        number = int(np.searchsorted(order.ends, place, side="right"))
        if number + 1 < len(order.windows):
            return order.windows[number], order.windows[number + 1]
        return order.windows[number], self._order(epoch + 1).windows[0]

    def _order(self, epoch: int) -> "_Order":
        return _draw_order(self.seed, epoch, self.sizes, self.mixed_shards)


@dataclass(frozen=True)
class MixedEpochs:
    """Samples by position of a run that draws from several sources; each has epochs of its own.

    Samples and shards are numbered through, source after source.

    Attributes:
        seed: Seed of every random choice.
        sources: Samples of each shard of each source.
        shares: How often each source is drawn, see `training.shares`.
        mixed_shards: Shards of a source in a window; None means all.
    """

    seed: int
    sources: tuple[tuple[int, ...], ...]
    shares: tuple[int, ...]
    mixed_shards: int | None

    def place(self, position: int) -> tuple[int, int]:
        """The epoch of a position in its source, and the number of its sample."""
        source, drawn = turn_of(self.seed, self.shares, position)
        epoch, number = self._epochs(source).place(drawn[source])
        return epoch, number + sum(map(sum, self.sources[:source]))

    def needed(self, position: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Numbers of the shards of the windows that the sources are in, and of those after them."""
        present: list[int] = []
        later: list[int] = []
        _, drawn = turn_of(self.seed, self.shares, position)
        for source, own in enumerate(drawn):
            first = sum(map(len, self.sources[:source]))
            now, then = self._epochs(source).needed(own)
            present += [first + number for number in now]
            later += [first + number for number in then]
        return tuple(present), tuple(later)

    def _epochs(self, source: int) -> Epochs:
        seed = derive_seed("source", self.seed, source)
        return Epochs(seed, self.sources[source], self.mixed_shards)


class _Order(NamedTuple):
    """An epoch: its samples in order, the places where its windows end, and their shards."""

    samples: np.ndarray
    ends: np.ndarray
    windows: list[tuple[int, ...]]


@lru_cache(maxsize=16)
def _draw_order(seed: int, epoch: int, sizes: tuple[int, ...], mixed_shards: int | None) -> _Order:
    rng = np.random.default_rng((seed, epoch))
    windows = [tuple(range(len(sizes)))]
    if mixed_shards is not None:
        shards = rng.permutation(len(sizes)).tolist()
        windows = [tuple(shards[i : i + mixed_shards]) for i in range(0, len(shards), mixed_shards)]
    firsts = [0, *accumulate(sizes)]
    parts = [
        rng.permutation(np.concatenate([np.arange(firsts[s], firsts[s + 1]) for s in window]))
        for window in windows
    ]
    return _Order(np.concatenate(parts), np.cumsum([len(part) for part in parts]), windows)
