"""The flow that trains a student on committed shards and scores it."""

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_link_artifact, create_table_artifact

from evaluation.reports.page import write_report
from evaluation.scoring.config import ScoringConfig
from evaluation.scoring.measured import Measured, headline
from evaluation.scoring.presets import preset_settings
from flows.training_parameters import TrainAndEvaluateParameters, closed_set_jobs, training_config
from models.profiles import Profile, load_profile
from storage.documents import merge, validate
from storage.records import Record
from tasks.closed_sets import (
    ClosedSetScoreJob,
    suits,
    train_closed_set,
)
from tasks.closed_sets import score as score_closed_set
from tasks.scores import Kind, ScoreJob, score
from tasks.training import require_shards, train_student
from training.closed_sets.config import ClosedSetJob

REPORT_NAME = "report.html"


class RunSummary(Record, frozen=True):
    """What a run came to."""

    checkpoint: str
    """Folder of the last checkpoint."""
    scores: tuple[Measured, ...]
    """Everything that was measured, on every benchmark."""
    report: str
    """Path of the page."""
    executed: tuple[str, ...]
    """Steps that were worked on rather than found done."""


def score_jobs(parameters: TrainAndEvaluateParameters, seed: int) -> list[ScoreJob]:
    """Everything that is to be scored: each subject on each benchmark.

    Raises:
        InputError: If a scoring setting is unknown or does not fit.
    """
    profile = load_profile(parameters.profile)
    wanted: dict[Kind, bool] = {
        "student": True,
        "untrained": parameters.untrained,
        "baseline": parameters.baseline,
    }
    return [
        _job(parameters, profile, kind, seed, scoring=scoring, benchmark=benchmark)
        for benchmark in parameters.benchmarks
        for scoring in [_scoring(parameters, profile, benchmark.name)]
        for kind, is_wanted in wanted.items()
        if is_wanted
    ]


def closed_set_score_jobs(
    parameters: TrainAndEvaluateParameters, job: ClosedSetJob
) -> list[ClosedSetScoreJob]:
    """Everything that a closed-set segmenter is to be scored on: benchmarks that share classes.

    Raises:
        InputError: If a scoring setting is unknown or does not fit.
    """
    profile = load_profile(parameters.profile)
    return [
        ClosedSetScoreJob(
            run=job.config.out,
            benchmark=benchmark,
            scoring=_scoring(parameters, profile, benchmark.name),
        )
        for benchmark in parameters.benchmarks
        if suits(job.closed_set, benchmark)
    ]


def _scoring(
    parameters: TrainAndEvaluateParameters, profile: Profile, benchmark: str
) -> ScoringConfig:
    """The profile's settings, on top of them those of a preset, and the parameters' on top."""
    low = profile.scoring
    preset = parameters.scoring.get("preset", low.get("preset"))
    if preset is not None:
        low = merge(low, preset_settings(preset, benchmark))
    return validate(
        ScoringConfig, merge(low, parameters.scoring), f"scoring settings of {profile.name}"
    )


def _job(
    parameters: TrainAndEvaluateParameters, profile: Profile, kind: Kind, seed: int, **others: Any
) -> ScoreJob:
    return ScoreJob(
        kind=kind,
        run=str(parameters.run_folder),
        seed=seed,
        student=profile.student,
        detector=profile.detector,
        segmenter=profile.segmenter,
        **others,
    )


@flow(name="train-and-evaluate", flow_run_name="{parameters.dataset}", persist_result=False)
def train_and_evaluate(parameters: TrainAndEvaluateParameters) -> RunSummary:
    """Train a student once enough shards are committed, score it, and write the report.

    An interrupted training goes on from its last checkpoint; what is over is not done again.

    Args:
        parameters: Data, run and benchmarks.

    Raises:
        IncompleteError: Fewer good shards are committed than wanted.
        InputError: Data, weights or benchmark files are missing, or a setting does not fit.
    """
    require_shards(parameters.dataset, parameters.min_shards)
    config = training_config(parameters)
    closed_sets = closed_set_jobs(parameters)
    executed = []
    state = train_student(config, parameters.processes, return_state=True)
    checkpoint = state.result()
    if state.name != "Cached":
        executed.append("training")
    measured = []
    for job in score_jobs(parameters, config.seed):
        state = score(job, return_state=True)
        measured.append(state.result())
        if state.name != "Cached":
            executed.append(f"score of the {job.kind} on {job.benchmark.name}")
    for job in closed_sets:
        measured += _train_and_score(parameters, job, executed)
    out = parameters.run_folder
    report = write_report(parameters.dataset, [out], out / REPORT_NAME)
    _publish_artifacts(measured, report)
    return RunSummary(
        checkpoint=checkpoint, scores=tuple(measured), report=str(report), executed=tuple(executed)
    )


def _train_and_score(
    parameters: TrainAndEvaluateParameters, job: ClosedSetJob, executed: list[str]
) -> list[Measured]:
    """Train and score a closed-set segmenter; notes what was worked on."""
    state = train_closed_set(job, return_state=True)
    state.result()
    if state.name != "Cached":
        executed.append(f"training of {job.config.name}")
    measured = []
    for wanted in closed_set_score_jobs(parameters, job):
        state = score_closed_set(wanted, return_state=True)
        measured.append(state.result())
        if state.name != "Cached":
            executed.append(f"score of {job.config.name} on {wanted.benchmark.name}")
    return measured


def _publish_artifacts(measured: list[Measured], report: Path) -> None:
    """Show the scores in Prefect's user interface, with published numbers marked as such."""
    rows: list[dict[str, Any]] = []
    for scores in measured:
        metric, value = headline(scores)
        rows.append(
            {
                "subject": scores.subject.name,
                "benchmark": f"{scores.protocol.benchmark} {scores.protocol.split}",
                "metric": metric,
                "percent": f"{100 * value:.1f}",
                "source": "measured",
            }
        )
        if scores.subject.kind in {"student", "closed-set"}:
            rows += [
                {
                    "subject": published.method,
                    "benchmark": scores.protocol.benchmark,
                    "metric": metric,
                    "percent": f"{published.value:.1f}",
                    "source": "published",
                }
                for published in scores.published
            ]
    if rows:
        create_table_artifact(table=rows, key="magicseg-scores", description="scores in percent")
    create_link_artifact(link=report.absolute().as_uri(), key="magicseg-report")
