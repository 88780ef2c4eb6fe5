"""Self-training: relabel a dataset with the student that learned from it, and train again."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.scoring.config import ScoringConfig
from evaluation.scoring.measured import Measured
from flows.training_parameters import TrainAndEvaluateParameters
from models.profiles import load_profile
from storage.documents import merge, validate
from storage.paths import local_path
from tasks.relabelling import Relabelling, RelabellingJob
from tasks.steps import Execute

__all__ = ["SelfTrainingParameters"]


class SelfTrainingParameters(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What to start from, and how often to relabel and train."""

    dataset: Annotated[str, Field(min_length=1)]
    """Root of the dataset whose masks the first student learned from."""
    run: Annotated[str, Field(min_length=1)]
    """Folder of that student's run."""
    out: Annotated[str, Field(min_length=1)]
    """Folder for the rounds: each has its relabelled tars and its run. What is done is found."""
    rounds: int = Field(default=1, ge=1, le=100)
    """How often."""
    profile: str = "miniature"
    """Profile of the student: a shipped one, or the path of a YAML file."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Training settings that differ from the profile's, in all rounds."""
    scoring: dict[str, Any] = Field(default_factory=dict)
    """Scoring settings that differ from the profile's; their background rule and threshold cut the
    new masks too."""
    benchmarks: tuple[BenchmarkConfig, ...] = ()
    """Benchmarks to score every round's student on."""


@dataclass(frozen=True)
class Round:
    """One round.

    Attributes:
        relabelling: Of the dataset, by the student of the round before.
        training: Of a new student, from scratch, on what was relabelled.
    """

    relabelling: Relabelling
    training: TrainAndEvaluateParameters


def plan_rounds(parameters: SelfTrainingParameters) -> list[Round]:
    """All rounds, in order.

    Raises:
        InputError: If a setting is unknown or does not fit.
    """
    profile = load_profile(parameters.profile)
    document = merge(profile.scoring, parameters.scoring)
    scoring = validate(ScoringConfig, document, f"scoring settings of {profile.name}")
    out = local_path(parameters.out, "out")
    run, rounds = parameters.run, []
    for number in range(1, parameters.rounds + 1):
        folder = out / f"round-{number}"
        job = RelabellingJob(
            dataset=parameters.dataset,
            vocabulary=profile.vocabulary,
            run=run,
            scoring=scoring,
            out=str(folder / "relabelled"),
        )
        training = TrainAndEvaluateParameters(
            dataset=job.out,
            out=str(folder / "run"),
            profile=parameters.profile,
            training=parameters.training,
            scoring=parameters.scoring,
            benchmarks=parameters.benchmarks,
            untrained=False,
            baseline=False,
        )
        rounds.append(Round(Relabelling(job), training))
        run = str(folder / "run")
    return rounds


def walk_rounds(
    rounds: list[Round],
    execute: Execute,
    measure: Callable[[TrainAndEvaluateParameters], list[Measured]],
) -> Path:
    """Relabel and train, round after round; finished work is found.

    Args:
        rounds: What is wanted.
        execute: Does a step, or finds it done.
        measure: Trains and scores a student, or finds that done.

    Returns:
        The last round's run.
    """
    for each in rounds:
        execute(each.relabelling)
        measure(each.training)
    return rounds[-1].training.run_folder
