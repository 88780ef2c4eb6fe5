"""The shipped painter and judge are what their scripts make, and as good as their records say."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.miniature import judge, painter, scorecard, vae, world
from models.miniature.world import CLASSES
from models.protocols import PaintedPair, PairRequest
from storage.errors import InputError

WEIGHTS = Path(world.__file__).parent / "weights"


def record(name):
    return json.loads((WEIGHTS / name / "training.json").read_text(encoding="utf-8"))


def config(module, name):
    values = record(name)["config"]
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return module.Config(**values | lists)


def losses(step, seed, count):
    """The losses of the first steps, torch seeded for each as the loop does."""
    found = []
    for index in range(count):
        torch.manual_seed(seed * 1_000_003 + index)
        found.append(step(index)["loss"])
    return found


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_shipped_configs_are_the_defaults_of_the_scripts():
    assert config(painter, "painter") == painter.Config()
    assert config(judge, "judge") == judge.Config()
    assert config(vae, "painter/vae") == vae.Config()


def test_the_judge_scores_as_recorded():
    metrics = judge.score(WEIGHTS / "judge", 600, seed=0)
    assert metrics == pytest.approx(record("judge")["metrics"], abs=0.01)
    assert metrics["accuracy"] > 0.98


def test_the_autoencoder_scores_as_recorded():
    network = vae.AutoencoderKL.from_pretrained(WEIGHTS / "painter" / "vae").eval()
    assert vae.psnr(network) == pytest.approx(record("painter/vae")["metrics"]["psnr"], abs=0.1)


def test_the_scripts_repeat_the_first_losses_of_the_shipped_autoencoder():
    _, _, step = vae.task(vae.Config())
    found = losses(step, vae.Config().seed, 20)
    assert found == pytest.approx(record("painter/vae")["first_losses"], rel=0.03)


def test_the_scripts_repeat_the_first_losses_of_the_shipped_judge():
    _, step = judge.task(judge.Config(), WEIGHTS / "judge")
    found = losses(step, judge.Config().seed, 20)
    assert found == pytest.approx(record("judge")["first_losses"], rel=0.03)


@pytest.mark.slow
def test_the_scripts_repeat_the_first_losses_of_the_shipped_painter(tmp_path):
    own = painter.Config()
    _, step = painter.task(own, WEIGHTS / "painter", tmp_path)
    found = losses(step, own.seed, 20)
    assert found == pytest.approx(record("painter")["first_losses"], rel=0.03)


@pytest.mark.slow
def test_the_painter_paints_what_it_is_asked_for_and_leaves_it_out_when_asked():
    painted = scorecard.paint(WEIGHTS, scorecard.orders(per_class=2, pairs=20, seed=23))
    figures = scorecard.figures(painted)
    assert figures["one_recognised"] >= 0.9
    assert figures["two_recognised"] >= 0.6
    assert figures["counterfactual_found"] <= 0.02
    assert figures["background_psnr_median"] >= 25


def test_agreement_ignores_the_box_of_what_changed():
    image = np.full((64, 64, 3), 100, dtype=np.uint8)
    other = image.copy()
    other[20:40, 10:30] = 255
    level, share = scorecard.background_psnr(PaintedPair(image, other, False))
    assert level == 60
    assert share == pytest.approx(24 * 24 / 64**2)
    other[50:, 50:] += 20
    lower, _ = scorecard.background_psnr(PaintedPair(image, other, False))
    assert 20 < lower < 40


def test_a_picture_that_changed_everywhere_agrees_nowhere():
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    assert scorecard.background_psnr(PaintedPair(image, image + 200, False))[0] == 0


def test_orders_name_their_classes_in_the_text():
    for order in scorecard.orders(per_class=2, pairs=10, seed=1):
        named = [word for word in order.request.text.split() if word in CLASSES]
        assert named == [CLASSES[class_id] for class_id in order.class_ids]
        assert "nothing" in order.request.counterfactual_text


@pytest.fixture
def opinion():
    """Three pairs: a bus seen as a bus, a bus seen as a cat, cat and bus both seen, cat left."""
    wanted = [((1,), "bus"), ((1,), "bus"), ((2, 1), "cat and bus")]
    orders = [scorecard.Order(ids, PairRequest(text, "nothing", 0)) for ids, text in wanted]
    blank = np.zeros((64, 64, 3), dtype=np.uint8)
    chances = np.zeros((2, 3, len(CLASSES) + 1), dtype=np.float32)
    chances[0, 0, 1] = chances[0, 1, 2] = 0.9
    chances[0, 2, [1, 2]] = 0.8
    chances[1, 2, 2] = 0.7
    return scorecard.Painted(orders, [PaintedPair(blank, blank, False)] * 3, *chances)


def test_the_figures_count_what_the_judge_sees(opinion):
    figures = scorecard.figures(opinion)
    assert figures["one_recognised"] == figures["one_worst_class"] == 0.5
    assert figures["two_recognised"] == 1
    assert figures["counterfactual_found"] == pytest.approx(1 / 3)
    assert figures["pairs_right"] == pytest.approx(1 / 3)
    assert scorecard.confusions(opinion) == {"bus taken for cat": 1}


def test_the_contact_sheet_shows_pairs_side_by_side(opinion):
    assert scorecard.contact_sheet(opinion, columns=3, rows=1).size == (3 * 128, 64)


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
    found = scorecard.students(results)
    assert found["seeds"] == 2
    assert found["share, val"] == 0.75
    assert found["share, test"] == pytest.approx(31 / 41)
    card = scorecard._student_card(found)
    assert "| student on generated samples | 30.0 | 31.0 |" in card
    assert "reaches 75 % (val) and 76 % (test)" in card
    assert "asked for: 60 %" in card


def test_a_card_without_measured_students_is_refused_with_the_command_that_measures_them(tmp_path):
    with pytest.raises(InputError, match=r"run python -m benchmarks\.student_transfer first"):
        scorecard.write(tmp_path / "card.md", WEIGHTS, tmp_path / "none.json")


def test_what_a_person_wrote_stays_on_the_page():
    first = scorecard.renewed("", ["one", "two"])
    second = scorecard.renewed("# By hand\n\n" + first, ["three"])
    assert second.startswith("# By hand\n\n<!--")
    assert second.endswith("-->\n\nthree\n")
    assert "one" not in second


def test_the_shipped_page_is_about_the_shipped_sheet():
    docs = Path(scorecard.__file__).parents[2] / "docs"
    mark = hashlib.sha256((docs / "miniature.png").read_bytes()).hexdigest()[:8]
    by_hand, _, card = (docs / "miniature.md").read_text(encoding="utf-8").partition("<!--")
    assert f"`{mark}`" in by_hand
    assert f"`{mark}`" in card
