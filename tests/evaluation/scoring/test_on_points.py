"""Scores on single points, to values computed by hand and on drawn scenes."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.benchmarks.open_images import OpenImages
from evaluation.scoring.config import InferenceConfig, ScoringConfig
from evaluation.scoring.measured import read_measured
from evaluation.scoring.on_points import score_baseline_points, score_points, score_student_points
from evaluation.scoring.point_results import PointProtocol, PointScores
from evaluation.scoring.points import Aggregate, Binarise, Candidates
from evaluation.scoring.predictors import ClassScores
from evaluation.scoring.results import Subject, published_results
from models.labellers import build_labeller
from models.miniature.world import CLASSES, masks, render, sample_scene
from models.profiles import load_profile
from models.student.text_embeddings import TextEncoder
from models.student.zegclip import ZegClip
from storage.errors import DataError, InputError

SUBJECT = Subject(kind="student", name="the student", fingerprint="f" * 64)
HEADER = "ImageId,X,Y,Label,EstimatedYesNo"
POINT_RESULTS = ("OpenImages-V7", "p-mIoU")
LABELS = ("/m/a", "/m/b", "/m/c")

# Red is what the scorer says about class a, green about b, blue about c.
FIRST = [
    [(255, 26, 0), (204, 26, 0)],
    [(128, 26, 0), (51, 77, 255)],
]
SECOND = [[(0, 255, 128), (0, 51, 128)]]
POINTS = [
    # image, column, row, label, answer
    ("one", 0, 0, "/m/a", "yes"),
    ("one", 1, 0, "/m/a", "no"),
    ("one", 0, 1, "/m/a", "yes"),
    ("one", 1, 1, "/m/a", "yes"),
    ("one", 1, 1, "/m/b", "yes"),
    ("one", 0, 0, "/m/b", "no"),
    ("one", 1, 1, "/m/c", "no"),
    ("one", 0, 0, "/m/c", "unsure"),
    ("two", 0, 0, "/m/a", "no"),
    ("two", 0, 0, "/m/b", "yes"),
    ("two", 1, 0, "/m/b", "no"),
    ("two", 0, 0, "/m/c", "no"),
]


class Channels:
    """Says of class k what the image's k-th channel holds; keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[Sequence[int] | None] = []

    def class_scores(
        self, image: np.ndarray, candidates: Sequence[int] | None = None
    ) -> Iterator[ClassScores]:
        self.asked.append(candidates)
        wanted = (0, 1, 2) if candidates is None else tuple(candidates)
        for first in range(0, len(wanted), 2):
            own = wanted[first : first + 2]
            maps = torch.from_numpy(image[:, :, list(own)].copy()).permute(2, 0, 1)
            yield ClassScores(own, maps.float() / 255)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    pictures = {"one": np.array(FIRST, np.uint8), "two": np.array(SECOND, np.uint8)}
    lines = [
        f"{key},{(x + 0.5) / pictures[key].shape[1]},{(y + 0.5) / pictures[key].shape[0]},"
        f"{label},{answer}"
        for key, x, y, label, answer in POINTS
    ]
    return write(tmp_path / "points", pictures, lines, dict(zip(LABELS, "abc", strict=True)))


def write(
    root: Path, pictures: dict[str, np.ndarray], lines: list[str], names: dict[str, str]
) -> Path:
    """The official layout; the pictures are stored without loss."""
    (root / "validation").mkdir(parents=True)
    for key, pixels in pictures.items():
        Image.fromarray(pixels).save(root / "validation" / f"{key}.jpg", format="png")
    table = "\n".join([HEADER, *lines]) + "\n"
    (root / "oidv7-val-annotations-point-labels.csv").write_text(table)
    rows = ["LabelName,DisplayName", *(f"{label},{name}" for label, name in names.items())]
    (root / "oidv7-class-descriptions.csv").write_text("\n".join(rows) + "\n")
    return root


def run(root: Path, out: Path, *, scorer: Channels | None = None, **rules: object) -> PointScores:
    config = ScoringConfig.model_validate({"points": rules, "thresholds": (0.1, 0.5, 0.9)})
    benchmark = OpenImages(root, "val", None)
    protocol = PointProtocol(
        benchmark="open_images",
        split="val",
        num_images=len(benchmark),
        num_classes=len(benchmark.labels),
        **config.points.model_dump(),
        strict=False,
        scores="channels",
        text="none",
        view="whole",
        preset="",
        preset_changes=(),
        preset_omits=(),
    )
    return score_points(
        scorer or Channels(),
        benchmark,
        subject=SUBJECT,
        protocol=protocol,
        config=config,
        out=out,
    )


def averages(scores: PointScores) -> dict[tuple[Aggregate, bool], tuple[float | None, int]]:
    return {(a.aggregate, a.with_background): (a.p_miou, a.count) for a in scores.averages}


def counts(scores: PointScores) -> dict[str, list[int]]:
    return {c.name: [c.hits, c.alarms, c.misses, c.rejections] for c in scores.classes}


def test_only_classes_with_a_yes_are_asked_for_by_default(root: Path, tmp_path: Path) -> None:
    scorer = Channels()
    scores = run(root, tmp_path, scorer=scorer)
    assert scorer.asked == [[0, 1], [1]]
    # At 0.5: a in one 1 0.8 0.5 0.2 with yes no yes yes; b in one 0.3 (yes) 0.1, in two 1 (yes)
    # 0.2. The no of a in two is not asked for, c never is.
    assert counts(scores) == {"a": [2, 1, 1, 0], "b": [1, 0, 1, 2]}
    assert averages(scores) == {
        (Aggregate.CLASS, False): (pytest.approx((2 / 4 + 1 / 2) / 2), 2),
        (Aggregate.CLASS, True): (pytest.approx(((2 / 4 + 0) / 2 + (1 / 2 + 2 / 3) / 2) / 2), 2),
        (Aggregate.PAIR, False): (pytest.approx((2 / 4 + 0 + 1) / 3), 3),
        (Aggregate.PAIR, True): (pytest.approx(((2 / 4) / 2 + (1 / 2) / 2 + 1) / 3), 3),
    }
    assert scores.p_miou == pytest.approx(0.5)


def test_no_points_count_in_every_image_where_the_class_was_asked_for(
    root: Path, tmp_path: Path
) -> None:
    scorer = Channels()
    scores = run(root, tmp_path, scorer=scorer, candidates="asked")
    assert scorer.asked == [[0, 1, 2], [0, 1, 2]]
    # The blue of two is 128 / 255, just above 0.5; the unsure point of c counts nowhere.
    assert counts(scores) == {"a": [2, 1, 1, 1], "b": [1, 0, 1, 2], "c": [0, 2, 0, 0]}
    assert averages(scores)[Aggregate.CLASS, False] == (pytest.approx((1 / 2 + 1 / 2 + 0) / 3), 3)
    pairs = (2 / 4, 0, 0, 1, 0)  # a in two has no yes and is not predicted: no foreground
    assert averages(scores)[Aggregate.PAIR, False] == (pytest.approx(sum(pairs) / 5), 5)
    assert averages(scores)[Aggregate.PAIR, True][1] == 6


def test_the_whole_vocabulary_is_scored_and_counted_where_there_are_points(
    root: Path, tmp_path: Path
) -> None:
    scorer = Channels()
    scores = run(root, tmp_path / "all", scorer=scorer, candidates="vocabulary")
    asked = run(root, tmp_path / "asked", candidates="asked")
    assert scorer.asked == [None, None]
    assert scores.averages == asked.averages
    assert scores.protocol.candidates is Candidates.VOCABULARY


def test_maps_can_be_stretched_before_the_threshold(root: Path, tmp_path: Path) -> None:
    scores = run(root, tmp_path, binarise="min-max")
    # a in one: (v - 0.2) / 0.8 = 1 0.75 0.38 0; b in one: 0.3 becomes 1, b in two: 1 and 0.
    assert counts(scores) == {"a": [1, 1, 2, 0], "b": [2, 0, 0, 2]}
    assert scores.protocol.binarise is Binarise.MIN_MAX


def test_the_headline_is_the_way_that_was_asked_for(root: Path, tmp_path: Path) -> None:
    ways = averages(run(root, tmp_path))
    for (aggregate, with_background), (value, _) in ways.items():
        scores = run(root, tmp_path, aggregate=aggregate, with_background=with_background)
        assert scores.p_miou == value
        assert averages(scores) == ways


def test_the_threshold_moves_the_headline_along_the_curve(root: Path, tmp_path: Path) -> None:
    scores = run(root, tmp_path)
    low, middle, high = (point.p_miou for point in scores.curve)
    assert low == run(root, tmp_path, threshold=0.1).p_miou
    assert middle == scores.p_miou
    assert high == run(root, tmp_path, threshold=0.9).p_miou == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_answers_are_counted_with_those_left_out(root: Path, tmp_path: Path) -> None:
    answers = run(root, tmp_path).answers
    assert (answers.yes, answers.no, answers.unsure, answers.unnamed) == (5, 6, 1, 0)


def test_the_file_holds_the_whole_protocol(root: Path, tmp_path: Path) -> None:
    scores = run(root, tmp_path)
    written = json.loads((tmp_path / "scores-open_images-val-the-student.json").read_text())
    assert written["protocol"] == {
        "benchmark": "open_images",
        "split": "val",
        "num_images": 2,
        "coverage": "",
        "num_classes": 3,
        "candidates": "present",
        "binarise": "score",
        "threshold": 0.5,
        "strict": False,
        "aggregate": "class",
        "with_background": False,
        "scores": "channels",
        "text": "none",
        "view": "whole",
        "preset": "",
        "preset_changes": [],
        "preset_omits": [],
    }
    assert read_measured(tmp_path / scores.file_name) == scores


def test_published_numbers_on_points_are_those_of_the_point_metric(
    root: Path, tmp_path: Path
) -> None:
    rows = {(row.method, row.table): row.value for row in published_results(*POINT_RESULTS)}
    assert rows["MagicSeg", "III"] == 45.6
    assert rows["Grounding DINO + SAM [11;12]", "III"] == 53.3
    # Two images are not the split that they were measured on.
    assert run(root, tmp_path).published == ()


def test_a_split_in_which_no_point_counts_gives_no_number(root: Path, tmp_path: Path) -> None:
    table = root / "oidv7-val-annotations-point-labels.csv"
    table.write_text("\n".join([HEADER, "one,0.5,0.5,/m/a,no"]) + "\n")
    with pytest.raises(DataError, match="no point that counts with the candidates present"):
        run(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_images_stop_the_pass_before_the_first(root: Path, tmp_path: Path) -> None:
    (root / "validation" / "two.jpg").unlink()
    scorer = Channels()
    with pytest.raises(InputError, match=r"two\.jpg"):
        run(root, tmp_path, scorer=scorer)
    assert scorer.asked == []


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> OpenImages:
    """Scenes of one or two things, with points on and beside each thing."""
    rng = np.random.default_rng(5)
    pictures, lines = {}, []
    for index in range(24):
        key = f"{index:04x}"
        two = (index % len(CLASSES), (index + 3) % len(CLASSES))
        scene = sample_scene(rng, num_things=2, class_ids=two, hard=0.2)
        pictures[key] = render(scene)
        for thing, mask in zip(scene.things, masks(scene), strict=True):
            for answer, places in (("yes", mask), ("no", ~mask)):
                rows, columns = np.nonzero(places)
                for pick in rng.choice(len(rows), size=min(8, len(rows)), replace=False):
                    x, y = (columns[pick] + 0.5) / 64, (rows[pick] + 0.5) / 64
                    lines.append(f"{key},{x},{y},/m/{thing.class_id:02d},{answer}")
            lines.append(f"{key},0.5,0.5,/m/{thing.class_id:02d},unsure")
    names = {f"/m/{index:02d}": name for index, name in enumerate(CLASSES)}
    folder = write(tmp_path_factory.mktemp("drawn") / "points", pictures, lines, names)
    return OpenImages(folder, "val", None)


def test_the_shipped_baseline_finds_the_points_of_drawn_things(
    drawn: OpenImages, tmp_path: Path
) -> None:
    profile = load_profile("miniature")
    scores = score_baseline_points(
        build_labeller(profile.labeller),
        drawn,
        subject=SUBJECT.model_copy(update={"kind": "baseline", "name": "boxes"}),
        config=ScoringConfig(),
        out=tmp_path,
    )
    assert scores.p_miou > 0.8
    assert (scores.protocol.threshold, scores.protocol.strict) == (0, True)
    assert scores.answers.unsure == 48
    assert len(scores.classes) == len(CLASSES)
    # Nothing is found with certainty.
    assert scores.curve[-1].p_miou is not None
    assert scores.curve[-1].p_miou < scores.p_miou


def test_a_student_is_scored_by_the_same_code(drawn: OpenImages, tmp_path: Path) -> None:
    torch.manual_seed(0)
    profile = load_profile("miniature")
    student = ZegClip.from_config(profile.student)
    encoder = TextEncoder.load(profile.student.clip, profile.student.revision)

    def scored(threshold: float) -> PointScores:
        inference = InferenceConfig(short_side=64, window=None)
        config = ScoringConfig.model_validate(
            {"templates": "single", "inference": inference, "points": {"threshold": threshold}}
        )
        return score_student_points(
            student, encoder, drawn, subject=SUBJECT, config=config, out=tmp_path
        )

    # Everything is predicted, and half of the points are on their class.
    assert scored(0.0).p_miou == 0.5
    scores = scored(0.8)
    assert 0 < scores.p_miou < 0.5
    assert scored(0.8).averages == scores.averages
    assert scores.protocol.scores == "sigmoid of the logit"
    assert scores.protocol.text == "preferred names in the templates single"
