"""A preset named in run parameters becomes scoring settings."""

from pathlib import Path
from typing import Any

import pytest

from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.scoring.config import ScoringConfig
from evaluation.scoring.presets import preset_changes
from flows.run_plan import scoring_configs
from flows.training_parameters import ScoringParameters
from storage.errors import InputError


def scoring_of(name: str, **scoring: Any) -> ScoringConfig:
    parameters = ScoringParameters(
        scoring=scoring,
        benchmarks=(BenchmarkConfig.model_validate({"name": name, "root": Path()}),),
    )
    [config] = scoring_configs(parameters)
    return config


def test_a_preset_fills_in_what_its_work_used_on_each_benchmark() -> None:
    scoring = scoring_of("context60", preset="groupvit")
    assert scoring.inference.threshold == 0.35
    assert scoring.inference.window == 448
    assert scoring.names == "groupvit"
    assert preset_changes(scoring, "context60") == ()
    assert scoring_of("voc21", preset="groupvit").inference.threshold == 0.95


def test_a_setting_that_is_given_wins_over_the_preset() -> None:
    given = {"threshold": 0.2, "batch_size": 2}
    scoring = scoring_of("voc21", preset="tcl", inference=given)
    assert scoring.inference.threshold == 0.2
    assert scoring.inference.batch_size == 2
    assert scoring.inference.short_side == 448
    assert preset_changes(scoring, "voc21") == ("inference.threshold 0.2 instead of 0.4",)


def test_without_a_preset_the_profile_says_how() -> None:
    scoring = scoring_of("miniature")
    assert scoring.preset is None
    assert scoring.inference.window is None


def test_a_preset_that_is_unknown_or_not_for_the_benchmark_is_refused() -> None:
    with pytest.raises(InputError, match="there is no preset 'sclipp'; did you mean sclip"):
        scoring_of("voc21", preset="sclipp")
    with pytest.raises(InputError, match="preset zegclip says nothing about miniature"):
        scoring_of("miniature", preset="zegclip")
