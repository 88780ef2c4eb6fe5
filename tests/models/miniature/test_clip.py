"""The miniature CLIP: what captions claim, what its patches show, which scenes it sees."""

import numpy as np
import torch

from models.miniature.clip.batches import ScenePool, Sizes
from models.miniature.clip.claims import Claim
from models.miniature.clip.losses import patch_shares
from models.miniature.scenes import collate, held_out
from models.miniature.world import CLASSES


def test_a_caption_holds_for_the_pictures_that_it_describes():
    one, two = held_out(1, 4, num_things=1)[0].scene, held_out(1, 5, num_things=2)[0].scene
    first, second = two.things
    other = (first.class_id + 1) % len(CLASSES)
    both = ((first.class_id, None, None), (second.class_id, second.colour, None))
    assert Claim(both, "").holds(two, bare=False)
    assert Claim(both[:1], "").holds(two, bare=False)
    assert not Claim(both, "").holds(one, bare=False)
    assert not Claim(((first.class_id, "pink", None),), "").holds(two, bare=False)
    assert not Claim(both[:1], "").holds(two, bare=True)
    assert Claim((), "").holds(two, bare=True)
    assert not Claim((), "").holds(two, bare=False)
    assert Claim(((other, None, None),), "").holds(two, bare=False) == (other == second.class_id)


def test_shares_of_a_patch_add_up_and_follow_the_mask():
    batch = collate(held_out(5, 6, num_things=2))
    shares = patch_shares(batch, 64)
    torch.testing.assert_close(shares.sum(-1), torch.ones(5, 64))
    for row in range(5):
        for column, class_id in enumerate(batch.class_ids[row].tolist()):
            area = batch.masks[row, column].sum() / 64
            torch.testing.assert_close(shares[row, :, class_id].sum(), area)


def test_a_batch_shows_every_class_on_one_background():
    sizes = Sizes(per_class=1, pairs=2, empties=3)
    drawn, bare = ScenePool(0).batch(0, sizes, np.random.default_rng(1))
    assert len(drawn) == len(bare) == len(CLASSES) + 5
    assert [len(item.scene.things) for item in drawn] == [1] * len(CLASSES) + [2, 2, 1, 1, 1]
    assert bare == [False] * (len(CLASSES) + 2) + [True] * 3
    assert len({item.scene.background for item in drawn}) == 1
    shown = [item.scene.things[0].class_id for item in drawn[: len(CLASSES)]]
    assert shown == list(range(len(CLASSES)))


def test_a_scene_of_the_pool_stays_for_a_while_and_then_changes():
    pool = ScenePool(0)
    first = pool.scene(0, 2, [4], 0)
    assert pool.scene(1499, 2, [4], 0) is first
    assert pool.scene(1500, 2, [4], 0).scene != first.scene
