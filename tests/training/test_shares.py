import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.shares import BLOCK, source_shares, turn_of


@given(st.lists(st.floats(1, 50), min_size=1, max_size=8))
def test_shares_fill_a_block_and_come_within_one_sample_of_the_weights(weights):
    shares = source_shares(weights)
    assert sum(shares) == BLOCK
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share - BLOCK * weight / sum(weights)) < 1


def test_a_source_that_would_never_be_drawn_is_refused():
    with pytest.raises(ValueError, match=r"weight 1 of source 2 .* never be drawn"):
        source_shares([5000, 1])


def test_a_source_is_drawn_in_its_own_order_whatever_is_drawn_between():
    shares = source_shares([3, 1])
    turns = [turn_of(7, shares, position) for position in range(3 * BLOCK)]
    for source in range(2):
        own = [drawn[source] for found, drawn in turns if found == source]
        assert own == list(range(3 * shares[source]))
    for (found, before), (_, after) in itertools.pairwise(turns):
        assert [b - a for a, b in zip(before, after, strict=True)] == [found == 0, found == 1]


def test_blocks_and_seeds_have_orders_of_their_own():
    def order(seed, block):
        return [turn_of(seed, (500, 500), block * BLOCK + place)[0] for place in range(BLOCK)]

    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)
    assert order(1, 5) == order(1, 5)
