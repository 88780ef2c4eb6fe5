"""The files of a comparison of labellers say what was measured, and what was not."""

import json

import numpy as np
from PIL import Image

from evaluation.reports.comparison_files import (
    COMPARISON_JSON,
    COMPARISON_MARKDOWN,
    COMPARISON_PICTURE,
    comparison_grids,
    format_comparison,
    write_comparison,
)
from evaluation.reports.comparisons import Comparison, LabelledSet, TrainedSubject
from evaluation.reports.sheets import LabelledScene

SETS = tuple(
    LabelledSet(
        labeller=name,
        seed=seed,
        root=f"/data/{name}-{seed}",
        requested=10,
        written=written,
        dropped={"class-not-found": 10 - written} if written < 10 else {},
        common=written,
        agreement=agreement,
        exact=0.9 if seed == 0 else None,
        exact_two=None,
        seconds=0.25,
    )
    for name, written, agreement in (("grounded", 10, 1.0), ("<other>", 7, 0.8123))
    for seed in (0, 1)
)
LEARNED = {("grounded", 0): 0.5, ("grounded", 1): 0.6, ("<other>", 0): 0.4}
TRAINED = [
    TrainedSubject(
        labeller=name, seed=seed, subject="student", state="measured", scores={"voc val": score}
    )
    for (name, seed), score in LEARNED.items()
]
TRAINED.append(
    TrainedSubject(
        labeller="<other>", seed=1, subject="student", state="failed", error="it diverged"
    )
)
FOUND = Comparison(
    profile="miniature",
    labellers=("grounded", "<other>"),
    subjects=("student",),
    seeds=(0, 1),
    benchmarks=("voc val",),
    metrics={"voc val": "mIoU"},
    sets=SETS,
    trained=tuple(TRAINED),
    settings={},
    engine_version="0",
)


def test_tables_hold_each_seed_their_mean_and_spread():
    labels, learned, published = comparison_grids(FOUND)
    assert labels.rows[0][:6] == ("grounded", "0", "10 of 10", "none", "10", "100.0 %")
    assert labels.rows[2] == (
        "<other>", "0", "7 of 10", "class-not-found 3", "7", "81.2 %", "90.0 %", "-", "0.250",
    )  # fmt: skip
    assert learned.rows[0] == ("student", "grounded", "50.0, 60.0", "55.0 (7.1)")
    assert learned.rows[1] == ("student", "<other>", "40.0, failed", "40.0")
    assert ("Mask2Former (R50)", "PASCAL VOC", "57.4") in {row[:3] for row in published.rows}
    assert "failed: student on <other>, seed 1: it diverged" in format_comparison(FOUND)


def test_files_appear_with_the_picture_and_names_are_escaped(tmp_path):
    image = np.zeros((16, 16, 3), np.uint8)
    labels = np.zeros((16, 16), np.uint16)
    labels[4:8] = 3
    scenes = [LabelledScene(image, (labels, None), "a <cat>")] * 3
    page = write_comparison(FOUND, scenes, tmp_path).read_text(encoding="utf-8")
    assert "&lt;other&gt;" in page
    assert "<other>" not in page
    assert "data:image/png;base64," in page
    assert "http" not in page.replace("arxiv", "").split("<body>")[0]
    assert json.loads((tmp_path / COMPARISON_JSON).read_text())["profile"] == "miniature"
    assert (tmp_path / COMPARISON_MARKDOWN).read_text().startswith("### What each labeller")
    with Image.open(tmp_path / COMPARISON_PICTURE) as picture:
        assert picture.width > 3 * 128


def test_without_scenes_there_is_no_picture(tmp_path):
    page = write_comparison(FOUND, [], tmp_path).read_text(encoding="utf-8")
    assert "<img" not in page
    assert not (tmp_path / COMPARISON_PICTURE).exists()
