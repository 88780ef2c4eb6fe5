"""The flow that trains a student on committed shards and scores it."""

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_link_artifact, create_table_artifact

from evaluation.reports.page import write_report
from evaluation.scoring.measured import Measured, headline
from flows.run_plan import (
    plan_closed_sets,
    plan_scorings,
    plan_training,
    score_all,
    train_closed_sets,
)
from flows.training_parameters import TrainAndEvaluateParameters
from storage.records import Record
from tasks.step_tasks import run_as_task
from tasks.steps import ResultT, RunStep, StepOutcome

__all__ = ["RunSummary", "train_and_evaluate"]

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
    training = plan_training(parameters)
    scorings = plan_scorings(parameters)
    closed_sets = plan_closed_sets(parameters)
    executed: list[str] = []

    def execute(step: RunStep[ResultT]) -> StepOutcome[ResultT]:
        outcome = run_as_task(step)
        if not outcome.found:
            executed.append(step.label)
        return outcome

    checkpoint = execute(training).result
    measured = [*score_all(scorings, execute), *train_closed_sets(closed_sets, execute)]
    out = parameters.run_folder
    report = write_report(parameters.dataset, [out], out / REPORT_NAME)
    _publish_artifacts(measured, report)
    return RunSummary(
        checkpoint=str(checkpoint),
        scores=tuple(measured),
        report=str(report),
        executed=tuple(executed),
    )


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
