"""Presets hold what the published works hold, and say what was changed."""

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from evaluation.benchmarks.contract import BenchmarkConfig, BenchmarkSample
from evaluation.scoring.config import Background, Overlap, ScoringConfig, SeveralPhrases
from evaluation.scoring.on_labels import score_student
from evaluation.scoring.phrases import background_words, class_phrases
from evaluation.scoring.presets import load_preset, preset_changes, preset_settings
from evaluation.scoring.results import Subject
from storage.class_sets import load_benchmark
from storage.errors import InputError
from storage.vocabulary import text_templates


def config_of(name: str, benchmark: str) -> ScoringConfig:
    return ScoringConfig.model_validate(preset_settings(name, benchmark))


NAMES = yaml.safe_load(
    files("evaluation.scoring").joinpath("data", "presets.yaml").read_text(encoding="utf-8")
)
SERVED = [
    (name, benchmark)
    for name in NAMES
    for benchmark in load_preset(name).benchmarks
    if benchmark != "open_images"  # which has points
]


@pytest.mark.parametrize(("name", "benchmark"), SERVED)
def test_every_preset_can_be_carried_out_on_every_benchmark_that_it_names(
    name: str, benchmark: str
) -> None:
    config = config_of(name, benchmark)
    classes = load_benchmark(benchmark)
    assert len(class_phrases(classes, config.names)) == len(classes.names)
    assert text_templates(config.templates)
    assert background_words(config.background_words)
    if classes.background:
        assert config.inference.background is not Background.NONE
    assert BenchmarkConfig.model_validate({"name": benchmark, "root": "."}).name == benchmark
    assert preset_changes(config, benchmark) == ()
    assert load_preset(name).omits


# (short side, window, stride, rule, threshold, templates), read in the works' configurations.
PUBLISHED: dict[tuple[str, str], tuple[Any, ...]] = {
    ("magicseg_released", "voc21"): (512, 512, 426, "raw", 0.95, "zegclip_multi15"),
    ("magicseg_released", "lvis"): (512, 512, 426, "raw", 0.95, "zegclip_multi15"),
    ("magicseg_groupvit", "coco_object"): (512, 512, 426, "groupvit", 0.95, "zegclip_multi15"),
    ("zegclip", "voc20"): (512, 512, 426, "none", 0.5, "zegclip_single"),
    ("zegclip", "context59"): (512, 512, 426, "none", 0.5, "zegclip_multi15"),
    ("groupvit", "voc21"): (448, 448, 224, "groupvit", 0.95, "single"),
    ("groupvit", "context60"): (448, 448, 224, "groupvit", 0.35, "single"),
    ("groupvit", "coco_object"): (448, 448, 224, "groupvit", 0.95, "single"),
    ("pgseg", "context60"): (448, 448, 224, "groupvit", 0.36, "single"),
    ("pgseg", "coco_object"): (448, 448, 224, "groupvit", 0.85, "single"),
    ("pgseg", "lvis"): (448, 448, 224, "groupvit", 0.35, "single"),
    ("tcl", "voc21"): (448, 448, 224, "constant", 0.4, "tcl_custom9"),
    ("tcl", "context59"): (448, 448, 224, "constant", 0.4, "tcl_custom9"),
    ("sclip", "voc21"): (336, 224, 112, "words", 0.1, "imagenet80"),
    ("sclip", "context60"): (336, 224, 112, "words", 0.1, "imagenet80"),
    ("sclip", "voc20"): (336, 224, 112, "none", 0.1, "imagenet80"),
    ("clearclip", "voc21"): (448, 448, 224, "words", 0.5, "imagenet80"),
    ("clearclip", "context60"): (448, 448, 224, "words", 0.15, "imagenet80"),
    ("clearclip", "coco_object"): (448, 448, 224, "words", 0.4, "imagenet80"),
}


@pytest.mark.parametrize(("name", "benchmark"), PUBLISHED)
def test_a_preset_holds_what_the_work_published(name: str, benchmark: str) -> None:
    config = config_of(name, benchmark)
    view = config.inference
    found = (view.short_side, view.window, view.stride, view.background, view.threshold)
    assert (*found, config.templates) == PUBLISHED[name, benchmark]
    assert view.long_side == 2048


def test_sclip_takes_the_best_of_several_names_and_its_own_background_words() -> None:
    config = config_of("sclip", "coco_object")
    assert config.several is SeveralPhrases.BEST
    assert config.inference.overlap is Overlap.LOGITS
    assert len(background_words(config.background_words)) == 26
    assert background_words(config_of("sclip", "context60").background_words) == ("background",)


def test_points_are_scored_as_others_restate_gem() -> None:
    config = config_of("gem", "open_images")
    points = config.points
    assert (points.candidates, points.binarise, points.threshold) == ("present", "min-max", 0.5)
    assert (points.aggregate, points.with_background) == ("pair", True)
    assert config.templates == "single"
    other = config.model_copy(update={"points": points.model_copy(update={"threshold": 0.25})})
    assert preset_changes(other, "open_images") == ("points.threshold 0.25 instead of 0.5",)
    with pytest.raises(InputError, match="says nothing about voc21"):
        preset_settings("gem", "voc21")


def test_what_differs_from_a_preset_is_said() -> None:
    settings = preset_settings("groupvit", "voc21")
    settings["templates"] = "imagenet80"
    settings["inference"] |= {"threshold": 0.9, "class_chunk": 4}
    settings["num_examples"] = 0
    config = ScoringConfig.model_validate(settings)
    assert set(preset_changes(config, "voc21")) == {
        "templates imagenet80 instead of single",
        "inference.threshold 0.9 instead of 0.95",
    }
    assert preset_changes(ScoringConfig(), "voc21") == ()


def test_a_preset_named_alone_tells_that_its_settings_were_not_taken() -> None:
    changes = preset_changes(ScoringConfig(preset="tcl"), "voc21")
    assert "inference.background raw instead of constant" in changes
    assert "templates zegclip_multi15 instead of tcl_custom9" in changes


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="no preset 'group_vit'; did you mean groupvit"):
        load_preset("group_vit")


def test_a_benchmark_that_the_work_did_not_score_is_refused() -> None:
    message = "preset groupvit says nothing about lvis, expected one of voc21, context60, coco_obj"
    with pytest.raises(InputError, match=message):
        preset_settings("groupvit", "lvis")


class OneImage:
    """One image of the benchmark's first two classes, labelled as its class set wants it."""

    split = "val"
    truth = "made by hand"
    published_as = ""
    coverage = ""

    def __init__(self, name: str) -> None:
        self.classes = load_benchmark(name)

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[BenchmarkSample]:
        pixels = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
        labels = (np.arange(12 * 16) // 100).reshape(12, 16).astype(np.uint16)
        yield BenchmarkSample("one", pixels, labels)

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


class ColourStudent:
    """Likens patches to texts by three numbers; keeps the sizes of what it was shown."""

    patch_size = 16

    def __init__(self) -> None:
        self.shown: list[tuple[int, ...]] = []

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels / 255.0 - 0.5

    def encode(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.shown.append(tuple(image.shape))
        return F.avg_pool2d(image, self.patch_size), image.mean(dim=(2, 3))

    def scores(self, patches: torch.Tensor, cls: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return 8 * torch.einsum("behw,ce->bchw", patches, text)

    def eval(self) -> object:
        return self


class SpellingEncoder:
    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        rows = [[text.count("a") + 0.1, text.count("e") - 3.0, len(text) - 20.0] for text in texts]
        return F.normalize(torch.tensor(rows), dim=-1)


@pytest.mark.parametrize(
    ("name", "benchmark"), [each for each in SERVED if each[1].startswith("voc")]
)
def test_every_preset_is_carried_out_and_stands_with_the_score(
    name: str, benchmark: str, tmp_path: Path
) -> None:
    config = config_of(name, benchmark).model_copy(update={"num_examples": 0})
    student = ColourStudent()
    scores = score_student(
        student,
        SpellingEncoder(),
        OneImage(benchmark),
        subject=Subject(kind="student", name="s", fingerprint="f"),
        config=config,
        out=tmp_path,
    )
    protocol = scores.protocol
    assert (protocol.preset, protocol.preset_changes) == (name, ())
    assert protocol.preset_omits == load_preset(name).omits
    assert f"in the templates {config.templates}" in protocol.text
    assert f"short side {config.inference.short_side}" in protocol.view
    if protocol.background:
        assert protocol.background_rule is config.inference.background
        assert protocol.threshold == config.inference.threshold
        assert scores.curve
    else:
        assert protocol.background_rule is Background.NONE
    window = config.inference.window
    assert {shape[2:] for shape in student.shown} == {(window, window)}
    assert sum(shape[0] for shape in student.shown) > 1
