"""Objects that nobody asked for: found, kept beside the sample's own, and no negatives of it."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from evaluation.reports.gallery import quadruplet_card
from evaluation.reports.page import write_report
from evaluation.reports.sheets import Quadruplet, class_colour
from fakes import FakeDetector, FakePainter, FakeScout, FakeSegmenter, FakeWriter
from flows.dataset_status import describe_status, print_status
from flows.generation_parameters import GenerationParameters
from flows.generation_plan import describe_plan
from flows.generation_run import open_run, prepare
from flows.local_runs import generate_locally
from flows.preview import make_preview, print_preview
from flows.quotas import survey
from models.protocols import TextAnswer
from models.registry import Role, kind_of
from storage.card import render_card
from storage.codecs import decode_label_map, decode_rle
from storage.commits import OtherOutcomes
from storage.errors import InputError
from storage.merging import merge_datasets
from storage.records import IGNORE_LABEL, Reason, Stage
from storage.shards import iterate
from storage.store import Store
from storage.verification import verify_bytes
from storage.vocabulary import load_vocabulary
from tasks.resident import ResidentModels
from tasks.stage_tasks import make_stage
from tasks.stages import STAGES
from training.config import AugmentationConfig, NegativesConfig
from training.data import Batches, BatchPlan, SampleFiles, find_shards

VOCABULARY = load_vocabulary("miniature")
SAMPLES = 24
HIDDEN = 3
"""What every text of another class names besides."""


class Sloppy(FakeWriter):
    """Names a class that nobody asked for in every text."""

    def write(self, requests):
        extra = VOCABULARY[HIDDEN].name
        return [
            TextAnswer(tuple(f"{text} with a {extra}" for text in answer.texts))
            for answer in super().write(requests)
        ]


class Counting(FakeDetector):
    """Counts the images that it is given, by what they are asked for."""

    def __init__(self):
        self.asked = Counter()

    def detect(self, images, phrases):
        for image, own in zip(images, phrases, strict=True):
            self.asked[image.tobytes(), own] += 1
        return super().detect(images, phrases)


class Watched(FakeScout):
    def __init__(self):
        self.images = Counter()

    def likeness(self, images, phrases):
        self.images.update(image.tobytes() for image in images)
        return super().likeness(images, phrases)


class Painter(FakePainter):
    def __init__(self):
        super().__init__(VOCABULARY)
        self.painted = 0

    def paint(self, requests):
        self.painted += len(requests)
        return super().paint(requests)


class Fakes(ResidentModels):
    def __init__(self):
        super().__init__()
        self.painter, self.detector, self.scout = Painter(), Counting(), Watched()
        self.fakes = {
            Role.WRITER: Sloppy(),
            Role.PAINTER: self.painter,
            Role.DETECTOR: self.detector,
            Role.SEGMENTER: FakeSegmenter(),
            Role.SCOUT: self.scout,
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
    """Run all stages of all shards that are left; gives the models."""
    models = Fakes()
    with prepare(parameters(root, **changes), models) as run:
        for shard in run.todo:
            work = run.work(shard)
            for stage in run.keys.stages:
                make_stage(STAGES[stage], work)
        run.bring_card_up_to_date()
    return models


IGNORE, LABELS = {"others": {"way": "ignore"}}, {"others": {"way": "labels"}}


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    root = tmp_path_factory.mktemp("usual") / "d"
    make(root)
    return root


@pytest.fixture(scope="module")
def ignored(tmp_path_factory):
    root = tmp_path_factory.mktemp("ignored") / "d"
    make(root, **IGNORE)
    return root


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    root = tmp_path_factory.mktemp("labelled") / "d"
    make(root, **LABELS)
    return root


def samples(root):
    shards = Store.open(root).shards()
    return {each.index: each for shard in shards for each in iterate(shard.path)}


def with_hidden(root):
    found = {index: each for index, each in samples(root).items() if HIDDEN not in planned(each)}
    assert len(found) > SAMPLES // 2
    return found


def planned(sample):
    return {mention.class_id for mention in sample.mentions}


def test_every_hidden_object_is_found_and_its_pixels_are_of_unknown_class(usual, ignored):
    before = samples(usual)
    for index, sample in with_hidden(ignored).items():
        [other] = sample.others
        assert other.class_id == HIDDEN
        labels, old = (decode_label_map(each.mask_bytes) for each in (sample, before[index]))
        mask = decode_rle(other.rle, *labels.shape)
        assert mask.any()
        assert (labels[mask] == IGNORE_LABEL).all()
        assert np.array_equal(labels[~mask], old[~mask])
        assert (old[mask] == 0).all(), "it was taught as background"
        assert before[index].others is None
        same = replace(before[index], key="", mask_bytes=b"")
        assert replace(sample, key="", mask_bytes=b"", others=None) == same


def test_a_sample_whose_own_class_it_is_has_no_others(ignored):
    asked_for = [each for each in samples(ignored).values() if HIDDEN in planned(each)]
    assert asked_for
    assert all(each.others == () for each in asked_for)


def test_as_labels_they_are_objects_of_the_sample(usual, labelled):
    before = samples(usual)
    for index, sample in with_hidden(labelled).items():
        assert sample.class_ids == (*before[index].class_ids, HIDDEN)
        assert sample.class_names[-1] == VOCABULARY[HIDDEN].name
        assert sample.instances == (*before[index].instances, *sample.others)
        labels = decode_label_map(sample.mask_bytes)
        [other] = sample.others
        assert (labels[decode_rle(other.rle, *labels.shape)] == HIDDEN + 1).all()


@pytest.mark.parametrize("kind", ["usual", "ignored", "labelled"])
def test_a_sample_counts_for_the_classes_of_its_labels_and_the_records_agree(kind, request):
    root = request.getfixturevalue(kind)
    own = Counter(each for sample in samples(root).values() for each in sample.class_ids)
    counted = Counter()
    for shard in Store.open(root).shards():
        counted.update({i: each.written for i, each in shard.commit.classes.items()})
    assert +counted == own
    assert verify_bytes(Store.open(root), 14) == []


def test_the_datasets_of_both_ways_differ_in_their_packing_alone(ignored, labelled):
    for stage in (Stage.PAIRS, Stage.MASKS, Stage.OTHERS):
        rows = [
            [
                row.model_copy(update={"key": ""})
                for piece in Store.open(root).commits(stage)
                for row in Store.open(root).rows(piece)
            ]
            for root in (ignored, labelled)
        ]
        assert sorted(rows[0], key=repr) == sorted(rows[1], key=repr)


def test_a_dataset_without_is_taken_over_and_only_looked_through(usual, ignored, tmp_path):
    models = make(tmp_path / "d", reuse=str(usual), **IGNORE)
    assert models.painter.painted == 0
    assert sum(models.scout.images.values()) == len(samples(usual))
    taken, made = samples(tmp_path / "d"), samples(ignored)
    assert {i: replace(each, key="") for i, each in taken.items()} == {
        i: replace(each, key="") for i, each in made.items()
    }


def test_each_image_is_looked_through_once_and_another_packing_looks_at_none(tmp_path):
    first = make(tmp_path / "d", **IGNORE)
    assert set(first.scout.images.values()) == {1}
    again = make(tmp_path / "d", **IGNORE)
    assert not again.scout.images
    assert not again.detector.asked
    wider = make(tmp_path / "e", reuse=str(tmp_path / "d"), **LABELS)
    assert not wider.scout.images
    assert not wider.detector.asked


@pytest.mark.parametrize("size", [1, 3, 24])
def test_batch_size_and_company_change_no_byte(ignored, tmp_path, size):
    make(tmp_path / "d", **IGNORE, batch_size=size, samples_per_shard=24)
    assert samples(tmp_path / "d") == samples(ignored)


def test_what_is_dropped_before_is_not_looked_through(tmp_path):
    """A class in the counterfactual drops a sample there; with `later` in the check."""
    changes = {"masks": {"min_area": 0.2, "max_area": 1.0}, **IGNORE}
    models = make(tmp_path / "d", **changes)
    store = Store.open(tmp_path / "d")
    rows = [row for shard in store.shards() for row in store.manifest(shard.commit)]
    fates = Counter(row.reason for row in rows)
    assert 0 < fates[Reason.MASK_TOO_SMALL] < SAMPLES
    assert sum(models.scout.images.values()) == SAMPLES - fates[Reason.MASK_TOO_SMALL]


def test_with_later_counterfactuals_only_images_that_passed_the_check_are_looked_through(tmp_path):
    class Seeing(Counting):
        """Sees a class in every fourth counterfactual, in which only noise is painted."""

        def detect(self, images, phrases):
            found = super().detect(images, phrases)
            for image, each in zip(images, found, strict=True):
                if len(each.scores) == 0 and int(image[0, 0, 0]) % 4 == 0:
                    each.best_scores[:] = 0.9
            return found

    models = make(tmp_path / "d", twins={"way": "later"}, **IGNORE)
    assert sum(models.scout.images.values()) == len(samples(tmp_path / "d"))
    assert with_hidden(tmp_path / "d")


def test_status_card_and_plan_tell_what_was_found(ignored, usual):
    hidden, name = len(with_hidden(ignored)), VOCABULARY[HIDDEN].name
    [part] = describe_status(str(ignored))["slices"]
    assert part["others"] == {name: hidden}
    assert list(part["under_way"]) == [
        s.value for s in Stage if s not in {Stage.TWINS, Stage.CHECKS}
    ]
    console = Console(record=True, width=200)
    print_status(describe_status(str(ignored)), console)
    assert f"not asked for: {name} {hidden}" in console.export_text()
    assert f"| {name} | {hidden} |" in render_card(Store.open(ignored))
    [part] = describe_status(str(usual))["slices"]
    assert part["others"] == {}
    assert "not asked for" not in render_card(Store.open(usual))
    plan = describe_plan(parameters(ignored, **IGNORE))
    assert (Stage.OTHERS, 2) in [(each.stage, each.committed) for each in plan.stages]


@pytest.mark.parametrize("kind", ["usual", "ignored", "labelled"])
def test_a_run_and_status_say_how_many_were_found_and_what_became_of_them(kind, request):
    root = request.getfixturevalue(kind)
    looked, hiding = len(samples(root)), len(with_hidden(root)) if kind != "usual" else 0
    word = {"ignored": "ignored", "labelled": "labelled"}.get(kind)
    expected = f"objects not asked for: {hiding} found in {hiding} of {looked} images: {hiding} "
    changes = {"usual": {}, "ignored": IGNORE, "labelled": LABELS}[kind]
    console = Console(record=True, width=200)
    generate_locally(parameters(root, **changes), console)  # finds itself done
    ended = console.export_text()
    print_status(describe_status(str(root)), console)
    for said in (ended, console.export_text()):
        assert (f"{expected}{word}\n" in said) is (kind != "usual")
        assert ("objects not asked for" in said) is (kind != "usual")
    run = open_run(parameters(root, **changes))
    assert (survey(run).tally.others is None) is (kind == "usual")
    [part] = describe_status(str(root))["slices"]
    counts = {"images": looked, "hiding": hiding, "ignored": 0, "labelled": 0}
    assert part["found_others"] == (None if word is None else counts | {word: hiding})


@pytest.mark.slow
def test_the_last_lines_of_a_run_say_what_was_found(run, tmp_path):
    root = tmp_path / "d"
    line = ("generate", "--root", root, "--samples", 8, "--set", "texts_per_class_set=1")
    code, said, err = run(*line, "--set", "others.way=ignore")
    assert code == 0, err
    [shard] = Store.open(root).shards()
    assert shard.commit.found_others.images == shard.samples
    assert f"objects not asked for: {shard.commit.found_others.words}\n" in said


def test_a_shard_of_which_a_part_was_asked_for_is_not_counted(ignored):
    shards = Store.open(ignored).shards()
    part = survey(open_run(parameters(ignored, samples=16, **IGNORE)))
    assert not part.todo
    assert part.tally.others == shards[0].commit.found_others


def test_none_found_is_said_too():
    assert OtherOutcomes(images=7).words == "none found in 7 images"
    some = OtherOutcomes(images=4, hiding=2, ignored=1, labelled=2)
    assert some.words == "3 found in 2 of 4 images: 1 ignored, 2 labelled"
    assert some + OtherOutcomes(images=3) == some.model_copy(update={"images": 7})


def test_a_merge_counts_what_its_sources_found(ignored, usual, tmp_path):
    merge_datasets([ignored, usual], tmp_path / "both")
    merged, own = (describe_status(str(root))["slices"] for root in (tmp_path / "both", ignored))
    assert [each["found_others"] for each in merged if each["others"]] == [own[0]["found_others"]]
    assert [each["others"] for each in merged if each["others"]] == [own[0]["others"]]


@pytest.mark.parametrize("way", ["ignore", "labels"])
@pytest.mark.parametrize("twins", ["paint", "later"])
def test_a_preview_shows_them(way, twins, tmp_path):
    wanted = parameters(
        tmp_path / "d", samples=6, others={"way": way}, twins={"way": twins}, texts_per_class_set=1
    )
    made = make_preview(wanted, tmp_path / "sheet.png", Fakes())
    name = VOCABULARY[HIDDEN].name
    assert {row.others for row in made.rows if name not in row.classes} == {(name,)}
    console = Console(record=True, width=200)
    print_preview(made, wanted, console)
    assert f"not asked for: {name}\n" in console.export_text()
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] > 3 * 3 * 192  # three columns of three pictures
        pixels = np.asarray(sheet)
    outlined = (pixels == class_colour(HIDDEN + 1)).all(axis=2)
    assert outlined.sum() > 100
    assert not (tmp_path / "d").exists()


def test_a_preview_of_samples_whose_objects_are_not_found_says_so(tmp_path):
    class Blind(Fakes):
        def __init__(self):
            super().__init__()
            self.fakes[Role.DETECTOR] = Blinded()

    class Blinded(FakeDetector):
        def detect(self, images, phrases):
            return super().detect([np.zeros_like(each) for each in images], phrases)

    wanted = parameters(tmp_path / "d", samples=2, **IGNORE)
    made = make_preview(wanted, tmp_path / "sheet.png", Blind())
    assert {(row.stage, row.reason) for row in made.rows} == {("detections", "class-not-found")}
    assert {row.others for row in made.rows} == {None}
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] < 3 * 3 * 192  # pairs alone: nothing was looked through


@pytest.mark.parametrize("kind", ["ignored", "labelled"])
def test_pictures_outline_them_and_chips_name_them(kind, request):
    root = request.getfixturevalue(kind)
    sample = next(iter(with_hidden(root).values()))
    [other] = sample.others
    labels = decode_label_map(sample.mask_bytes)
    mask = decode_rle(other.rle, *labels.shape)
    shown = Quadruplet.decode(sample).overlay[mask]
    assert (shown == class_colour(HIDDEN + 1)).all(axis=1).any()
    card = quadruplet_card(sample, 32, {HIDDEN: VOCABULARY[HIDDEN].name})
    unasked = [chip.name for chip in card.objects if not chip.asked]
    assert unasked == [VOCABULARY[HIDDEN].name]
    assert len(card.objects) == len(planned(sample)) + 1


def test_the_report_tells_what_was_found(ignored, usual, tmp_path):
    words = "Objects that nobody asked for"
    for root, told in ((ignored, True), (usual, False)):
        out = tmp_path / f"{told}.html"
        write_report(root, [], out)
        page = out.read_text(encoding="utf-8")
        assert (words in page) is told
        assert (f"{VOCABULARY[HIDDEN].name} {len(with_hidden(ignored))}" in page) is told


@pytest.mark.parametrize("others", [{}, {"way": "labels"}, {"way": "ignore", "nearest": 3}])
def test_a_dataset_is_not_gone_on_with_in_another_way(ignored, others):
    with pytest.raises(InputError, match="made with other settings"):
        describe_plan(parameters(ignored, others=others))


@pytest.mark.parametrize("kind", ["usual", "ignored", "labelled"])
def test_in_training_a_hidden_class_is_no_negative_and_may_be_a_label(kind, request):
    root = request.getfixturevalue(kind)
    files = SampleFiles(find_shards(str(root)), VOCABULARY)
    plan = BatchPlan(
        side=32,
        classes_per_image=len(VOCABULARY),
        negatives=NegativesConfig(),
        augmentation=AugmentationConfig(),
        padding=(0, 0, 0),
        seed=0,
    )
    batch = Batches(files, plan).batch(0, SAMPLES)
    teaching = [
        bool(active[names.tolist().index(HIDDEN)])
        for names, active in zip(batch.class_ids, batch.active, strict=True)
    ]
    own = sum(HIDDEN in sample.class_ids for sample in samples(root).values())
    assert sum(teaching) == {"usual": SAMPLES, "ignored": own, "labelled": SAMPLES}[kind]
    assert (own == SAMPLES) is (kind == "labelled")
