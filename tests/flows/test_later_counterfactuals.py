"""Counterfactuals of images that passed: the pictures of pairs, and none is painted for nothing."""

from collections import Counter
from dataclasses import replace

import pytest

from fakes import FakeDetector, FakePainter, FakeSegmenter, FakeWriter
from flows.generation_parameters import GenerationParameters
from flows.generation_plan import describe_plan
from flows.generation_run import prepare
from models.protocols import FoundBoxes
from models.registry import Role, kind_of
from storage.errors import InputError
from storage.records import Reason, Stage
from storage.shards import iterate
from storage.store import Store
from storage.verification import verify_bytes
from storage.vocabulary import load_vocabulary
from tasks.resident import ResidentModels
from tasks.stage_tasks import make_stage
from tasks.stages import STAGES

SAMPLES = 24


class Painter(FakePainter):
    """Counts the pictures that it paints, by seed."""

    def __init__(self):
        super().__init__(load_vocabulary("miniature"))
        self.images, self.twins = Counter(), Counter()

    def paint(self, requests):
        self.images.update(request.seed for request in requests)
        self.twins.update(request.seed for request in requests)
        return super().paint(requests)

    def paint_images(self, requests):
        for request in requests:
            (self.twins if request.is_twin else self.images)[request.seed] += 1
        return super().paint_images(requests)


class ShortSighted(FakeDetector):
    """Does not see what is in the right half of a picture."""

    def detect(self, images, phrases):
        found = super().detect(images, phrases)
        return [
            self._left(boxes, image.shape[1] / 2)
            for boxes, image in zip(found, images, strict=True)
        ]

    def _left(self, boxes, middle):
        seen = boxes.xyxy[:, 0] < middle
        best = boxes.best_scores.copy()
        best[sorted(set(boxes.phrases[~seen]))] = 0
        return FoundBoxes(boxes.xyxy[seen], boxes.scores[seen], boxes.phrases[seen], best)


class Fakes(ResidentModels):
    def __init__(self):
        super().__init__()
        self.painter = Painter()
        self.fakes = {
            Role.WRITER: FakeWriter(),
            Role.PAINTER: self.painter,
            Role.DETECTOR: ShortSighted(),
            Role.SEGMENTER: FakeSegmenter(),
        }

    def model(self, config, objects):
        return self.fakes[kind_of(config).role]


def parameters(root, **changes):
    document = {
        "root": str(root),
        "samples": SAMPLES,
        "samples_per_shard": 12,
        "texts_per_class_set": 4,
        "batch_size": 4,
        "min_yield": 0.1,
        "masks": {"min_area": 0.0, "max_area": 1.0},
    }
    return GenerationParameters.model_validate(document | changes)


def make(root, **changes):
    """Run all stages of all shards that are left; gives the painter."""
    models = Fakes()
    with prepare(parameters(root, **changes), models) as run:
        for shard in run.todo:
            work = run.work(shard)
            for stage in run.keys.stages:
                make_stage(STAGES[stage], work)
        run.bring_card_up_to_date()
    return models.painter


LATER = {"twins": {"way": "later"}}


def samples(root):
    """What is written, by index, without the keys, which are each dataset's own."""
    shards = Store.open(root).shards()
    return {each.index: replace(each, key="") for shard in shards for each in iterate(shard.path)}


def fates(root):
    store = Store.open(root)
    rows = [row for shard in store.shards() for row in store.manifest(shard.commit)]
    return Counter((row.status, row.reason) for row in rows)


def test_the_dataset_is_that_of_pairs_and_what_is_dropped_has_no_counterfactual(tmp_path):
    usual, later = make(tmp_path / "usual"), make(tmp_path / "later", **LATER)
    written = samples(tmp_path / "later")
    assert written
    assert written == samples(tmp_path / "usual")
    assert fates(tmp_path / "later") == fates(tmp_path / "usual")
    lost = fates(tmp_path / "later")["rejected", Reason.CLASS_NOT_FOUND]
    assert lost > 0
    assert set(later.images.values()) == set(later.twins.values()) == {1}
    assert later.images == usual.images
    assert len(later.twins) == len(later.images) - lost == len(written)
    assert verify_bytes(Store.open(tmp_path / "later"), 14) == []


def test_another_labelling_takes_the_counterfactuals_over_too(tmp_path):
    make(tmp_path / "first", **LATER)
    changes = LATER | {"masks": {"min_area": 0.0, "max_area": 0.99}}
    painter = make(tmp_path / "second", reuse=str(tmp_path / "first"), **changes)
    assert not painter.images
    assert not painter.twins
    assert samples(tmp_path / "second") == samples(tmp_path / "first")


def test_plan_and_status_know_the_stages(tmp_path):
    make(tmp_path / "d", **LATER)
    plan = describe_plan(parameters(tmp_path / "d", **LATER))
    assert [(each.stage, each.committed) for each in plan.stages] == [
        (s, 2) for s in Stage if s is not Stage.OTHERS
    ]


@pytest.mark.parametrize("way", ["paint", "inpaint"])
def test_a_dataset_is_not_gone_on_with_in_another_way(tmp_path, way):
    make(tmp_path / "d", **LATER)
    with pytest.raises(InputError, match="made with other settings"):
        describe_plan(parameters(tmp_path / "d", twins={"way": way}))


def test_it_does_not_go_with_recorded_attention(tmp_path):
    record = {"record": {"cross": [8], "cells": 8}}
    with pytest.raises(InputError, match=r"twins\.way is 'later' where the painter's attention"):
        assert parameters(tmp_path / "d", pairs=record, **LATER).recipe
    # both ways out that the message names
    assert parameters(tmp_path / "d", pairs=record, twins={"way": "paint"}).recipe
    assert parameters(tmp_path / "d", **LATER).recipe
