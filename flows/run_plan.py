"""The plan of a training run: what is trained and scored, step by step, and the way through it.

Everything that can be checked is checked while the plan is made, before any work. Who does the
steps is the caller's choice: tasks of a flow, or the process of a command line.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.scoring.config import ScoringConfig
from evaluation.scoring.measured import Measured
from evaluation.scoring.presets import preset_settings
from flows.data_sources import IMPORTS_FOLDER
from flows.training_parameters import (
    CLOSED_SETS_FOLDER,
    EvaluationParameters,
    ScoringParameters,
    TrainAndEvaluateParameters,
    closed_set_jobs,
    training_config,
)
from models.labellers import maps_wanted
from models.profiles import Profile, load_profile
from models.student.trained import describe_student
from storage.class_groups import load_zero_shot
from storage.documents import merge, validate
from storage.locks import refuse_other_files
from storage.metrics import METRICS_FILE
from tasks.closed_sets import ClosedSetTraining, suits
from tasks.imports import RealImport
from tasks.scoring import SCORES_FOLDER, ScoreJob, Scoring
from tasks.steps import Execute
from tasks.subjects import AnySubject, Baseline, ClosedSetRun, TrainedStudent, UntrainedStudent
from tasks.training import StudentTraining, refuse_other_vocabulary, require_shards
from training.loop import CHECKPOINT_FOLDER


@dataclass(frozen=True)
class ClosedSetPlan:
    """A closed-set segmenter and what it is scored on."""

    training: ClosedSetTraining
    scorings: tuple[Scoring, ...]


def plan_training(parameters: TrainAndEvaluateParameters) -> StudentTraining:
    """The training of the student.

    Raises:
        IncompleteError: Fewer good shards are committed than wanted.
        InputError: Data are missing, or a setting is unknown or does not fit.
    """
    config = training_config(parameters)
    _check_run_folder(parameters.run_folder)
    _require_sources(parameters)
    return StudentTraining(config, parameters.processes)


def import_all(imports: Sequence[RealImport], execute: Execute) -> None:
    """Import real images; what was imported before is found."""
    for each in imports:
        execute(each)


def plan_scorings(
    parameters: EvaluationParameters | TrainAndEvaluateParameters,
) -> list[Scoring]:
    """Everything that is scored beside a run's student, and that itself: each on each benchmark.

    Raises:
        DataError: If files of a benchmark or the checkpoint to score are damaged.
        InputError: If a scoring setting is unknown or does not fit, files of a benchmark or weights
            are missing, or there is no checkpoint to score.
    """
    subjects = _subjects(parameters, load_profile(parameters.profile))
    settings = scoring_configs(parameters)
    check_benchmarks(parameters.benchmarks)
    for subject in subjects:
        subject.check()
    return [
        Scoring(
            ScoreJob(
                subject=subject,
                out=str(parameters.run_folder),
                benchmark=benchmark,
                scoring=scoring,
                by_image=isinstance(parameters, EvaluationParameters) and parameters.by_image,
            )
        )
        for benchmark, scoring in zip(parameters.benchmarks, settings, strict=True)
        for subject in subjects
    ]


def plan_closed_sets(parameters: TrainAndEvaluateParameters) -> list[ClosedSetPlan]:
    """The closed-set segmenters, each with the benchmarks that share classes with it.

    Raises:
        DataError: If files of a benchmark are damaged.
        IncompleteError: Fewer good shards are committed than wanted.
        InputError: If a recipe or a setting is unknown or does not fit, or data, mmsegmentation or
            files of a benchmark are missing.
    """
    jobs = closed_set_jobs(parameters)
    settings = scoring_configs(parameters)
    if jobs:
        _check_run_folder(parameters.run_folder)
        _require_sources(parameters)
    return [
        ClosedSetPlan(
            ClosedSetTraining(job),
            tuple(
                Scoring(
                    ScoreJob(
                        subject=ClosedSetRun(run=job.config.out),
                        out=job.config.out,
                        benchmark=benchmark,
                        scoring=scoring,
                    )
                )
                for benchmark, scoring in zip(parameters.benchmarks, settings, strict=True)
                if suits(job.closed_set, benchmark)
            ),
        )
        for job in jobs
    ]


def scoring_configs(parameters: ScoringParameters) -> list[ScoringConfig]:
    """How each benchmark is scored: the profile's settings, a preset's, and the parameters' on top.

    Raises:
        InputError: If a setting is unknown or does not fit, or a split is none of a benchmark.
    """
    profile = load_profile(parameters.profile)
    preset = parameters.scoring.get("preset", profile.scoring.get("preset"))
    configs = []
    for benchmark in parameters.benchmarks:
        low = profile.scoring
        if preset is not None:
            low = merge(low, preset_settings(preset, benchmark.name))
        document = merge(low, parameters.scoring)
        where = f"scoring settings of {profile.name}"
        config = validate(ScoringConfig, document, where)
        if config.zero_shot is not None:
            load_zero_shot(config.zero_shot).check(benchmark.name)
        configs.append(config)
    return configs


def check_benchmarks(benchmarks: Iterable[BenchmarkConfig]) -> None:
    """Check that the files of all benchmarks are there.

    Raises:
        DataError: If some are damaged.
        InputError: If some are missing; says where to get them.
    """
    for benchmark in benchmarks:
        open_benchmark(benchmark).check()


def score_all(scorings: Sequence[Scoring], execute: Execute) -> list[Measured]:
    """Score, one after another; what was measured before is found."""
    return [execute(scoring).result for scoring in scorings]


def train_closed_sets(plans: Sequence[ClosedSetPlan], execute: Execute) -> list[Measured]:
    """Train closed-set segmenters and score each; what was done before is found."""
    measured: list[Measured] = []
    for plan in plans:
        execute(plan.training)
        measured += score_all(plan.scorings, execute)
    return measured


def _require_sources(parameters: TrainAndEvaluateParameters) -> None:
    """Check that there are shards of all that was generated, of the run's vocabulary.

    Raises:
        IncompleteError: Fewer good shards of the dataset are committed than wanted.
        InputError: There is nothing to train on, or labels index another vocabulary.
    """
    vocabulary = load_profile(parameters.profile).vocabulary
    if parameters.dataset is not None:
        require_shards(parameters.dataset, parameters.min_shards)
    for source in parameters.data:
        if source.layout is None:
            refuse_other_vocabulary(source.path, vocabulary)
            require_shards(source.path, 1)


def _check_run_folder(folder: Path) -> None:
    """Refuse a folder with other files than those of a run.

    Raises:
        InputError: It has some, and nothing that a run leaves.
    """
    marks = (CHECKPOINT_FOLDER, METRICS_FILE, SCORES_FOLDER, CLOSED_SETS_FOLDER)
    early = (
        "text",
        "shards",
        IMPORTS_FOLDER,
        f"{StudentTraining.kind}-*.json",
        f"{StudentTraining.kind}.log",
    )
    refuse_other_files(folder, "a run", marks=marks, early=early)


def _subjects(
    parameters: EvaluationParameters | TrainAndEvaluateParameters, profile: Profile
) -> list[AnySubject]:
    run = parameters.run_folder
    subjects: list[AnySubject] = [TrainedStudent(run=str(run))]
    seed = _seed(parameters)
    if parameters.untrained:
        subjects.append(UntrainedStudent(student=profile.student, seed=seed))
    if parameters.baseline and maps_wanted(profile.labeller) is None:
        # A labeller that reads its painter's attention cannot label other pictures.
        subjects.append(Baseline(labeller=profile.labeller))
    return subjects


def _seed(parameters: EvaluationParameters | TrainAndEvaluateParameters) -> int:
    """The seed of the student: as its run has it, or will have."""
    if isinstance(parameters, TrainAndEvaluateParameters):
        return training_config(parameters).seed
    return describe_student(parameters.run_folder)["config"]["seed"]
