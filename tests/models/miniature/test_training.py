"""How the miniature detector, segmenter and CLIP are trained."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import GroundingDinoProcessor

from models.miniature import clip, detector, segmenter, vae, world
from models.miniature.degradation import degrade, warp
from models.miniature.loop import Run
from models.miniature.optimisation import Schedule, optimise, save_half
from models.miniature.scenes import SceneStream, collate, held_out
from models.miniature.world import CLASSES


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vae")
    vae.build().save_pretrained(folder)
    return str(folder)


def tasks(folder: Path, autoencoder: str) -> dict:
    finder = detector.Config(batch=4, encoder_steps=2, autoencoder=autoencoder)
    reader = clip.Config(per_class=1, pairs=2, empties=2, autoencoder=autoencoder)
    tokenizer = clip.write_processor(folder).tokenizer
    return {
        "detector": lambda: detector.task(finder),
        "segmenter": lambda: segmenter.task(segmenter.Config(batch=2)),
        "clip": lambda: clip.task(reader, tokenizer),
    }


@pytest.mark.parametrize("name", ["detector", "segmenter", "clip"])
def test_a_training_that_was_stopped_ends_with_the_same_weights(tmp_path, autoencoder, name):
    def weights(folder: str, *stops: int) -> dict:
        for stop in stops:
            network, losses = tasks(tmp_path, autoencoder)[name]()
            run = Run(name, tmp_path / folder, stop, 0)
            optimise(network, losses, Schedule(4, 1e-3, warmup=2), run)
        return network.state_dict()

    whole, resumed = weights("whole", 4), weights("resumed", 2, 4)
    start = tasks(tmp_path, autoencoder)[name]()[0].state_dict()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert any(not torch.equal(whole[key], start[key]) for key in whole)


@pytest.mark.parametrize("name", ["detector", "segmenter", "clip"])
def test_a_step_of_another_seed_has_another_loss(tmp_path, autoencoder, name):
    def loss(seed: int) -> float:
        tokenizer = clip.write_processor(tmp_path).tokenizer
        small = {
            "detector": lambda: detector.task(
                replace(detector.Config(batch=2, autoencoder=autoencoder), seed=seed)
            ),
            "segmenter": lambda: segmenter.task(segmenter.Config(batch=1, seed=seed)),
            "clip": lambda: clip.task(
                clip.Config(per_class=1, pairs=2, autoencoder=autoencoder, seed=seed), tokenizer
            ),
        }
        _, losses = small[name]()
        return float(losses(0)["loss"].detach())

    assert loss(0) == loss(0)
    assert loss(0) != loss(1)


def test_half_precision_files_load_as_float32(tmp_path):
    network = segmenter.build()
    save_half(network, tmp_path)
    for loaded in (
        segmenter.SamModel.from_pretrained(tmp_path),
        segmenter.SamModel.from_pretrained(tmp_path, dtype=torch.float32),
    ):
        assert {p.dtype for p in loaded.parameters()} == {torch.float32}
        for new, old in zip(loaded.parameters(), network.parameters(), strict=True):
            torch.testing.assert_close(new, old, rtol=1e-3, atol=1e-6)
    size = (tmp_path / "model.safetensors").stat().st_size
    assert size < 2.2 * sum(p.numel() for p in network.parameters())


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
    batch = collate(held_out(12, 1, num_things=1), [False] * 12)
    # painted pure, so that the object can be found again in the bent picture
    images = batch.masks[:, :1].expand(-1, 3, -1, -1).contiguous()
    bent, masks = warp(images, batch.masks, torch.Generator().manual_seed(0))
    moved = (masks[:, 0] != batch.masks[:, 0]).float().mean()
    wrong = ((bent[:, 0] > 0.5).float() != masks[:, 0]).float().mean()
    assert moved > 0.01
    assert wrong < 0.25 * moved


def test_damage_is_a_function_of_its_generator():
    images = collate(held_out(16, 2, num_things=2), [False] * 16).images
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
    found = collate(drawn, [False] * 8).boxes()
    for row, item in zip(found, drawn, strict=True):
        expected = torch.from_numpy(world.boxes(item.scene))
        assert torch.equal(row, expected)


def test_the_detector_is_asked_in_the_words_of_its_processor(tmp_path):
    detector.processor().save_pretrained(tmp_path)
    loaded = GroundingDinoProcessor.from_pretrained(tmp_path)
    text = detector.prompt(range(len(CLASSES)))
    ids = loaded(images=Image.new("RGB", (64, 64)), text=text)["input_ids"]
    vocabulary = detector.vocabulary()
    expected = [101, *(i for name in CLASSES for i in (vocabulary[name], 1012)), 102]
    assert ids == expected
    assert text == "balloon. bus. cat. mushroom. fish. star. umbrella. " + (
        "house. boat. tree. apple. cactus. cup. rocket."
    )


def test_a_loss_falls_when_the_detector_learns_one_batch(autoencoder):
    config = detector.Config(batch=4, encoder_steps=0, autoencoder=autoencoder)
    network, losses = detector.task(config)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3)
    values = []
    for _ in range(25):
        found = losses(0)
        optimiser.zero_grad()
        found["loss"].backward()
        optimiser.step()
        values.append(float(found["loss"].detach()))
    assert min(values[-3:]) < 0.5 * values[0]


def test_every_wanted_object_gets_the_closest_prediction():
    boxes = torch.tensor([[[0.25, 0.25, 0.2, 0.2], [0.75, 0.75, 0.3, 0.3]]])
    tokens = torch.zeros(1, 2, 48, dtype=torch.bool)
    tokens[0, 0, 1] = tokens[0, 1, 3] = True
    truth = detector.Truth(
        boxes, torch.tensor([[True, True]]), tokens, torch.ones(1, 6, dtype=torch.bool)
    )
    logits = torch.full((1, 3, 48), -2.0)
    predicted = torch.tensor([[[0.7, 0.7, 0.3, 0.3], [0.5, 0.5, 1.0, 1.0], [0.26, 0.25, 0.2, 0.2]]])
    assert detector.match(truth, logits, predicted).tolist() == [[1, -1, 0]]
    logits[0, 1, 1] = 5.0
    nearly = replace(truth, wanted=torch.tensor([[False, True]]))
    assert detector.match(nearly, logits, predicted).tolist() == [[1, -1, -1]]


def test_boxes_that_fit_an_object_well_may_share_it():
    tokens = torch.zeros(1, 2, 48, dtype=torch.bool)
    boxes = torch.tensor([[[0.5, 0.5, 0.4, 0.4], [0.2, 0.2, 0.1, 0.1]]])
    truth = detector.Truth(boxes, torch.tensor([[True, False]]), tokens, tokens[:, 0])
    sides = [(0.4, 0.4), (0.4, 0.36), (0.4, 0.25), (0.4, 0.1)]
    predicted = torch.tensor([[(0.5, 0.5, *side) for side in sides] + [(0.2, 0.2, 0.1, 0.1)]])
    owner = torch.tensor([[-1, -1, -1, 0, -1]])
    owners, doubtful = detector.share(truth, predicted, owner)
    assert owners.tolist() == [[0, 0, -1, 0, -1]]
    assert doubtful.tolist() == [[False, False, True, False, False]]


def test_the_second_cycle_begins_at_half_the_rate():
    schedule = Schedule(300, 1e-3, flat=0.5, second=100, warmup=10)
    assert schedule.rate(50) == pytest.approx(1e-3)
    assert schedule.rate(199) < 1e-4
    assert schedule.rate(220) == pytest.approx(5e-4)
    assert schedule.rate(299) < 5e-5
    assert [schedule.rate(i) for i in range(200)] == [
        Schedule(200, 1e-3, flat=0.5, warmup=10).rate(i) for i in range(200)
    ]


def test_overlap_of_boxes():
    first = torch.tensor([0.0, 0.0, 2.0, 2.0])
    second = torch.tensor([1.0, 0.0, 3.0, 2.0])
    far = torch.tensor([4.0, 0.0, 6.0, 2.0])
    assert float(detector.box_iou(first, second)) == pytest.approx(1 / 3)
    assert float(detector.generalised_iou(first, second)) == pytest.approx(1 / 3)
    assert float(detector.generalised_iou(first, far)) == pytest.approx(-1 / 3)


def test_jitter_is_in_proportion_to_the_box():
    boxes = torch.tensor([[10.0, 10.0, 20.0, 50.0]]).repeat(1, 500, 1)
    moved = segmenter.jittered(boxes, 0.05, torch.Generator().manual_seed(0)) - boxes
    deviation = moved.std((0, 1))
    assert deviation[0] == pytest.approx(0.5, rel=0.15)
    assert deviation[1] == pytest.approx(2.0, rel=0.15)


def test_a_caption_holds_for_the_pictures_that_it_describes():
    one, two = held_out(1, 4, num_things=1)[0].scene, held_out(1, 5, num_things=2)[0].scene
    first, second = two.things
    other = (first.class_id + 1) % len(CLASSES)
    both = ((first.class_id, None, None), (second.class_id, second.colour, None))
    assert clip.Claim(both, "").holds(two, bare=False)
    assert clip.Claim(both[:1], "").holds(two, bare=False)
    assert not clip.Claim(both, "").holds(one, bare=False)
    assert not clip.Claim(((first.class_id, "pink", None),), "").holds(two, bare=False)
    assert not clip.Claim(both[:1], "").holds(two, bare=True)
    assert clip.Claim((), "").holds(two, bare=True)
    assert not clip.Claim((), "").holds(two, bare=False)
    assert clip.Claim(((other, None, None),), "").holds(two, bare=False) == (
        other == second.class_id
    )


def test_shares_of_a_patch_add_up_and_follow_the_mask():
    batch = collate(held_out(5, 6, num_things=2), [False] * 5)
    shares = clip.patch_shares(batch, 64)
    torch.testing.assert_close(shares.sum(-1), torch.ones(5, 64))
    for row in range(5):
        for column, class_id in enumerate(batch.class_ids[row].tolist()):
            area = batch.masks[row, column].sum() / 64
            torch.testing.assert_close(shares[row, :, class_id].sum(), area)


def test_prompts_ask_for_absent_classes_too():
    rng = random.Random(0)  # noqa: S311
    class_ids = torch.tensor([[3, 5], [7, -1], [-1, -1]])
    asked = [detector.ask(class_ids, rng) for _ in range(40)]
    absent = [p.asked[2][p.asked[2] >= 0].numel() for p in asked]
    assert max(absent) > 8
    assert min(absent) == 0
    assert all((p.ids[:, 0] == 101).all() for p in asked)
