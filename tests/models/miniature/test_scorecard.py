"""How good the miniatures are: pairs, figures, and the page that says so."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from models.miniature import world
from models.miniature.scorecard import figures, page, pairs, students
from models.miniature.world import CLASSES
from models.protocols import PaintedPair, PairRequest
from storage.errors import InputError

WEIGHTS = Path(world.__file__).parent / "weights"


@pytest.mark.full
def test_the_painter_paints_what_it_is_asked_for_and_leaves_it_out_when_asked():
    painted = pairs.paint(WEIGHTS, pairs.orders(per_class=2, pairs=20, seed=23))
    found = figures.figures(painted)
    assert found["one_recognised"] >= 0.9
    assert found["two_recognised"] >= 0.6
    assert found["counterfactual_found"] <= 0.02
    assert found["background_psnr_median"] >= 25


def test_agreement_ignores_the_box_of_what_changed():
    image = np.full((64, 64, 3), 100, dtype=np.uint8)
    other = image.copy()
    other[20:40, 10:30] = 255
    level, share = figures.background_psnr(PaintedPair(image, other, False))
    assert level == 60
    assert share == pytest.approx(24 * 24 / 64**2)
    other[50:, 50:] += 20
    lower, _ = figures.background_psnr(PaintedPair(image, other, False))
    assert 20 < lower < 40


def test_a_picture_that_changed_everywhere_agrees_nowhere():
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    assert figures.background_psnr(PaintedPair(image, image + 200, False))[0] == 0


def test_orders_name_their_classes_in_the_text():
    for order in pairs.orders(per_class=2, pairs=10, seed=1):
        named = [word for word in order.request.text.split() if word in CLASSES]
        assert named == [CLASSES[class_id] for class_id in order.class_ids]
        assert "nothing" in order.request.counterfactual_text


@pytest.fixture
def opinion():
    """Three pairs: a bus seen as a bus, a bus seen as a cat, cat and bus both seen, cat left."""
    wanted = [((1,), "bus"), ((1,), "bus"), ((2, 1), "cat and bus")]
    orders = [pairs.Order(ids, PairRequest(text, "nothing", 0)) for ids, text in wanted]
    blank = np.zeros((64, 64, 3), dtype=np.uint8)
    chances = np.zeros((2, 3, len(CLASSES) + 1), dtype=np.float32)
    chances[0, 0, 1] = chances[0, 1, 2] = 0.9
    chances[0, 2, [1, 2]] = 0.8
    chances[1, 2, 2] = 0.7
    return pairs.Painted(orders, [PaintedPair(blank, blank, False)] * 3, *chances)


def test_the_figures_count_what_the_judge_sees(opinion):
    found = figures.figures(opinion)
    assert found["one_recognised"] == found["one_worst_class"] == 0.5
    assert found["two_recognised"] == 1
    assert found["counterfactual_found"] == pytest.approx(1 / 3)
    assert found["pairs_right"] == pytest.approx(1 / 3)
    assert figures.confusions(opinion) == {"bus taken for cat": 1}


def test_the_contact_sheet_shows_pairs_side_by_side(opinion):
    assert pairs.contact_sheet(opinion, columns=3, rows=1).size == (3 * 128, 64)


@pytest.fixture
def results(tmp_path):
    """What two seeds of students scored."""
    scores = {"student on generated": 30, "student on drawn": 40, "untrained": 10, "baseline": 80}
    rows = [
        {"seed": seed, "subject": subject, "split": split, "miou": miou + (split == "test")}
        for seed in (0, 1, "mean")
        for split in ("val", "test")
        for subject, miou in scores.items()
    ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"rows": rows}), encoding="utf-8")
    return path


def test_the_card_says_how_much_of_the_student_on_drawn_scenes_is_reached(results):
    found = students.read_students(results)
    assert found["seeds"] == 2
    assert found["share, val"] == 0.75
    assert found["share, test"] == pytest.approx(31 / 41)
    card = students.student_section(found)
    assert "| student on generated samples | 30.0 | 31.0 |" in card
    assert "reaches 75 % (val) and 76 % (test)" in card
    assert "asked for: 60 %" in card


def test_a_card_without_measured_students_is_refused_with_the_command_that_measures_them(tmp_path):
    with pytest.raises(InputError, match=r"run python -m benchmarks\.student_transfer first"):
        page.write(tmp_path / "card.md", WEIGHTS, tmp_path / "none.json")


def test_what_a_person_wrote_stays_on_the_page():
    first = page.renewed("", ["one", "two"])
    second = page.renewed("# By hand\n\n" + first, ["three"])
    assert second.startswith("# By hand\n\n<!--")
    assert second.endswith("-->\n\nthree\n")
    assert "one" not in second


def test_the_shipped_page_is_about_the_shipped_sheet():
    docs = Path(page.__file__).parents[3] / "docs"
    mark = hashlib.sha256((docs / "miniature.png").read_bytes()).hexdigest()[:8]
    by_hand, _, card = (docs / "miniature.md").read_text(encoding="utf-8").partition("<!--")
    assert f"`{mark}`" in by_hand
    assert f"`{mark}`" in card
