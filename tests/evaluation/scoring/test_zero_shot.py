"""Seen and unseen classes: means from one confusion, the offset of seen classes, the report."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.benchmarks.contract import BenchmarkConfig, BenchmarkSample
from evaluation.reports.boards import Scored, make_boards
from evaluation.reports.page import format_report, write_report
from evaluation.scoring.background import ScoreMap
from evaluation.scoring.config import Background, InferenceConfig, ScoringConfig
from evaluation.scoring.on_labels import score_predictor, student_protocol
from evaluation.scoring.predictors import StudentPredictor, TextRows
from evaluation.scoring.presets import preset_settings
from evaluation.scoring.results import Scores, Subject, write_scores
from flows.run_plan import scoring_configs
from flows.training_parameters import EvaluationParameters
from storage.class_sets import load_benchmark
from storage.errors import DataError, InputError
from storage.records import IGNORE_LABEL

VOID = IGNORE_LABEL
TRUTH = [[0, 0, 0, 14], [15, 15, 19, VOID]]


class Street:
    """One image of VOC without background: 15 of its classes seen, 5 unseen."""

    split = "val"
    truth = "made by hand"
    coverage = ""

    def __init__(self, name: str = "voc20", published_as: str = "PASCAL VOC20 (no bg)") -> None:
        self.classes = load_benchmark(name)
        self.published_as = published_as

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[BenchmarkSample]:
        yield BenchmarkSample("one", np.zeros((2, 4, 3), np.uint8), np.array(TRUTH, np.uint16))

    @property
    def keys(self) -> list[str]:
        return ["one"]

    def sample(self, key: str) -> BenchmarkSample:
        return next(iter(self))

    def missing_files(self) -> list[Path]:
        return []

    def contents(self) -> str:
        return "one"

    def check(self) -> None:
        return


class Says:
    def __init__(self, labels: Sequence[Sequence[int]]) -> None:
        self._labels = np.array(labels, np.int32)

    def predict(self, image: np.ndarray, candidates: Sequence[int] | None = None) -> ScoreMap:
        return ScoreMap(np.full(self._labels.shape, 0.9, np.float32), self._labels)


def scores_of(
    tmp_path: Path, predicted: Sequence[Sequence[int]], preset: str | None = "zegclip_inductive"
) -> Scores:
    settings = {} if preset is None else preset_settings(preset, "voc20")
    config = ScoringConfig.model_validate({**settings, "num_examples": 0})
    street = Street()
    return score_predictor(
        Says(predicted),
        street,
        subject=Subject(kind="student", name="student", fingerprint="f"),
        protocol=student_protocol(street, config),
        config=config,
        out=tmp_path,
    )


def test_seen_unseen_and_their_harmonic_mean_come_from_one_confusion(tmp_path: Path) -> None:
    # aeroplane 2 of 3 found and one false, person not; pottedplant 1 of 2, sheep false, tvmonitor 1
    scores = scores_of(tmp_path, [[0, 0, 16, 0], [15, 14, 19, 3]])
    found = {group.name: (group.num_classes, group.miou) for group in scores.groups}
    seen, unseen = (2 / 4 + 0) / 2, (1 / 2 + 0 + 1) / 3
    assert found == {
        "seen": (2, pytest.approx(seen)),
        "unseen": (3, pytest.approx(unseen)),
        "harmonic mean": (5, pytest.approx(2 * seen * unseen / (seen + unseen))),
    }
    assert scores.protocol.unseen == ("pottedplant", "sheep", "sofa", "train", "tvmonitor")
    assert scores.protocol.seen_offset == 0.1


def test_a_student_that_never_says_an_unseen_name_has_no_harmonic_mean(tmp_path: Path) -> None:
    scores = scores_of(tmp_path, [[0, 0, 0, 14], [0, 0, 0, 0]])
    assert [group.miou for group in scores.groups] == [pytest.approx((3 / 6 + 1) / 2), 0, 0]


def test_without_a_split_there_are_no_such_groups_and_no_published_ones(tmp_path: Path) -> None:
    scores = scores_of(tmp_path, TRUTH_SAID, preset=None)
    assert scores.groups == scores.published_groups == ()
    assert scores.protocol.unseen == ()


TRUTH_SAID = [[0, 0, 0, 14], [15, 15, 19, 0]]


def test_published_means_stand_beside_ours(tmp_path: Path) -> None:
    scores = scores_of(tmp_path, TRUTH_SAID)
    assert [(each.method, each.values) for each in scores.published_groups] == [
        ("ZegCLIP fully supervised", {"seen": 92.4, "unseen": 90.9, "harmonic mean": 91.6}),
        ("ZegCLIP transductive", {"seen": 92.3, "unseen": 89.9, "harmonic mean": 91.1}),
        ("ZegCLIP inductive", {"seen": 91.9, "unseen": 77.8, "harmonic mean": 84.3}),
    ]
    [board] = make_boards([Scored(scores, tmp_path)])
    assert board.group_columns[1:] == [each.method for each in scores.published_groups]
    rows = {row.name: row.mious for row in board.groups}
    assert rows["harmonic mean"] == ["100.0 (4)", "91.6", "91.1", "84.3"]
    assert all("ZegCLIP repository README" in note for note in board.group_notes)
    assert "5 unseen classes, scores of seen classes lowered by 0.1" in board.rows[0].protocol


def test_the_reports_have_a_table_of_the_groups(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_scores(scores_of(tmp_path, TRUTH_SAID), run)
    text = format_report(None, [run])
    published = "ZegCLIP fully supervised | ZegCLIP transductive | ZegCLIP inductive |"
    assert f"| group of classes | student | {published}" in text.replace(
        "trained student", "student"
    )
    assert "| harmonic mean | 100.0 (4) | 91.6 | 91.1 | 84.3 |" in text
    page = write_report(None, [run], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "ZegCLIP inductive: published, not measured here; 15 seen, 5 unseen" in page


def test_a_board_holds_scores_with_and_without_a_split(tmp_path: Path) -> None:
    both = [scores_of(tmp_path, TRUTH_SAID), scores_of(tmp_path, TRUTH_SAID, preset=None)]
    [board] = make_boards([Scored(each, tmp_path) for each in both])
    rows = {row.name: row.mious for row in board.groups}
    assert rows["unseen"][:2] == ["100.0 (2)", "-"]
    assert len(board.rows) == 2  # two protocols are never averaged


class EqualStudent:
    """Scores every class alike, but for a little more for each further one."""

    patch_size = 2

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels / 255.0

    def encode(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        batch, _, height, width = image.shape
        return torch.ones(batch, 3, height // 2, width // 2), torch.ones(batch, 3)

    def scores(self, patches: torch.Tensor, cls: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        logits = text[:, 0][None, :, None, None]
        return logits.expand(len(patches), -1, *patches.shape[2:])


def best(offset: float, seen: Sequence[int], chunk: int = 8) -> tuple[int, float]:
    # Sigmoid scores 0.70, 0.65 and 0.62.
    chances = torch.tensor([0.70, 0.65, 0.62])
    rows = TextRows.one_each(torch.logit(chances)[:, None].repeat(1, 3))
    config = InferenceConfig(
        short_side=8,
        window=None,
        background=Background.NONE,
        seen_offset=offset,
        class_chunk=chunk,
    )
    found = StudentPredictor(EqualStudent(), rows, config, seen).predict(
        np.zeros((8, 8, 3), np.uint8)
    )
    return int(found.index[3, 3]), float(found.best[3, 3])


@pytest.mark.parametrize("chunk", [1, 2, 8])
def test_the_offset_lowers_seen_classes_alone(chunk: int) -> None:
    assert best(0.0, (0, 1), chunk) == (0, pytest.approx(0.70))
    assert best(0.06, (0, 1), chunk) == (0, pytest.approx(0.64))
    assert best(0.1, (0, 1), chunk) == (2, pytest.approx(0.62))
    assert best(0.1, (), chunk) == (0, pytest.approx(0.70))


def test_scores_below_0_are_still_compared() -> None:
    assert best(1.0, (0, 1, 2))[0] == 0


def test_a_split_of_other_classes_is_refused_before_anything_is_scored() -> None:
    config = ScoringConfig(zero_shot="coco_stuff156_15")
    with pytest.raises(InputError, match="coco_stuff, but voc20 is scored: leave zero_shot out"):
        student_protocol(Street(), config)


@pytest.mark.parametrize(
    ("preset", "benchmark", "offset", "split", "templates"),
    [
        ("zegclip_inductive", "voc20", 0.1, "voc15_5", "zegclip_single"),
        ("zegclip_inductive", "coco_stuff", 0.1, "coco_stuff156_15", "zegclip_multi15"),
        ("zegclip_transductive", "voc20", 0.0, "voc15_5", "zegclip_single"),
        ("zegclip_transductive", "coco_stuff", 0.0, "coco_stuff156_15", "zegclip_multi15"),
        ("miniature_zero_shot", "miniature14", 0.1, "miniature11_3", "single"),
        ("zegclip", "coco_stuff", 0.0, None, "zegclip_multi15"),
    ],
)
def test_presets_hold_what_zegclip_released(
    preset: str, benchmark: str, offset: float, split: str | None, templates: str
) -> None:
    config = ScoringConfig.model_validate(preset_settings(preset, benchmark))
    assert (config.zero_shot, config.inference.seen_offset) == (split, offset)
    assert (config.templates, config.inference.background) == (templates, Background.NONE)
    if benchmark != "miniature14":
        shown = config.inference
        assert (shown.short_side, shown.window, shown.stride) == (512, 512, 426)


def test_a_split_that_no_benchmark_has_is_refused_before_a_run() -> None:
    parameters = EvaluationParameters(
        run="run",
        scoring={"zero_shot": "voc15_5"},
        benchmarks=(BenchmarkConfig(name="open_images", root=Path()),),
    )
    with pytest.raises(InputError, match="classes of voc20, but open_images is scored"):
        scoring_configs(parameters)


def test_settings_without_a_split_keep_their_identity() -> None:
    plain = ScoringConfig().identity()
    assert "zero_shot" not in plain
    assert "seen_offset" not in plain["inference"]
    split = ScoringConfig(zero_shot="voc15_5", inference=InferenceConfig(seen_offset=0.1))
    assert split.identity()["zero_shot"] == "voc15_5"
    assert split.identity()["inference"]["seen_offset"] == 0.1


def test_a_truth_without_a_counted_pixel_is_refused(tmp_path: Path) -> None:
    street = Street()
    street.sample = lambda key: BenchmarkSample(  # type: ignore[method-assign]
        "one", np.zeros((2, 4, 3), np.uint8), np.full((2, 4), VOID, np.uint16)
    )
    config = ScoringConfig(zero_shot="voc15_5", num_examples=0)
    with pytest.raises(DataError, match="shows no class at all"):
        score_predictor(
            Says(TRUTH_SAID),
            street,
            subject=Subject(kind="student", name="student", fingerprint="f"),
            protocol=student_protocol(street, config),
            config=config,
            out=tmp_path,
        )
