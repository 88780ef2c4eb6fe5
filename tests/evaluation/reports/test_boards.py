"""Boards at the size of LVIS, and scores under several protocols side by side."""

from pathlib import Path
from typing import Literal

import pytest

from evaluation.reports.boards import Board, Scored, make_boards
from evaluation.reports.page import MAX_PAGE_BYTES, write_report
from evaluation.reports.tiles import score_tiles
from evaluation.scoring.config import Background
from evaluation.scoring.presets import load_preset
from evaluation.scoring.results import (
    ClassScore,
    CurvePoint,
    GroupScore,
    ScoreProtocol,
    Scores,
    Subject,
    write_scores,
)
from storage.class_sets import load_benchmark

NAMES = ("background", *load_benchmark("lvis").names)


def scores_of(
    kind: Literal["student", "baseline"] = "student",
    *,
    seed: int = 0,
    rule: Background = Background.RAW,
    preset: str = "",
    changes: tuple[str, ...] = (),
    scale: float = 1.0,
) -> Scores:
    protocol = ScoreProtocol(
        benchmark="lvis",
        split="val",
        num_images=4809,
        truth="small objects on top",
        class_names=NAMES,
        background=True,
        background_rule=rule,
        threshold=0.35,
        text="preferred names in the templates single",
        view="short side 448",
        preset=preset,
        preset_changes=changes,
        preset_omits=load_preset(preset).omits if preset else (),
    )
    classes = tuple(
        ClassScore(name=name, iou=None if i % 7 == 3 else scale * i / 1300, true_pixels=i)
        for i, name in enumerate(NAMES)
    )
    return Scores(
        subject=Subject(kind=kind, name=kind, fingerprint=f"{seed}" * 8),
        protocol=protocol,
        miou=0.1 * scale,
        foreground_miou=0.09 * scale,
        pixel_accuracy=0.5,
        classes=classes,
        groups=(
            GroupScore(name="rare", num_classes=300 + seed, miou=0.02 * scale),
            GroupScore(name="common", num_classes=400, miou=0.05 * scale),
            GroupScore(name="frequent", num_classes=0, miou=None),
        ),
        curve=(CurvePoint(threshold=0.35, miou=0.1, pixel_accuracy=0.5),),
        published=(),
        examples=(),
        seconds=12.0,
        created="2026-01-01T00:00:00+00:00",
        engine_version="0.1.0",
    )


def boards_of(*scores: Scores) -> list[Board]:
    return make_boards([Scored(each, Path()) for each in scores])


def test_of_many_classes_the_best_and_the_worst_are_shown_and_all_are_listed() -> None:
    [board] = boards_of(scores_of())
    assert len(board.classes) == 40
    ious = [row.ious[0] or 0.0 for row in board.classes]
    assert ious == sorted(ious, reverse=True)
    assert [row.name for row in board.all_classes] == list(NAMES)
    assert "The 20 best and the 20 worst" in board.classes_note


def test_groups_stand_with_the_number_of_their_classes() -> None:
    [board] = boards_of(scores_of(seed=0), scores_of(seed=2), scores_of("baseline", scale=2))
    rows = {row.name: row.mious for row in board.groups}
    assert rows == {
        "rare": ["2.0 (300 to 302)", "4.0 (300)"],
        "common": ["5.0 (400)", "10.0 (400)"],
        "frequent": ["-", "-"],
    }


def test_scores_under_two_protocols_are_never_averaged() -> None:
    [board] = boards_of(
        scores_of(seed=0),
        scores_of(seed=1),
        scores_of(rule=Background.GROUPVIT, preset="pgseg", changes=("templates a instead of b",)),
    )
    assert board.series == [
        "trained student, mean of 2, raw 0.35",
        "trained student, pgseg (changed: templates a instead of b)",
    ]
    assert [row.name for row in board.rows].count("mean and deviation of 2") == 1


def test_a_missing_foreground_is_left_out_of_the_mean() -> None:
    missing = scores_of(seed=2).model_copy(update={"foreground_miou": None})
    [board] = boards_of(scores_of(seed=0), scores_of(seed=1, scale=2), missing)
    [mean] = [row for row in board.rows if row.name.startswith("mean")]
    assert mean.foreground == "13.5 \u00b1 6.4 (of 2)"
    assert mean.miou == "13.3 \u00b1 5.8"
    [board] = boards_of(missing, missing_of(seed=3))
    assert board.rows[-1].foreground == "-"


def missing_of(seed: int) -> Scores:
    return scores_of(seed=seed).model_copy(update={"foreground_miou": None})


def with_details(scores: Scores, **details: str) -> Scores:
    subject = scores.subject.model_copy(update={"details": details})
    return scores.model_copy(update={"subject": subject})


def test_students_of_other_recipes_are_no_seeds_of_each_other() -> None:
    """Other steps are another recipe; so are other weights of the same seed."""
    [board] = boards_of(
        with_details(scores_of(seed=0), steps="10", seed="0"),
        with_details(scores_of(seed=1), steps="10", seed="1"),
        with_details(scores_of(seed=2), steps="20", seed="0"),
    )
    assert board.series == ["trained student, mean of 2, steps 10", "trained student, steps 20"]
    [board] = boards_of(
        with_details(scores_of(seed=0), steps="10", seed="0"),
        with_details(scores_of(seed=1), steps="10", seed="0"),
    )
    assert board.series == [
        "trained student, weights 00000000",
        "trained student, weights 11111111",
    ]
    assert [row.name for row in board.rows] == ["student", "student"]


def test_of_one_measurement_the_newest_counts() -> None:
    old = scores_of(scale=2.0).model_copy(update={"created": "2025-12-31T00:00:00+00:00"})
    for scores in ([old, scores_of()], [scores_of(), old]):
        [board] = boards_of(*scores)
        assert [row.miou for row in board.rows] == ["10.0"]


def test_scores_of_other_classes_make_a_board_of_their_own() -> None:
    other = scores_of(seed=1)
    protocol = other.protocol.model_copy(update={"class_names": (*NAMES[:-1], "zebra crossing")})
    assert len(boards_of(scores_of(), other.model_copy(update={"protocol": protocol}))) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": "test"}, "split test"),
        ({"text": "official names"}, "official names"),
        ({"view": "whole image"}, "whole image"),
        ({"threshold": 0.5}, "raw 0.5"),
    ],
)
def test_what_differs_between_two_protocols_is_said_in_the_tiles(
    changes: dict[str, object], words: str
) -> None:
    other = scores_of(seed=1)
    protocol = other.protocol.model_copy(update=changes)
    tiles = score_tiles([scores_of(), other.model_copy(update={"protocol": protocol})])
    assert [tile.value for tile in tiles] == ["10.0", "10.0"]
    assert tiles[1].label == f"mIoU on lvis, trained, {words}"


def test_a_preset_stands_with_what_was_changed_and_what_it_omits() -> None:
    changes = ("templates a instead of b",)
    [board] = boards_of(scores_of(rule=Background.GROUPVIT, preset="pgseg", changes=changes))
    assert "preset pgseg (changed: templates a instead of b)" in board.rows[0].protocol
    [note] = board.presets
    assert note.startswith("Preset pgseg differs from the original: ")
    assert "the student has no groups" in note


@pytest.mark.parametrize("rule", list(Background))
def test_every_background_rule_is_said_in_words(rule: Background) -> None:
    [board] = boards_of(scores_of(rule=rule))
    assert "background" in board.rows[0].protocol
    assert ("0.35" in board.rows[0].protocol) == (rule is not Background.NONE)


def test_the_page_and_the_file_of_lvis_stay_small(tmp_path: Path) -> None:
    run = tmp_path / "run"
    path = write_scores(scores_of(), run)
    write_scores(scores_of("baseline"), run)
    assert path.stat().st_size < 500_000
    page = write_report(None, [run], tmp_path / "page.html")
    assert page.stat().st_size < MAX_PAGE_BYTES / 5
    text = page.read_text(encoding="utf-8")
    assert "All 1,204 classes" in text
    assert text.count("zucchini") >= 1
    assert "group of classes" in text
