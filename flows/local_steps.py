"""Training, scoring and exports that start from a terminal: the steps of a run, in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from evaluation.reports.ablation_files import JSON_NAME, MARKDOWN_NAME
from evaluation.reports.ablations import Ablation
from evaluation.reports.comparison_files import (
    COMPARISON_JSON,
    COMPARISON_MARKDOWN,
    COMPARISON_PAGE,
    COMPARISON_PICTURE,
)
from evaluation.reports.comparisons import Comparison
from evaluation.scoring.measured import Measured, on_labels, on_points
from flows.ablation_grid import Grid, check_grid, walk
from flows.display import show_steps
from flows.drawn_benchmarks import draw_missing_benchmarks
from flows.embedded_server import ensure_server
from flows.generation_parameters import GenerationParameters
from flows.labeller_comparison import LabellerComparison, check_comparison, walk_comparison
from flows.local_runs import generate_locally
from flows.log_files import log_file
from flows.run_plan import (
    import_all,
    plan_closed_sets,
    plan_scorings,
    plan_training,
    score_all,
    train_closed_sets,
)
from flows.score_tables import point_table, score_table
from flows.self_training import SelfTrainingParameters, plan_rounds, walk_rounds
from flows.training_parameters import (
    EvaluationParameters,
    TrainAndEvaluateParameters,
    real_imports,
)
from models.labelling.attention.affinity_config import AffinityRecord
from storage.errors import InputError
from storage.exports.closed_sets import resolve_closed_set
from storage.exports.folders import ExportedSet
from storage.layout import ENGINE_FOLDER, SPEC_PATH
from storage.locks import hold_folder, refuse_other_files
from storage.objects import open_objects
from storage.store import Store
from storage.vocabulary import load_vocabulary
from tasks.affinities import AffinityJob, AffinityTraining
from tasks.closed_sets import export_dataset
from tasks.resident import ResidentModels
from tasks.steps import ResultT, RunStep, StepOutcome
from tasks.training import StudentTraining
from training.data import find_shards


class LocalExecutor:
    """Does steps in this process and shows them.

    Args:
        console: Where progress is shown.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, step: RunStep[ResultT]) -> StepOutcome[ResultT]:
        """Do a step, or find it done."""
        with self._console.status(f"looking for the {step.label}"):
            found = step.find()
        if found is not None:
            return StepOutcome(found, found=True)
        with log_file(step.folder):
            return StepOutcome(self._work(step), found=False)

    def _work(self, step: RunStep[Any]) -> Any:
        if isinstance(step, StudentTraining):
            with show_steps(step.config.optimiser.steps, self._console) as note:
                return step.work(note)
        with self._console.status(step.label):
            return step.work()


def train_locally(parameters: TrainAndEvaluateParameters, console: Console) -> Path:
    """Train a student in this process.

    Returns:
        Folder of the last checkpoint.

    Raises:
        IncompleteError: Fewer good shards are committed than wanted.
        InputError: Data or weights are missing, or the run's folder belongs to another run.
        LeaseHeldError: Somebody else trains in the run's folder.
    """
    executor = LocalExecutor(console)
    training = plan_training(parameters)
    import_all(real_imports(parameters), executor)
    outcome = executor(training)
    said = "nothing to do: training is over, " if outcome.found else "checkpoint: "
    console.print(f"{said}{outcome.result}", markup=False, soft_wrap=True)
    return outcome.result


def evaluate_locally(
    parameters: EvaluationParameters | TrainAndEvaluateParameters, console: Console
) -> list[Measured]:
    """Score a trained student, and others beside it, in this process.

    Raises:
        InputError: The checkpoint, weights or files of a benchmark are missing.
        LeaseHeldError: Somebody else scores there.
    """
    measured = score_all(plan_scorings(parameters), LocalExecutor(console))
    if labels := on_labels(measured):
        console.print(score_table(labels))
    if points := on_points(measured):
        console.print(point_table(points))
    return measured


def closed_sets_locally(parameters: TrainAndEvaluateParameters, console: Console) -> list[Measured]:
    """Train closed-set segmenters in this process, and score them.

    Raises:
        IncompleteError: Fewer good shards are committed than wanted.
        InputError: Data, weights or mmsegmentation are missing, or a folder belongs to another run.
        LeaseHeldError: Somebody else is at work in one of the folders.
    """
    executor = LocalExecutor(console)
    plans = plan_closed_sets(parameters)
    import_all(real_imports(parameters), executor)
    measured = train_closed_sets(plans, executor)
    for plan in plans:
        console.print(f"trained: {plan.training.folder}", markup=False, soft_wrap=True)
    if measured:
        console.print(score_table(on_labels(measured)))
    return measured


def export_locally(
    dataset: str, classes: str, vocabulary: str | None, out: Path, console: Console
) -> ExportedSet:
    """Export the shards of a dataset in this process, and say what came out.

    Raises:
        DataError: If a shard is damaged.
        InputError: If there is nothing to export, the vocabulary of a folder of tars is not given,
            or the folder holds something else.
        LeaseHeldError: Somebody else exports there.
    """
    closed_set = resolve_closed_set(load_vocabulary(vocabulary_of(dataset, vocabulary)), classes)
    exported = export_dataset(dataset, closed_set, out)
    table = Table("label", "class", "samples", title=f"{exported.num_samples} samples in {out}")
    for label, each in enumerate(exported.labels):
        table.add_row(str(label), each, str(exported.samples_by_class.get(each, "-")))
    console.print(table)
    console.print(f"{exported.num_skipped} samples show no class of {classes}")
    return exported


def vocabulary_of(dataset: str, given: str | None) -> str:
    """Name of the vocabulary that a dataset was made with.

    Args:
        dataset: Its root, or a folder of tars.
        given: What is said of a folder of tars, which does not name one.

    Raises:
        InputError: There is neither, or nobody names the vocabulary.
    """
    find_shards(dataset)  # what is no dataset is told before anything else
    if given:
        return given
    if open_objects(dataset).size(SPEC_PATH) is None:
        message = f"{dataset} is a folder of tars and names no vocabulary: give --vocabulary"
        raise InputError(message)
    return Store.open(dataset).vocabulary


@contextmanager
def hold_grid(grid: Grid) -> Iterator[None]:
    """Be the only command line that works in a grid's folder until the block ends.

    Raises:
        InputError: The folder holds something else.
        LeaseHeldError: Somebody else walks a grid there.
    """
    marks = ("datasets", "runs", "benchmark", JSON_NAME, MARKDOWN_NAME)
    refuse_other_files(grid.folder, "an ablation", marks=marks, early=(ENGINE_FOLDER,))
    with hold_folder(grid.folder):
        yield


@contextmanager
def hold_comparison(comparison: LabellerComparison) -> Iterator[None]:
    """Be the only command line that works in a comparison's folder until the block ends.

    Raises:
        InputError: The folder holds something else.
        LeaseHeldError: Somebody else compares there.
    """
    files = (COMPARISON_JSON, COMPARISON_MARKDOWN, COMPARISON_PAGE, COMPARISON_PICTURE)
    marks = ("datasets", "runs", "benchmark", *files)
    folder = comparison.folder
    refuse_other_files(folder, "a comparison", marks=marks, early=(ENGINE_FOLDER,))
    with hold_folder(folder):
        yield


def compare_locally(comparison: LabellerComparison, console: Console) -> Comparison:
    """Label, train and score everything of a comparison in this process.

    Raises:
        BudgetError: The writer's budget is spent.
        InputError: Weights or files are missing, or a setting does not fit.
    """
    draw_missing_benchmarks(comparison.parameters.benchmarks)
    check_comparison(comparison)
    ensure_server(comparison.folder / ENGINE_FOLDER / "prefect")
    models = ResidentModels()  # the datasets are made by the same ones

    def generate(dataset: GenerationParameters) -> None:
        console.rule(dataset.root, align="left")
        generate_locally(dataset, console, models)

    def measure(run: TrainAndEvaluateParameters) -> list[Measured]:
        models.release()
        console.rule(str(run.run_folder), align="left")
        train_locally(run, console)
        return evaluate_locally(run, console)

    def measure_closed_sets(run: TrainAndEvaluateParameters) -> list[Measured]:
        models.release()
        return closed_sets_locally(run, console)

    return walk_comparison(comparison, generate, measure, measure_closed_sets)


def train_affinity_locally(job: AffinityJob, console: Console) -> AffinityRecord:
    """Train a network of affinities in this process.

    Raises:
        InputError: Data are missing, or the folder belongs to another training.
        LeaseHeldError: Somebody else trains in the folder.
    """
    trained = LocalExecutor(console)(AffinityTraining(job)).result
    console.print(f"affinities: {job.out}", markup=False, soft_wrap=True)
    return trained


def self_train_locally(parameters: SelfTrainingParameters, console: Console) -> Path:
    """Relabel and train in this process, as many rounds as are asked for.

    Returns:
        The last round's run.

    Raises:
        InputError: Data or weights are missing, or a folder belongs to something else.
        LeaseHeldError: Somebody else works in one of the folders.
    """

    def measure(run: TrainAndEvaluateParameters) -> list[Measured]:
        console.rule(str(run.run_folder), align="left")
        train_locally(run, console)
        return evaluate_locally(run, console)

    last = walk_rounds(plan_rounds(parameters), LocalExecutor(console), measure)
    console.print(f"last run: {last}", markup=False, soft_wrap=True)
    return last


def ablate_locally(grid: Grid, console: Console) -> Ablation:
    """Walk the grid of an ablation in this process.

    Raises:
        BudgetError: The writer's budget is spent.
        InputError: Weights or files are missing, or a setting does not fit.
    """
    if check_grid(grid):
        ensure_server(grid.folder / ENGINE_FOLDER / "prefect")

    models = ResidentModels()  # the datasets of a grid are made by the same ones

    def generate(dataset: GenerationParameters) -> None:
        console.rule(dataset.root, align="left")
        generate_locally(dataset, console, models)

    def measure(run: TrainAndEvaluateParameters) -> list[Measured]:
        models.release()  # every dataset is made before the first training, which needs the memory
        console.rule(str(run.run_folder), align="left")
        train_locally(run, console)
        return evaluate_locally(run, console)

    return walk(grid, generate, measure)
