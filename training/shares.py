"""Shares: from which source each position of a run draws its sample.

A run with several sources goes through blocks of 1,000 positions. Each block has the same number of
samples of each source, in an order of its own, so that a position says its source, and the place in
that source, without looking at the positions before it.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

BLOCK = 1_000
"""Positions of a block; shares are exact to one of them."""

_STREAM = 1_000_003
"""Tells the random numbers of this module from those of others with the same seed."""


def source_shares(weights: Sequence[float]) -> tuple[int, ...]:
    """Samples of each source in a block, by the largest remainders.

    Args:
        weights: Weight of each source, above 0.

    Raises:
        ValueError: A source would be drawn less than once in a block.
    """
    if not weights:
        return ()
    total = sum(weights)
    exact = [BLOCK * (weight / total) for weight in weights]
    shares = [int(each) for each in exact]
    order = sorted(range(len(exact)), key=lambda k: (shares[k] - exact[k], k))
    for k in order[: BLOCK - sum(shares)]:
        shares[k] += 1
    if 0 in shares:
        k = shares.index(0)
        message = (
            f"weight {weights[k]:g} of source {k + 1} is less than a {BLOCK}th of the sum "
            f"{total:g}, so that it would never be drawn: raise it, or leave the source out"
        )
        raise ValueError(message)
    return tuple(shares)


def turn_of(seed: int, shares: tuple[int, ...], position: int) -> tuple[int, tuple[int, ...]]:
    """The source of a position, and how often each source was drawn before it.

    Args:
        seed: Seed of every random choice.
        shares: Samples of each source in a block.
        position: Position in the run.

    Returns:
        Number of the source, and for each source the draws at earlier positions: for the one that
        is drawn, the position among its own.
    """
    block, place = divmod(position, BLOCK)
    sources, before = _draw_block(seed, shares, block)
    earlier = (block * share + int(own) for share, own in zip(shares, before[place], strict=True))
    return int(sources[place]), tuple(earlier)


@lru_cache(maxsize=8)
def _draw_block(seed: int, shares: tuple[int, ...], block: int) -> tuple[np.ndarray, np.ndarray]:
    """The source of each place of a block, and the draws of each source before that place."""
    rng = np.random.default_rng((seed, _STREAM, block))
    sources = rng.permutation(np.repeat(np.arange(len(shares)), shares))  # (BLOCK,)
    drawn = sources[:, None] == np.arange(len(shares))  # (BLOCK, sources)
    return sources, np.cumsum(drawn, axis=0) - drawn
