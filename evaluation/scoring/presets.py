"""Presets: the evaluation protocols of published works, by name.

A preset fixes everything that a number depends on besides the weights and the images: sizes and
windows, background rule, threshold, class names, templates, average. What of the original has no
place in a student that gives a mask logit for each class is listed with it, and printed with every
number. `data/presets.yaml` holds the values and where they come from.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from evaluation.scoring.config import ScoringConfig
from storage.documents import merge, read_yaml, suggest, validate
from storage.errors import InputError

_EXECUTION: Mapping[str, Any] = {
    "preset": True,
    "thresholds": True,
    "num_examples": True,
    "inference": {"batch_size", "class_chunk"},
}
"""Settings that are no part of a protocol."""


class Preset(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """The protocol of a published work."""

    source: str
    """Where the values come from."""
    omits: tuple[str, ...]
    """What is left out of the original, or done differently."""
    scoring: dict[str, Any] = Field(default_factory=dict)
    """Scoring settings on every benchmark; what is not named has its default."""
    benchmarks: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings that differ by benchmark. The work says nothing about other benchmarks; if there
    are none here, the preset serves all of them."""


def load_preset(name: str) -> Preset:
    """Look a preset up.

    Raises:
        InputError: If there is none of that name.
    """
    presets = _presets()
    if name not in presets:
        message = f"there is no preset {name!r}; {suggest(name, presets)}"
        raise InputError(message)
    return presets[name]


def preset_settings(name: str, benchmark: str) -> dict[str, Any]:
    """All scoring settings that a preset fixes on a benchmark, nested as in the scoring config.

    Args:
        name: The preset.
        benchmark: Class set that is scored, such as `voc21`.

    Raises:
        InputError: If there is no such preset, or its work did not score that benchmark.
    """
    preset = load_preset(name)
    if preset.benchmarks and benchmark not in preset.benchmarks:
        message = (
            f"preset {name} says nothing about {benchmark}, expected one of "
            f"{', '.join(preset.benchmarks)}: choose another, or name the settings one by one"
        )
        raise InputError(message)
    own = merge(preset.scoring, preset.benchmarks.get(benchmark, {}))
    return _protocol(validate(ScoringConfig, own, f"preset {name}")) | {"preset": name}


def preset_changes(config: ScoringConfig, benchmark: str) -> tuple[str, ...]:
    """Describe how a configuration differs from the preset that it names.

    Raises:
        InputError: If it names a preset that does not serve the benchmark.
    """
    if config.preset is None:
        return ()
    wanted = dict(_flat(preset_settings(config.preset, benchmark)))
    return tuple(
        f"{name} {value} instead of {wanted[name]}"
        for name, value in _flat(_protocol(config))
        if value != wanted[name]
    )


def _protocol(config: ScoringConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude=dict(_EXECUTION))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@cache
def _presets() -> dict[str, Preset]:
    document = read_yaml(Path(__file__).with_name("data") / "presets.yaml")
    return {name: validate(Preset, each, f"preset {name}") for name, each in document.items()}
