"""Training on real images: no twin, labels of a few classes; alone, and mixed by weights."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.student.trained import load_student
from models.student.zegclip import ZegClip
from storage.codecs import encode_image, encode_label_map
from storage.errors import DataError, InputError
from storage.labelled_images import LabelledImage, RealImage, pack_real_images
from storage.metrics import read_metrics
from storage.vocabulary import load_vocabulary
from training.config import AugmentationConfig, NegativesConfig, TrainingConfig, TrainingSource
from training.data import Batches, BatchPlan, SampleFiles, find_shards, find_sources
from training.loop import StudentLearner, student_run_identity, train_student
from training.losses import counterfactual_loss
from training.processes import join_processes
from training.shares import turn_of

JUDGED = (0, 1, 2, 3)


def real_images(count):
    """Drawn scenes as photographs: other sizes, no twin, classes that were looked for."""
    vocabulary = load_vocabulary("miniature")
    for index in range(count):
        rng = np.random.default_rng(index)
        labels = np.zeros((40 + index, 50), np.uint16)
        own = () if index == 0 else (JUDGED[index % len(JUDGED)],)
        for class_id in own:
            labels[10:30, 10:30] = class_id + 1
        yield RealImage(
            LabelledImage(
                key=f"real{index:08d}",
                class_ids=own,
                class_names=tuple(vocabulary[class_id].name for class_id in own),
                image_bytes=encode_image(rng.integers(0, 255, (*labels.shape, 3), np.uint8), "jpg"),
                mask_bytes=encode_label_map(labels),
                judged_class_ids=JUDGED,
            ),
            index,
            f"photo{index}",
        )


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """A tar of seven real images."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "train-000000.tar").write_bytes(pack_real_images(list(real_images(7))))
    return folder


@pytest.fixture
def mixed(settings, tars, photographs):
    """Fields of a run that draws three generated samples for two real ones."""
    sources = [
        {"dataset": str(tars), "weight": 3.0},
        {"dataset": str(photographs), "weight": 2.0},
    ]
    return {**{k: v for k, v in settings.items() if k != "dataset"}, "sources": sources}


def batches_of(folders, shares, **changes):
    fields = {
        "side": 32,
        "classes_per_image": 6,
        "negatives": NegativesConfig(),
        "augmentation": AugmentationConfig(),
        "padding": (1, 2, 3),
        "seed": 0,
        "shares": shares,
    }
    found = [find_shards(str(folder)) for folder in folders]
    shards = [shard for own in found for shard in own]
    samples = SampleFiles(shards, load_vocabulary("miniature"))
    return Batches(samples, BatchPlan(**{**fields, **changes}), [len(own) for own in found])


def weights(path):
    return {name: p.detach().clone() for name, p in load_student(path)[0].trainable_parameters()}


class Stop(Exception):  # noqa: N818 - stands for the user's Ctrl-C
    pass


def test_a_batch_of_real_images_alone_has_no_twins(photographs):
    batch = batches_of([photographs], ()).batch(0, 7)
    assert batch.image.shape == (7, 3, 32, 32)
    assert batch.counterfactual.shape == (0, 3, 32, 32)
    assert batch.twins.tolist() == []


def test_the_shares_say_which_positions_have_a_twin(tars, photographs):
    batch = batches_of([tars, photographs], (600, 400)).batch(990, 40)
    drawn = [turn_of(0, (600, 400), position)[0] for position in range(990, 1030)]
    assert batch.twins.tolist() == [k for k, source in enumerate(drawn) if source == 0]
    assert 0 < len(batch.twins) < 40
    assert batch.counterfactual.shape[0] == len(batch.twins)


def test_classes_that_nobody_looked_for_are_no_negatives_of_a_real_image(tars, photographs):
    batch = batches_of([photographs], (), classes_per_image=14).batch(0, 7)
    known = torch.isin(batch.class_ids, torch.tensor(JUDGED))
    assert torch.equal(batch.active, known)
    asked = NegativesConfig(unjudged=False)
    every = batches_of([photographs], (), classes_per_image=14, negatives=asked).batch(0, 7)
    assert every.active.all()
    generated = batches_of([tars], (), classes_per_image=14).batch(0, 7)
    assert generated.active.all()


def test_an_image_of_background_alone_teaches_what_was_looked_for(photographs):
    samples = SampleFiles(find_shards(str(photographs)), load_vocabulary("miniature"))
    assert samples[0].class_ids == ()
    batch = batches_of([photographs], (), classes_per_image=4).batch(0, 7)
    assert batch.active.all()
    assert batch.num_present <= 6


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_threads_give_the_same_mixed_batches(tars, photographs, kept, threads):
    batches = batches_of([tars, photographs], (500, 500))
    inline, threaded = (kept(batches.stream(iter([[0, 8], [16]]), 8, n)) for n in (0, threads))
    for first, second in zip(inline, threaded, strict=True):
        for name, value in vars(first).items():
            assert torch.equal(value, getattr(second, name)), name


def test_a_pair_counts_in_a_mixed_batch_what_it_counts_among_pairs():
    positive, twin = torch.randn(2, 5, 8)
    alone = [counterfactual_loss(positive[k : k + 1], twin[k : k + 1]) for k in range(5)]
    whole = counterfactual_loss(positive, twin, 5)
    assert whole == counterfactual_loss(positive, twin)
    assert whole == F.cosine_similarity(positive, twin, dim=-1).clamp(min=0).mean()
    some = counterfactual_loss(positive[:2], twin[:2], 5)
    assert some.item() == pytest.approx((alone[0] + alone[1]).item() / 5)


def test_twins_of_some_images_are_encoded_as_in_a_batch_of_pairs(settings):
    """Without dropout an image's vectors do not depend on what else is in the batch."""
    student = ZegClip.from_config(TrainingConfig(**settings).student).eval()
    images, twins = torch.randn(2, 4, 3, 32, 32)
    with torch.no_grad():
        patches, cls, other = student.encode_pair(images, twins)
        some = student.encode_pair(images, twins[1:3])
    torch.testing.assert_close(some[0], patches)
    torch.testing.assert_close(some[1], cls)
    torch.testing.assert_close(some[2], other[1:3])


def test_losses_of_a_mixed_batch_are_those_of_its_parts(mixed, tars, photographs):
    """Masks of all images, likeness of the pairs by the number of images; nothing of the others."""
    mixed["student"] |= {"prompt_dropout": 0.0, "decoder_dropout": 0.0}
    config = TrainingConfig(**mixed)
    batches = batches_of([tars, photographs], (600, 400), side=32, classes_per_image=5)
    batch = batches.batch(0, 6)
    assert 0 < len(batch.twins) < 6
    with join_processes("cpu") as processes:
        learner = StudentLearner(config, load_vocabulary("miniature"), processes)
        terms = learner._losses(batch, torch.tensor(1.0))
        student = learner.student
        image = student.normalise(batch.image[batch.twins])
        _, cls, other = student.encode_pair(image, student.normalise(batch.counterfactual))
        likeness = F.cosine_similarity(cls, other, dim=-1).clamp(min=0)
    assert terms["counterfactual"].item() == pytest.approx(likeness.sum().item() / 6, rel=1e-5)


def test_real_images_alone_are_trained_on_without_a_counterfactual(settings, photographs):
    path = train_student(TrainingConfig(**{**settings, "dataset": str(photographs)}))
    rows = read_metrics(path.parent.parent)
    assert len(rows) == 6
    assert {row["counterfactual"] for row in rows} == {0.0}
    assert all(row["mask"] > 0 for row in rows)


def test_a_stopped_run_on_a_mixture_ends_with_the_same_weights(mixed, tmp_path):
    mixed["optimiser"] |= {"micro_batch_size": 2}
    whole = train_student(TrainingConfig(**mixed))

    def stop(row):
        if row["step"] == 2:
            raise Stop

    stopped = TrainingConfig(**{**mixed, "out": str(tmp_path / "stopped"), "threads": 2})
    with pytest.raises(Stop):
        train_student(stopped, stop)
    resumed = weights(train_student(stopped))
    for name, value in weights(whole).items():
        assert torch.equal(value, resumed[name]), name


@pytest.mark.slow
def test_two_processes_on_a_mixture_give_the_weights_of_one(mixed, tmp_path):
    mixed["optimiser"] |= {"micro_batch_size": 2}
    one = weights(train_student(TrainingConfig(**mixed)))
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**mixed, "out": str(tmp_path / "two")}))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *launch, "-m", "training", "--config", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    two = weights(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-6)


def test_runs_of_one_dataset_are_known_as_before_and_a_mixture_by_its_shares(
    settings, mixed, tars, photographs
):
    vocabulary = load_vocabulary("miniature")
    single = TrainingConfig(**settings)
    identity = single.identity()
    assert not {"sources", "shares"} & identity.keys()
    assert "unjudged" not in identity["negatives"]
    meta = student_run_identity(single, vocabulary, find_sources(single))
    assert meta["dataset"]["shards"] == 2
    twice = TrainingConfig(**mixed)
    assert twice.identity() == {**identity, "shares": (600, 400)}
    meta = student_run_identity(twice, vocabulary, find_sources(twice))
    assert meta["dataset"]["shards"] == [2, 1]
    other = {**settings, "negatives": {"unjudged": False}}
    assert TrainingConfig(**other).identity()["negatives"]["unjudged"] is False
    alone = TrainingSource(dataset=str(tars), weight=7.0)
    lone = TrainingConfig(**{**mixed, "sources": [alone]})
    assert lone.identity() == identity


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "neither is"),
        ([{"dataset": "a", "weight": 0}, {"dataset": "b"}], "greater than 0"),
        ([{"dataset": "a", "weight": -1}, {"dataset": "b"}], "greater than 0"),
        ([{"dataset": "a", "weight": float("nan")}, {"dataset": "b"}], "finite"),
        ([{"dataset": "a", "weight": 1e-9}, {"dataset": "b"}], "never be drawn"),
    ],
)
def test_sources_without_a_share_are_refused(mixed, sources, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**{**mixed, "sources": sources})


def test_the_same_source_twice_is_refused_in_words(mixed, tars):
    same = {**mixed, "sources": [{"dataset": str(tars)}, {"dataset": str(tars)}]}
    with pytest.raises(InputError, match="named as a source twice"):
        train_student(TrainingConfig(**same))


def test_two_sources_with_the_same_samples_are_refused(mixed, tars, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for tar in tars.glob("*.tar"):
        (copy / tar.name).write_bytes(tar.read_bytes())
    both = {**mixed, "sources": [{"dataset": str(tars)}, {"dataset": str(copy)}]}
    with pytest.raises(DataError, match=r"sample \w+ is in .* and in "):
        train_student(TrainingConfig(**both))


def test_an_empty_source_is_refused(mixed, tars, tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "train-0.tar").write_bytes(pack_real_images([]))
    both = {**mixed, "sources": [{"dataset": str(tars)}, {"dataset": str(tmp_path / "none")}]}
    with pytest.raises(InputError, match="source 2 hold no sample"):
        train_student(TrainingConfig(**both))
