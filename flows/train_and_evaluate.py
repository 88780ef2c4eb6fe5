"""The flow that trains a student on committed shards and scores it."""

from collections.abc import Sequence

from prefect import flow

from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.reports.page import write_report
from evaluation.scoring.measured import Measured
from flows.drawn_benchmarks import draw_missing_benchmarks
from flows.live_page import engine_log
from flows.run_plan import (
    import_all,
    plan_closed_sets,
    plan_scorings,
    plan_training,
    score_all,
    train_closed_sets,
)
from flows.training_page import publish_report, publish_scores, shown_training
from flows.training_parameters import (
    NO_SETTINGS,
    ChangedSettings,
    DatasetRoot,
    ImportsFolder,
    MinShards,
    NumProcesses,
    ProfileName,
    RunFolder,
    TrainAndEvaluateParameters,
    TrainingData,
    read_training_form,
    real_imports,
)
from storage.layout import SPEC_PATH
from storage.objects import open_objects
from storage.records import Record
from tasks.step_tasks import run_as_task
from tasks.steps import ResultT, RunStep, StepOutcome
from training.closed_sets.config import ClosedSetRequest

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


@flow(name="train-and-evaluate", persist_result=False)
def train_and_evaluate(  # noqa: PLR0913 - the fields of a form
    *,
    dataset: DatasetRoot | None = None,
    data: TrainingData = (),
    imports: ImportsFolder = None,
    out: RunFolder = None,
    profile: ProfileName = "miniature",
    min_shards: MinShards = 1,
    benchmarks: tuple[BenchmarkConfig, ...] = (),
    scoring: ChangedSettings = NO_SETTINGS,
    training: ChangedSettings = NO_SETTINGS,
    untrained: bool = True,
    baseline: bool = True,
    closed_sets: tuple[ClosedSetRequest, ...] = (),
    processes: NumProcesses = 1,
) -> RunSummary:
    """Train a student once enough shards are committed, score it, and write the report.

    An interrupted training goes on from its last checkpoint; what is over is not done again.

    Args:
        dataset: What to train on: the root of a dataset.
        data: What else is trained on, or instead: generated datasets and folders of real images,
            drawn from by their weights.
        imports: Folder where real images are kept in the engine's format; several runs may share
            one. Empty means imports in the run's folder.
        out: Folder of the run; an interrupted one is resumed, a finished one is left alone. Empty
            means the dataset's folder with -run behind its name.
        profile: Whose student is trained: a shipped profile, or the path of a YAML file.
        min_shards: Good shards that must be committed before training starts.
        benchmarks: Benchmarks to score on. Those of the drawn world are drawn if they are missing.
        scoring: Scoring settings that differ from the profile's, as in the scoring config.
        training: Training settings that differ from the profile's, as in the training config.
        untrained: Score the student before training too, to stand beside it.
        baseline: Score the profile's labeller too.
        closed_sets: Ordinary segmenters to train on the same shards and to score on the same
            benchmarks; they need the extra mmseg.
        processes: Processes that train, one a GPU, started by torchrun if there are several.

    Raises:
        IncompleteError: Fewer good shards are committed than wanted.
        InputError: Data, weights or benchmark files are missing, or a setting does not fit.
    """
    parameters = read_training_form(
        dataset=dataset,
        data=data,
        imports=imports,
        out=out,
        profile=profile,
        min_shards=min_shards,
        benchmarks=benchmarks,
        scoring=scoring,
        training=training,
        untrained=untrained,
        baseline=baseline,
        closed_sets=closed_sets,
        processes=processes,
    )
    with engine_log():
        return _run(parameters)


def _run(parameters: TrainAndEvaluateParameters) -> RunSummary:
    training = plan_training(parameters)
    draw_missing_benchmarks(parameters.benchmarks)
    scorings = plan_scorings(parameters)
    closed_sets = plan_closed_sets(parameters)
    imports = real_imports(parameters)
    executed: list[str] = []

    def execute(step: RunStep[ResultT]) -> StepOutcome[ResultT]:
        outcome = run_as_task(step)
        if not outcome.found:
            executed.append(step.label)
        return outcome

    import_all(imports, execute)
    with shown_training(training):
        checkpoint = execute(training).result
    measured = [*score_all(scorings, execute), *train_closed_sets(closed_sets, execute)]
    report = _publish(parameters, measured)
    return RunSummary(
        checkpoint=str(checkpoint),
        scores=tuple(measured),
        report=report,
        executed=tuple(executed),
    )


def _publish(parameters: TrainAndEvaluateParameters, measured: Sequence[Measured]) -> str:
    """Write the report and show it with the scores; returns the path of the page."""
    run = parameters.run_folder
    dataset = parameters.dataset
    if dataset is not None and open_objects(dataset).size(SPEC_PATH) is None:
        dataset = None
    page = write_report(dataset, [run], run / REPORT_NAME)
    publish_scores(measured)
    publish_report(dataset, run, page)
    return str(page)
