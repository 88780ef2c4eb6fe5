import itertools

import numpy as np
import pytest

from training.epochs import Epochs, MixedEpochs

SIZES = (3, 5, 2, 4, 6, 1, 2)
SHARD_OF = np.repeat(range(len(SIZES)), SIZES)


def shown(epochs, epoch):
    count = sum(SIZES)
    places = [epochs.place(epoch * count + place) for place in range(count)]
    assert {found for found, _ in places} == {epoch}
    return [index for _, index in places]


@pytest.mark.parametrize("mixed_shards", [None, 1, 3, 7, 50])
def test_an_epoch_shows_every_sample_once_in_its_own_order(mixed_shards):
    epochs = Epochs(4, SIZES, mixed_shards)
    orders = [shown(epochs, epoch) for epoch in range(3)]
    assert all(sorted(order) == list(range(23)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert orders == [shown(Epochs(4, SIZES, mixed_shards), epoch) for epoch in range(3)]
    assert orders[0] != shown(Epochs(5, SIZES, mixed_shards), 0)


def test_a_window_is_left_before_the_next_one_is_entered():
    epochs = Epochs(0, SIZES, 3)
    order = SHARD_OF[shown(epochs, 1)]

    changes = [i for i in range(1, 23) if epochs.needed(23 + i) != epochs.needed(22 + i)]
    edges = [0, *changes, 23]
    assert len(edges) == 4
    windows = [set(order[a:b].tolist()) for a, b in itertools.pairwise(edges)]
    assert [len(window) for window in windows] == [3, 3, 1]
    assert set.union(*windows) == set(range(7))


def test_samples_of_a_window_are_mixed():
    order = SHARD_OF[shown(Epochs(0, SIZES, 7), 0)]
    assert np.count_nonzero(np.diff(order)) > 10


def test_the_window_after_the_last_one_is_the_next_epochs_first():
    epochs = Epochs(0, SIZES, 2)
    needed = [epochs.needed(position) for position in range(3 * 23)]
    order = SHARD_OF[[epochs.place(position)[1] for position in range(3 * 23)]]
    for position, (now, following) in enumerate(needed):
        assert order[position] in now
        later = [n for n, _ in needed[position:] if n != now]
        assert not later or later[0] == following


@pytest.mark.parametrize("mixed_shards", [None, 2])
def test_each_source_of_a_mixture_goes_through_epochs_of_its_own(mixed_shards):
    sources = (SIZES, (4, 3))
    mixed = MixedEpochs(4, sources, (750, 250), mixed_shards)
    places = [mixed.place(position) for position in range(2000)]
    for first, count, drawn in ((0, 23, 1500), (23, 7, 500)):
        own = [place for place in places if first <= place[1] < first + count]
        assert len(own) == drawn
        for epoch in range(drawn // count):
            shown = [number for found, number in own if found == epoch]
            assert sorted(shown) == list(range(first, first + count))


def test_a_mixture_needs_the_windows_of_all_its_sources():
    mixed = MixedEpochs(0, (SIZES, (4, 3)), (500, 500), 2)
    shard_of = np.repeat(range(9), (*SIZES, 4, 3))
    for position in range(300):
        now, later = mixed.needed(position)
        assert shard_of[mixed.place(position)[1]] in now
        assert len(now) <= 4
        assert any(shard >= 7 for shard in now)
        assert any(shard < 7 for shard in later)
