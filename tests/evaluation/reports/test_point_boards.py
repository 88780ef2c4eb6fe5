"""Point scores beside each other, and on the page."""

import re
from pathlib import Path

import pytest

from evaluation.reports.page import write_report
from evaluation.reports.point_boards import make_point_boards
from evaluation.scoring.point_results import (
    AnswerCounts,
    PointAverage,
    PointClass,
    PointCurvePoint,
    PointProtocol,
    PointScores,
)
from evaluation.scoring.points import Aggregate, Binarise, Candidates
from evaluation.scoring.results import PublishedResult, Subject, write_record


def made(
    kind: str = "student",
    name: str = "seed 0",
    value: float = 0.5,
    weights: str = "f" * 64,
    **changes: object,
) -> PointScores:
    """Scores whose four averages are the value and 0.1, 0.2 and 0.3 less."""
    protocol = {
        "benchmark": "open_images",
        "split": "val",
        "num_images": 1234,
        "num_classes": 3,
        "candidates": Candidates.PRESENT,
        "binarise": Binarise.SCORE,
        "threshold": 0.5,
        "strict": False,
        "aggregate": Aggregate.CLASS,
        "with_background": False,
        "scores": "sigmoid of the logit",
        "text": "preferred names in the templates single",
        "view": "whole image",
        "preset": "",
        "preset_changes": (),
        "preset_omits": (),
    }
    ways = [(aggregate, both) for aggregate in Aggregate for both in (False, True)]
    return PointScores(
        subject=Subject.model_validate({"kind": kind, "name": name, "fingerprint": weights}),
        protocol=PointProtocol.model_validate(protocol | changes),
        p_miou=value,
        averages=tuple(
            PointAverage(aggregate=a, with_background=b, p_miou=value - 0.1 * index, count=3)
            for index, (a, b) in enumerate(ways)
        ),
        classes=tuple(
            PointClass(
                label=f"/m/{each}", name=each, iou=iou, hits=1, alarms=1, misses=0, rejections=2
            )
            for each, iou in (("Cat", value), ("Bus", 0.1), ("Elf", None))
        ),
        answers=AnswerCounts(yes=2000, no=3000, unsure=40, unnamed=5),
        curve=(
            PointCurvePoint(threshold=0.5, p_miou=value),
            PointCurvePoint(threshold=0.9, p_miou=None),
        ),
        published=(
            PublishedResult(table="III", method="MagicSeg", value=45.6, notes="points <1>"),
        ),
        seconds=2.0,
        created="2026-01-01T00:00:00+00:00",
        engine_version="0.1.0",
    )


def test_a_number_stands_with_its_whole_protocol() -> None:
    [board] = make_point_boards([made()])
    [row] = board.rows
    assert (row.name, row.kind, row.p_miou) == ("seed 0", "student", "50.0")
    assert row.averages == ["50.0", "40.0", "30.0", "20.0"]
    assert board.ways == [
        "classes, foreground",
        "classes, foreground and background",
        "pairs, foreground",
        "pairs, foreground and background",
    ]
    assert row.protocol == (
        "mean over classes, foreground IoU; predicted where the score is >= 0.5; score: sigmoid "
        "of the logit; preferred names in the templates single; whole image; weights "
        "ffffffffffff...; 2.0 s"
    )
    assert "1,234 images, 2,000 yes and 3,000 no about 3 classes; 40 unsure and 5" in board.note
    assert "classes with a yes in it" in board.note


def test_every_rule_is_said() -> None:
    changes = {
        "binarise": Binarise.MIN_MAX,
        "threshold": 0.25,
        "strict": True,
        "aggregate": Aggregate.PAIR,
        "with_background": True,
        "preset": "some",
        "preset_changes": ("names official instead of preferred",),
        "preset_omits": ("its windows",),
    }
    [board] = make_point_boards([made(candidates=Candidates.ASKED, **changes)])
    assert board.rows[0].protocol.startswith(
        "mean over pairs, foreground and background IoU; predicted where the score, stretched to "
        "[0, 1] over the image, is > 0.25;"
    )
    assert "preset some, changed: names official instead of preferred" in board.rows[0].protocol
    assert "without: its windows" in board.rows[0].protocol
    assert "classes with a yes or a no in it" in board.note


def test_points_under_two_protocols_and_two_baselines_are_never_averaged() -> None:
    [board] = make_point_boards(
        [
            made(value=0.5),
            made(name="seed 1", value=0.7, weights="e" * 64, threshold=0.25),
            made("baseline", "boxes", 0.9),
            made("baseline", "frames", 0.1, weights="d" * 64),
        ]
    )
    assert not any("mean" in row.name for row in board.rows)
    assert board.series == [
        "trained student, the score is >= 0.5",
        "trained student, the score is >= 0.25",
        "boxes",
        "frames",
    ]
    assert str(board.curve).count("in use: ") == 2


def test_several_of_a_kind_get_their_mean() -> None:
    [board] = make_point_boards(
        [
            made(value=0.5),
            made(name="seed 1", value=0.7, weights="e" * 64),
            made("baseline", "boxes", 0.9),
        ]
    )
    assert [row.name for row in board.rows] == [
        "seed 0",
        "seed 1",
        "mean and deviation of 2",
        "boxes",
    ]
    assert board.rows[2].p_miou == "60.0 \u00b1 14.1"
    assert board.series == ["trained student, mean of 2", "boxes"]
    # The class without an IoU is not shown; the others come best first.
    assert [row.name for row in board.classes] == ["Cat", "Bus"]
    assert board.classes[0].ious == [pytest.approx(0.6), 0.9]


def test_scores_that_ask_for_other_classes_have_a_board_of_their_own() -> None:
    boards = make_point_boards([made(), made(candidates=Candidates.VOCABULARY)])
    assert len(boards) == 2
    assert "all classes, counted where" in boards[1].note


def test_the_page_shows_points_beside_published_numbers(tmp_path: Path) -> None:
    for scores in (made(), made("untrained", "before training", 0.2)):
        write_record(scores, tmp_path / "run" / scores.file_name)
    text = write_report(None, [tmp_path / "run"], tmp_path / "r.html").read_text()
    words = " ".join(re.sub(r"<[^>]*>", " ", text).split())
    assert "open_images, val, points" in words
    assert "before training untrained 20.0 20.0 10.0" in words
    assert "MagicSeg published, not measured here 45.6" in words
    assert "points &lt;1&gt;" in words
    assert 'title="trained student: 50.0"' in text
