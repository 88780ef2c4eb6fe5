"""Whoever shows or uses masks sees those that people have corrected, and nobody the first ones."""

import ast
import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corrected import correct_to_block
from evaluation.reports.comparison_files import COMPARISON_JSON
from evaluation.reports.sheets import class_colour, write_sheet
from evaluation.scoring.config import ScoringConfig
from explorable import NAMES, add_shard, draw, drop, explorable
from explorable import key_of as explored
from flows.explorer.explorer import Explorer
from flows.labeller_comparison import ComparisonParameters, LabellerComparison, walk_comparison
from labelled_datasets import HEIGHT, VOCABULARY, WIDTH, commit_samples, key_of
from noisy_scenes import SLICE, commit_scenes
from recorded import generated
from runs import write_run
from storage.corrections import CORRECTIONS, read_corrections, undo_corrections
from storage.current_samples import CurrentSamples
from storage.documents import validate
from storage.errors import DataError
from storage.folds import Fold
from storage.shards import iterate
from storage.store import Store
from tasks.affinities import AffinityJob, RecordedSeeds
from tasks.folds import FoldJob, FoldJudging
from tasks.relabelling import Relabelling, RelabellingJob
from tasks.subjects import TrainedStudent

ROOT = Path(__file__).parents[2]
FIRST_MASKS = {
    "storage/corrections.py": "lays the corrections over them",
    "storage/exports/corrected_masks.py": "a correction names the digest of the first mask",
    "storage/merging.py": "copies tars as they are, and carries the corrections",
    "storage/verification.py": "compares the tars with what was made",
}
"""Who may read the masks of tars as they were made, and why."""


def block_map(block, class_id):
    return np.where(block, class_id + 1, 0).astype(np.uint16)


def test_nobody_else_reads_the_first_masks():
    readers = {("storage.shards", "iterate"), ("storage.labelled_images", "iterate_labelled")}
    packages = ("storage", "models", "training", "evaluation", "tasks", "flows", "examples")
    found = {
        file.relative_to(ROOT).as_posix()
        for package in packages
        for file in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        and readers & {(node.module, each.name) for each in node.names}
    }
    assert found == set(FIRST_MASKS)


def overlays_of(page):
    """The pictures of a page, decoded."""
    for data in re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page):
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            yield np.asarray(image.convert("RGB")).astype(int)


def test_the_report_shows_them_and_counts_them(tmp_path, type_line):
    store = commit_samples(tmp_path / "d", 1)
    page = tmp_path / "d.html"
    assert type_line("report", "--dataset", store.root, "--out", page)[0] == 0
    before = page.read_text(encoding="utf-8")
    assert f"masks of {VOCABULARY[0].name}, {VOCABULARY[3].name}" in before
    block = correct_to_block(store, key_of(0), VOCABULARY[9].name, tmp_path)
    assert type_line("report", "--dataset", store.root, "--out", page)[0] == 0
    after = page.read_text(encoding="utf-8")
    assert f"masks of {VOCABULARY[9].name}" in after
    assert f"masks of {VOCABULARY[0].name}, {VOCABULARY[3].name}" not in after
    assert "masks corrected by people" in after
    assert "masks corrected by people" not in before
    edge = block.copy()
    edge[3:6, 4:8] = False  # the outline is solid, in the class's colour; JPEG moves it little
    far = [
        np.abs(image[edge] - class_colour(10)).mean()
        for image in overlays_of(after)
        if image.shape == (HEIGHT, WIDTH, 3)
    ]
    assert min(far) < 12


@pytest.mark.parametrize("root", ["d", "memory://sheets"])
def test_a_contact_sheet_shows_them_until_they_are_undone(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = commit_samples(root, 1)
    first = write_sheet(root, tmp_path / "first.png", tile=20).read_bytes()
    correct_to_block(store, key_of(0), VOCABULARY[9].name, tmp_path)
    with Image.open(write_sheet(root, tmp_path / "now.png", tile=20)) as sheet:
        shown = np.asarray(sheet)
    left = 12 + 2 * (20 + 6)  # the third picture of the only cell; one pixel is one pixel
    overlay = shown[12 : 12 + HEIGHT, left : left + WIDTH]
    assert tuple(overlay[2, 3]) == tuple(overlay[6, 8]) == class_colour(10)  # corners of the block
    assert tuple(overlay[7, 9]) not in {class_colour(label) for label in range(1, 20)}
    undo_corrections(store, [key_of(0)], who="eve", why="was right")
    assert write_sheet(root, tmp_path / "undone.png", tile=20).read_bytes() == first


def test_a_correction_for_other_pictures_stops_them(tmp_path, refused_by):
    store = commit_samples(tmp_path / "d", 1)
    correct_to_block(store, key_of(0), VOCABULARY[9].name, tmp_path)
    (line,) = read_corrections(store.objects)
    CORRECTIONS.append(store.objects, [line.model_copy(update={"image_sha256": "0" * 64})])
    for read in (
        lambda: write_sheet(store.root, tmp_path / "s.png"),
        lambda: list(CurrentSamples(store)),
        lambda: [CurrentSamples(store).rows(shard) for shard in store.shards()],
        lambda: [CurrentSamples(store).classes(shard) for shard in store.shards()],
    ):
        refused_by(read)


@pytest.fixture
def refused_by():
    def check(read):
        with pytest.raises(DataError, match=r"made for other pictures.*corrections undo"):
            read()

    return check


def test_a_ranking_trusts_them_and_shows_them(tmp_path, type_line):
    store = commit_samples(tmp_path / "d", 2)
    block = correct_to_block(store, key_of(1), VOCABULARY[9].name, tmp_path)
    out = tmp_path / "rank"
    assert type_line("rank", store.root, "--out", out)[0] == 0
    ranked = json.loads((out / "rank.json").read_text())["samples"]
    assert [each["key"] for each in ranked] == [key_of(0), key_of(1)]
    assert ranked[0]["values"]["box"] == 0.5  # the detector's lowest
    assert (ranked[1]["values"]["box"], ranked[1]["values"]["iou"]) == (1.0, 1.0)
    assert ranked[1]["class_names"] == [VOCABULARY[9].name]
    with Image.open(out / "sheet.png") as sheet:
        tiles = np.asarray(sheet)
    solid = np.array([(tiles == class_colour(label)).all(2).any() for label in (10, 2)])
    assert solid.tolist() == [True, False]  # the block, and not the first mask's class
    (shard,) = store.shards()
    row = CurrentSamples(store).rows(shard)[1]
    assert (row.mask_class_ids, row.mask_areas) == ((9,), (int(block.sum()),)) == ((9,), (30,))
    assert row.mask_sha256 == store.manifest(shard.commit)[1].mask_sha256


def test_students_are_asked_about_them_and_asked_again(tmp_path, type_line):
    store = commit_scenes(tmp_path / "d", [2])
    run, out = write_run(tmp_path / "run"), tmp_path / "rank"
    line = ("rank", store.root, "--run", run, "--out", out)
    assert type_line(*line)[0] == 0
    (judged,) = (out / "judged").glob("*.json")
    # a class that no other sample has
    correct_to_block(store, f"{SLICE}00000001", VOCABULARY[9].name, tmp_path)
    code, said = type_line(*line)
    assert code == 0, said
    (again,) = set((out / "judged").glob("*.json")) - {judged}
    classes = {
        key: set(each["classes"]) for key, each in json.loads(again.read_text())["samples"].items()
    }
    assert classes == {f"{SLICE}00000000": {"0"}, f"{SLICE}00000001": {"9"}}


def test_noise_learning_and_self_training_read_them(tmp_path):
    store = commit_scenes(tmp_path / "d", [2])
    run = str(write_run(tmp_path / "run"))
    key = f"{SLICE}00000001"
    correct_to_block(store, key, VOCABULARY[9].name, tmp_path)
    number = next(n for n in range(2) if Fold(number=n, of=2).has(key))
    judging = FoldJob(
        dataset=store.root,
        vocabulary="miniature",
        fold=Fold(number=number, of=2),
        subject=TrainedStudent(run=run),
        scoring=ScoringConfig(),
        out=str(tmp_path / "fold"),
        device="cpu",
    )
    assert set(FoldJudging(judging).work().samples[key].classes) == {9}
    everything = {"templates": "single", "inference": {"background": "none", "window": None}}
    relabelling = RelabellingJob(
        dataset=store.root,
        vocabulary="miniature",
        run=run,
        scoring=ScoringConfig.model_validate(everything),
        out=str(tmp_path / "relabelled"),
        device="cpu",
    )
    (tar,) = Relabelling(relabelling).work().glob("*.tar")
    assert {each.key: each.class_ids for each in iterate(tar)}[key] == (9,)


OTHER = {
    "kind": "diffumask",
    "cross_resolutions": {4: 1.0, 8: 1.0},
    "detector": {"kind": "grounding-dino", "model": "weights:detector"},
}


def test_a_comparison_of_labellers_holds_them_against_each_other(tmp_path):
    document = {
        "out": str(tmp_path / "out"),
        "labellers": {"first": None, "second": OTHER},
        "generation": {"samples": 2, "samples_per_shard": 2},
        "student": False,
        "seeds": [0],
    }
    comparison = LabellerComparison(validate(ComparisonParameters, document, "parameters"))

    def generate(parameters):
        if not Path(parameters.root).exists():
            commit_samples(parameters.root, 2)

    def never(_):
        raise AssertionError

    walk_comparison(comparison, generate, never, never)
    second = Store.open(comparison.datasets["second", 0].root)
    correct_to_block(second, key_of(1), VOCABULARY[9].name, tmp_path)
    walk_comparison(comparison, generate, never, never)
    found = json.loads((tmp_path / "out" / COMPARISON_JSON).read_text())
    # two classes of the first picture are alike, the block's class is nowhere in the other mask
    assert [each["agreement"] for each in found["sets"]] == [1.0, pytest.approx(2 / 3)]


def test_affinities_learn_from_them_in_place_of_seeds(tmp_path):
    root = tmp_path / "dataset"
    samples, _ = generated(root, pairs={"record": {"cross": [8], "cells": None}})
    store, sample = Store.open(root), samples[min(samples)]
    name = next(each.name for each in VOCABULARY if each.class_id not in sample.class_ids)
    class_id = VOCABULARY.by_name(name).class_id

    def read(**changes):
        job = {"dataset": str(root), "out": str(tmp_path / "out"), "cross_resolutions": {8: 1.0}}
        return RecordedSeeds(AffinityJob.model_validate(job | changes))

    before = read()
    block = correct_to_block(store, sample.key, name, tmp_path)
    after = read()
    assert len(after) >= len(before)
    assert before.identity().items() < after.identity().items() or (
        len(after) > len(before) and "corrections" in after.identity()
    )
    seeds = [after[number].labels for number in range(len(after))]
    assert sum((each == block_map(block, class_id)).all() for each in seeds) == 1
    assert name in after.classes
    (own,) = [
        each
        for item in (read(classes=(name,)),)
        for each in (item[number].labels for number in range(len(item)))
        if (each == block_map(block, class_id)).all()
    ]
    assert own.shape == block.shape


def test_the_explorer_finds_lists_and_draws_them(tmp_path):
    store = explorable(tmp_path / "d")
    add_shard(store, 0, [draw(place) for place in range(3)], drop(3))
    page = Explorer(store)
    page.refresh()
    [before] = page.facts([explored(1)])
    boat = VOCABULARY.by_name("boat").class_id
    block = correct_to_block(store, explored(1), "boat", tmp_path, rows=(8, 40), columns=(4, 20))
    described = page.sample(explored(1))
    assert [(each["id"], each["area"]) for each in described["classes_in_full"]] == [(boat, 512)]
    assert [each["xyxy"] for each in described["objects"]] == [(4.0, 8.0, 20.0, 40.0)]
    assert [each["act"] for each in described["history"]] == ["correct"]
    assert "objects" not in described["history"][0]
    with Image.open(io.BytesIO(page.mask(explored(1), str(boat)))) as mask:
        assert (np.asarray(mask)[..., 3].astype(bool) == block).all()
    with Image.open(io.BytesIO(page.mask(explored(1), "1"))) as mask:
        assert not np.asarray(mask)[..., 3].any()  # its first class
    asked = page.find(json.dumps({"classes": [boat]}), 0, 9)
    assert [each["key"] for each in asked["samples"]] == [explored(1)]
    (facts,) = asked["samples"]
    assert facts["classes"] == ["boat"]
    assert facts["measures"] == {"score": 1.0, "iou": 1.0, "area": 512 / 64**2, "objects": 1.0}
    assert facts["version"] != before["version"]  # so that browsers ask for the mask again
    others = page.find("{}", 0, 9)["samples"]
    assert [each["classes"] for each in others] == [
        [NAMES[0]], ["boat"], [NAMES[2]], [NAMES[3]],
    ]  # fmt: skip
    undo_corrections(store, [explored(1)], who="eve", why="was right")
    page.refresh()
    assert page.facts([explored(1)]) == [before]


def test_the_explorer_tells_of_a_correction_for_other_pictures(tmp_path):
    store = explorable(tmp_path / "d")
    add_shard(store, 0, [draw(0)])
    page = Explorer(store)
    page.refresh()
    mask = page.mask(explored(0), "0")
    correct_to_block(store, explored(0), "boat", tmp_path)
    (line,) = read_corrections(store.objects)
    CORRECTIONS.append(store.objects, [line.model_copy(update={"mask_sha256": "0" * 64})])
    (note,) = page.sample(explored(0))["notes"]
    assert "made for other pictures" in note
    assert "magicseg corrections undo" in note
    assert page.mask(explored(0), "0") == mask
