"""Protocols: what a number depends on besides the weights, as text."""

from typing import Any, Protocol, runtime_checkable

from evaluation.benchmarks.contract import Benchmark, scored_names
from evaluation.scoring.config import Background, InferenceConfig, Overlap, ScoringConfig
from evaluation.scoring.predictors import TextSegmenter
from evaluation.scoring.results import AVERAGES, ScoreProtocol
from storage.class_groups import load_zero_shot
from storage.class_sets import BenchmarkClasses


@runtime_checkable
class ScoredStudent(TextSegmenter, Protocol):
    """A student that can be put into evaluation mode."""

    def eval(self) -> object:
        """Switch dropout off."""
        ...


def describe_protocol(benchmark: Benchmark, config: ScoringConfig, **how: Any) -> ScoreProtocol:
    """Say what a number depends on: what benchmark and config say, and the fields given.

    Raises:
        InputError: If the config names a zero-shot split of another class set.
    """
    classes = benchmark.classes
    return ScoreProtocol(
        benchmark=classes.name,
        split=benchmark.split,
        num_images=len(benchmark),
        class_names=scored_names(classes),
        background=classes.background,
        average=AVERAGES[config.average],
        truth=benchmark.truth,
        unseen=unseen_names(classes, config),
        **how,
    )


def unseen_names(classes: BenchmarkClasses, config: ScoringConfig) -> tuple[str, ...]:
    """The unseen classes of a class set, in its order; none without a split.

    Raises:
        InputError: If the split is unknown, or one of another class set.
    """
    if config.zero_shot is None:
        return ()
    places = load_zero_shot(config.zero_shot).positions(classes)
    return tuple(classes.names[place] for place in places)


def view_words(config: InferenceConfig) -> str:
    """Say at which size and in which windows an image is shown."""
    parts = [f"short side {config.short_side}, long side at most {config.long_side}"]
    if config.window is None:
        parts.append("whole image")
    else:
        averaged = "averaged" if config.overlap is Overlap.SCORES else "logits averaged"
        parts.append(f"windows of {config.window} at a stride of {config.stride}, {averaged}")
    if config.background in {Background.SOFTMAX, Background.WORDS, Background.GROUPVIT}:
        parts.append(f"logits times {config.softmax_scale:g} before the softmax")
    return ", ".join(parts)
