"""Drawn scenes as tensors, and the damage that is done to them."""

import torch

from models.miniature import world
from models.miniature.degradation import degrade, warp
from models.miniature.scenes import SceneStream, as_pictures, collate, held_out


def test_a_batch_of_the_stream_depends_on_its_step_alone():
    fresh, used = SceneStream(3, 0.5, window=40, fresh=8), SceneStream(3, 0.5, window=40, fresh=8)
    for step in range(6):
        used.batch(step, 4)
    again, late = used.batch(6, 4, empty_share=0.5), fresh.batch(6, 4, empty_share=0.5)
    assert torch.equal(again.images, late.images)
    assert torch.equal(again.class_ids, late.class_ids)
    assert not torch.equal(again.images, fresh.batch(7, 4).images)


def test_emptied_scenes_have_no_objects():
    drawn = held_out(6, 0, num_things=2)
    batch = collate(drawn, [True, False] * 3)
    assert (batch.class_ids[::2] == -1).all()
    assert batch.masks[::2].sum() == 0
    assert (batch.class_ids[1::2] >= 0).all()


def test_damage_moves_masks_and_boxes_with_the_picture():
    batch = collate(held_out(12, 1, num_things=1))
    # painted pure, so that the object can be found again in the bent picture
    images = batch.masks[:, :1].expand(-1, 3, -1, -1).contiguous()
    bent, masks = warp(images, batch.masks, torch.Generator().manual_seed(0))
    moved = (masks[:, 0] != batch.masks[:, 0]).float().mean()
    wrong = ((bent[:, 0] > 0.5).float() != masks[:, 0]).float().mean()
    assert moved > 0.01
    assert wrong < 0.25 * moved


def test_damage_is_a_function_of_its_generator():
    images = collate(held_out(16, 2, num_things=2)).images
    first, same, other = (
        degrade(images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert first.min() >= 0
    assert first.max() <= 1
    assert any(torch.equal(a, b) for a, b in zip(first, images, strict=True))


def test_boxes_are_those_of_the_world():
    drawn = held_out(8, 3, num_things=2)
    found = collate(drawn).boxes()
    for row, item in zip(found, drawn, strict=True):
        expected = torch.from_numpy(world.boxes(item.scene))
        assert torch.equal(row, expected)


def test_a_batch_gives_back_the_drawn_pictures():
    drawn = held_out(3, 0, num_things=1)
    for picture, item in zip(as_pictures(collate(drawn).images), drawn, strict=True):
        assert picture.tobytes() == item.picture.tobytes()
