"""Names that are left out of a training: what the student sees of them, and self-training."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.miniature import world
from models.student.trained import describe_student, load_student
from storage.codecs import encode_label_map
from storage.errors import InputError
from storage.metrics import read_metrics
from storage.shards import pack
from storage.store import Store
from storage.vocabulary import load_vocabulary
from training.config import AugmentationConfig, NegativesConfig, TrainingConfig, ZeroShotConfig
from training.data import Batches, BatchPlan, SampleFiles, find_shards
from training.loop import train_student
from training.sampling import BACKGROUND, IGNORE, sample_subsets
from training.self_training import own_labels
from training.shard_cache import ShardCache

MINIATURE = load_vocabulary("miniature")
UNSEEN = (11, 12, 13)
NAMES = ("cactus", "cup", "rocket")
AS_STORED = AugmentationConfig(
    min_scale=1, max_scale=1, flip=0, brightness=0, contrast=0, saturation=0, hue=0
)


def plan(**changes):
    fields = {
        "side": 64,
        "classes_per_image": 14,
        "negatives": NegativesConfig(),
        "augmentation": AS_STORED,
        "padding": (1, 2, 3),
        "seed": 0,
        "left_out": UNSEEN,
    }
    return BatchPlan(**{**fields, **changes})


@pytest.fixture
def of(draw):
    """Draws a sample that shows these classes, side by side, by its number."""

    def make(number, *class_ids):
        labels = np.zeros((world.CANVAS, world.CANVAS), np.uint16)
        width = world.CANVAS // (len(class_ids) + 1)
        for place, class_id in enumerate(class_ids):
            labels[10:50, place * width : place * width + width] = class_id + 1
        names = tuple(world.CLASSES[i] for i in class_ids)
        return replace(
            draw(number),
            class_ids=class_ids,
            class_names=names,
            mentions=(),
            mask_bytes=encode_label_map(labels),
        )

    return make


@pytest.fixture
def folder(of, tmp_path):
    """A tar with a seen class, an unseen one, one of each, and two unseen ones."""
    path = tmp_path / "mixed"
    path.mkdir()
    samples = [of(0, 2), of(1, 12), of(2, 3, 11), of(3, 12, 13)]
    (path / "a.tar").write_bytes(pack(samples))
    return path


def samples_of(folder, left_out=UNSEEN, **more):
    return SampleFiles(find_shards(str(folder)), MINIATURE, left_out=left_out, **more)


def test_samples_that_show_left_out_classes_alone_are_skipped(folder):
    assert len(samples_of(folder, left_out=())) == 4
    kept = samples_of(folder)
    assert [kept[i].class_ids for i in range(len(kept))] == [(2,), (3, 11)]
    assert kept.sizes == (2,)


def test_left_out_names_are_neither_own_nor_negatives_nor_text(folder):
    batches = Batches(samples_of(folder), plan())
    seen = [batches.batch(first, 4) for first in range(0, 40, 4)]
    drawn = torch.cat([batch.class_ids for batch in seen])
    assert drawn.shape == (40, 11)
    assert not torch.isin(drawn, torch.tensor(UNSEEN)).any()
    assert all(batch.active.all() for batch in seen)
    few = Batches(samples_of(folder), plan(classes_per_image=5)).batch(0, 8).class_ids
    assert few.shape == (8, 5)
    assert not torch.isin(few, torch.tensor(UNSEEN)).any()


def test_pixels_of_left_out_classes_are_of_unknown_class(folder):
    batch = Batches(samples_of(folder), plan()).batch(0, 2)
    for targets, names in zip(batch.targets, batch.class_ids, strict=True):
        shown = set(targets.unique().tolist())
        if names[0] == 3:  # its other class is left out
            assert shown == {BACKGROUND, IGNORE, 0}
            # 40 rows of 21 columns each
            assert (targets == IGNORE).sum() == (targets == 0).sum() == 40 * 21
        else:
            assert names[0] == 2
            assert shown == {BACKGROUND, 0}
    assert batch.num_present == 2


def test_excluded_names_are_drawn_before_left_out_ones():
    excluded = [tuple(range(1, 11))] * 50
    seeds = np.arange(50, dtype=np.uint64)
    found = sample_subsets([(0,)] * 50, 14, 12, seeds, excluded, UNSEEN)
    assert found.class_ids.shape == (50, 11)
    assert not np.isin(found.class_ids, UNSEEN).any()
    assert found.active.sum() == 50  # the own class alone


def test_without_left_out_names_subsets_are_what_they_were():
    seeds = np.arange(9, dtype=np.uint64)
    own = [(0,)] * 9
    plain = sample_subsets(own, 14, 6, seeds, [(1, 2)] * 9)
    same = sample_subsets(own, 14, 6, seeds, [(1, 2)] * 9, ())
    assert np.array_equal(plain.class_ids, same.class_ids)


def test_a_dataset_of_left_out_classes_alone_is_refused(of, tmp_path):
    (tmp_path / "a.tar").write_bytes(pack([of(0, 12), of(1, 13)]))
    with pytest.raises(InputError, match="no sample of the shards shows a class that is not left"):
        Batches(samples_of(tmp_path), plan())


def test_a_shard_without_a_sample_that_counts_lies_among_others(of, folder):
    (folder / "b.tar").write_bytes(pack([of(5, 12)]))
    (folder / "c.tar").write_bytes(pack([of(6, 1)]))
    samples = samples_of(folder)
    assert samples.sizes == (2, 0, 1)
    assert [samples[i].class_ids for i in range(3)] == [(2,), (3, 11), (1,)]
    batches = Batches(samples, plan(mixed_shards=1))
    own = {tuple(batch.class_ids[0, :1].tolist()) for batch in map_batches(batches, 6)}
    assert own == {(2,), (3,), (1,)}


def map_batches(batches, count):
    return [batches.batch(first, 1) for first in range(count)]


def test_remote_shards_are_looked_through_too(of, commit_shard, root, tmp_path):
    store = Store.create(root, {"vocabulary": "miniature"})
    commit_shard(store, 0, [of(0, 2), of(1, 12), of(2, 3, 11)], 0)
    cache = ShardCache(tmp_path / "cache", 2**30)
    samples = SampleFiles(find_shards(root), MINIATURE, shard_cache=cache, left_out=UNSEEN)
    assert samples.sizes == (2,)
    assert samples[1].class_ids == (3, 11)


def test_once_the_names_are_known_every_image_has_them_and_no_mask_of_them(folder):
    batches = Batches(samples_of(folder, left_out=()), plan(names_known=True))
    batch = batches.batch(0, 4)
    for targets, names in zip(batch.targets, batch.class_ids, strict=True):
        assert set(UNSEEN) <= set(names.tolist())
        own = {names[place].item() for place in targets.unique() if place >= 0}
        assert own <= {2, 3}
        assert not (targets == IGNORE).any()  # what they show is background until it is named
    assert batch.num_present == 2


def test_more_names_than_an_image_may_have_are_refused(folder):
    few = plan(names_known=True, classes_per_image=3)
    batches = Batches(samples_of(folder, left_out=()), few)
    with pytest.raises(InputError, match=r"classes_per_image is 3, expected at least 4: an image"):
        batches.batch(0, 4)


def test_background_gets_the_best_unseen_name_and_nothing_else_does():
    # Names 0 and 2 are seen, 1 and 3 have no masks; the left half looks like 3, the right like 1.
    logits = torch.tensor([9.0, -1.0, 9.0, 2.0])[None, :, None, None].repeat(1, 1, 1, 2)
    logits[0, 1, 0, 1] = 3.4
    targets = torch.tensor([[[0, BACKGROUND, BACKGROUND, IGNORE]]])
    unseen = torch.tensor([[False, True, False, True]])
    assert own_labels(logits, targets, unseen, 0.0).tolist() == [[[0, 3, 1, IGNORE]]]
    assert targets.tolist() == [[[0, BACKGROUND, BACKGROUND, IGNORE]]]
    # The best logits there are 2 and 3.4 * 3/4 - 1/4 = 2.3: sigmoid 0.88 and 0.91.
    assert own_labels(logits, targets, unseen, 0.95).tolist() == [[[0, IGNORE, IGNORE, IGNORE]]]
    assert own_labels(logits, targets, unseen, 0.9).tolist() == [[[0, IGNORE, 1, IGNORE]]]
    assert own_labels(logits, targets, unseen, 0.8).tolist() == [[[0, 3, 1, IGNORE]]]


def zero_shot(settings, tmp_path, folder, name="run", **more):
    fields = {"left_out": NAMES, **more}
    return TrainingConfig(
        **{
            **settings,
            "dataset": str(folder),
            "out": str(tmp_path / name),
            "zero_shot": fields,
            "classes_per_image": 8,
        }
    )


def weights(path):
    return {name: p.detach().clone() for name, p in load_student(path)[0].trainable_parameters()}


def test_a_student_knows_which_names_it_was_trained_without(settings, tmp_path, folder):
    train_student(zero_shot(settings, tmp_path, folder))
    assert describe_student(tmp_path / "run")["left_out"] == list(NAMES)
    with pytest.raises(InputError, match=r"zero_shot"):
        train_student(zero_shot(settings, tmp_path, folder, least_score=0.5))


def test_a_split_stands_for_its_unseen_names(settings, tmp_path, folder):
    train_student(zero_shot(settings, tmp_path, folder, left_out=("miniature11_3",)))
    assert describe_student(tmp_path / "run")["left_out"] == list(NAMES)


def test_names_that_are_no_classes_are_refused_before_training(settings, tmp_path, folder):
    config = zero_shot(settings, tmp_path, folder, left_out=("cactuss",))
    with pytest.raises(InputError, match='"cactuss"'):
        train_student(config)
    assert not Path(config.out).exists()


def test_the_halves_of_a_self_training_differ_from_the_middle_on(settings, tmp_path, folder):
    train_student(zero_shot(settings, tmp_path, folder, "inductive"))
    train_student(zero_shot(settings, tmp_path, folder, "transductive", transductive=True))
    rows = [read_metrics(tmp_path / name) for name in ("inductive", "transductive")]
    same = [a["loss"] == b["loss"] for a, b in zip(*rows, strict=True)]
    assert same == [True, True, True, False, False, False]


@pytest.mark.parametrize("after", [1, 3])
def test_a_stopped_self_training_ends_with_the_same_weights(settings, tmp_path, folder, after):
    class Stop(Exception):  # noqa: N818 - stands for the user's Ctrl-C
        pass

    def stop(row):
        if row["step"] == after:
            raise Stop

    whole = train_student(zero_shot(settings, tmp_path, folder, "whole", transductive=True))
    stopped = zero_shot(settings, tmp_path, folder, "stopped", transductive=True)
    with pytest.raises(Stop):
        train_student(stopped, stop)
    first, second = weights(whole), weights(train_student(stopped))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_micro_batches_of_a_self_training_give_the_update_of_the_whole_batch(
    settings, tmp_path, folder
):
    settings["student"] |= {"prompt_dropout": 0.0, "decoder_dropout": 0.0}
    settings["optimiser"]["steps"] = 2
    whole = zero_shot(settings, tmp_path, folder, "whole", transductive=True)
    parts = whole.model_copy(
        update={
            "out": str(tmp_path / "parts"),
            "optimiser": whole.optimiser.model_copy(update={"micro_batch_size": 2}),
        }
    )
    for config in (whole, parts):
        train_student(config)
    one, other = (read_metrics(tmp_path / name) for name in ("whole", "parts"))
    assert [row["mask"] for row in one] == pytest.approx([row["mask"] for row in other], rel=1e-4)


def test_names_alone_make_a_self_training():
    with pytest.raises(ValueError, match="transductive is set and left_out is empty"):
        ZeroShotConfig(transductive=True)


def test_a_training_with_all_names_keeps_its_identity(settings):
    config = TrainingConfig(**settings)
    assert "zero_shot" not in config.identity()
    known = json.loads(config.model_dump_json())
    assert TrainingConfig.model_validate(known).identity() == config.identity()
