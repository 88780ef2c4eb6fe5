"""Runs that start from a terminal: checks first, then a server, progress, and a summary."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from evaluation.reports.ablations import Ablation
from evaluation.scoring.measured import Measured, on_labels, on_points
from evaluation.scoring.results import Scores
from flows.ablation_grid import AblationParameters, Grid, check_grid, walk
from flows.display import show_progress, show_steps
from flows.embedded_server import ensure_server
from flows.generation_parameters import GenerationParameters
from flows.generation_run import GenerationRun, prepare
from flows.score_tables import point_table, score_table, yield_table
from flows.training_parameters import TrainAndEvaluateParameters, closed_set_jobs, training_config
from storage.errors import InputError
from storage.exports.closed_sets import resolve_closed_set
from storage.exports.folders import ExportedSet, export_shards
from storage.layout import SPEC_PATH
from storage.objects import open_objects
from storage.records import Stage
from storage.store import Store
from storage.vocabulary import load_vocabulary
from tasks.resident import ResidentModels

PACKAGES = ("flows", "tasks", "models", "storage", "training", "evaluation")


def generate_locally(
    parameters: GenerationParameters, console: Console, models: ResidentModels | None = None
) -> None:
    """Generate a slice in this process and say what was done.

    Everything that can be checked is checked before a server is started or anything is paid for.
    If all shards are committed no server is started at all.

    Args:
        parameters: What to generate.
        console: Where progress and summary go.
        models: Models of an earlier run to go on with.

    Raises:
        InputError: The parameters mean nothing, weights are missing, or the dataset that is there
            was made with other settings.
        IncompleteError: Shards are left to do.
    """
    with prepare(parameters, models) as run:
        if _describe_work(run, console):
            _generate(run, console)


def _describe_work(run: GenerationRun, console: Console) -> bool:
    """Say what there is to do; returns whether there is anything."""
    what = f"slice {run.classes.label} ({len(run.classes.class_ids)} classes)"
    num_planned, num_todo = len(run.planned), len(run.todo)
    if not num_todo:
        console.print(
            f"nothing to do: all {num_planned} shards of {what} are committed, "
            f"no stage was executed",
            soft_wrap=True,
        )
        return False
    samples = sum(len(shard.samples) for shard in run.planned)
    console.print(
        f"{what}: {num_planned} shards of {samples} samples, "
        f"{num_planned - num_todo} committed, {num_todo} to do",
        soft_wrap=True,
    )
    return True


def _generate(run: GenerationRun, console: Console) -> None:
    """Run the flow on a server, with progress, and say what came of it."""
    folder = _engine_folder(run.parameters.root)
    sizes = {shard.name: len(shard.samples) for shard in run.todo}
    with log_file(folder):
        address = ensure_server(folder / "prefect")
        from prefect.settings import PREFECT_API_URL, temporary_settings

        from flows.generate_dataset import generate_dataset

        # An earlier command of this process may have imported Prefect before there was a server.
        with (
            temporary_settings({PREFECT_API_URL: address}),
            show_progress(run.machine.progress, sizes, console) as counts,
            run.handed_on(),
        ):
            summary = generate_dataset(run.parameters)
    console.print(yield_table(summary.written, summary.requested, summary.dropped))
    executed = ", ".join(f"{stage.value} of {n}" for stage, n in summary.executed.items())
    cached = counts.cached() + summary.finished_before * len(Stage)
    console.print(
        f"executed: {executed or 'nothing'} shards; {cached} stages were committed before",
        soft_wrap=True,
    )


def train_locally(parameters: TrainAndEvaluateParameters, console: Console) -> Path:
    """Train a student in this process.

    Returns:
        Folder of the last checkpoint.

    Raises:
        IncompleteError: Fewer good shards are committed than wanted.
        InputError: Data or weights are missing, or the run's folder belongs to another run.
    """
    from tasks.training import find_finished, require_shards
    from training.loop import train

    require_shards(parameters.dataset, parameters.min_shards)
    config = training_config(parameters)
    finished = find_finished(config)
    if finished is not None:
        console.print(f"nothing to do: training is over, {finished}", markup=False, soft_wrap=True)
        return finished
    with log_file(Path(config.out)), show_steps(config.optimiser.steps, console) as note:
        checkpoint = train(config, on_step=note)
    console.print(f"checkpoint: {checkpoint}", markup=False, soft_wrap=True)
    return checkpoint


def evaluate_locally(parameters: TrainAndEvaluateParameters, console: Console) -> list[Measured]:
    """Score a trained student, and others beside it, in this process.

    Raises:
        InputError: The checkpoint, weights or files of the benchmark are missing.
    """
    from flows.train_and_evaluate import score_jobs
    from models.student.trained import load_student
    from tasks.measuring import find_scores
    from tasks.scores import describe_subject, run_job

    _, meta = load_student(parameters.run_folder)
    measured = []
    for job in score_jobs(parameters, meta["config"]["seed"]):
        subject = describe_subject(job)
        known = find_scores(job, subject)
        with console.status(f"scoring the {subject.name} on {job.benchmark.name}"):
            measured.append(known or run_job(job))
    if labels := on_labels(measured):
        console.print(score_table(labels))
    if points := on_points(measured):
        console.print(point_table(points))
    return measured


def export_locally(
    dataset: str, classes: str, vocabulary: str | None, out: Path, console: Console
) -> ExportedSet:
    """Export the shards of a dataset in this process, and say what came out.

    Raises:
        DataError: If a shard is damaged.
        InputError: If there is nothing to export, the vocabulary of a folder of tars is not given,
            or the folder holds something else.
    """
    from training.data import find_shards

    shards = {shard.path: shard.identity for shard in find_shards(dataset)}
    closed_set = resolve_closed_set(load_vocabulary(vocabulary or _vocabulary(dataset)), classes)
    exported = export_shards(shards, closed_set, out)
    table = Table("label", "class", "samples", title=f"{exported.num_samples} samples in {out}")
    for label, each in enumerate(exported.labels):
        table.add_row(str(label), each, str(exported.samples_by_class.get(each, "-")))
    console.print(table)
    console.print(f"{exported.num_skipped} samples show no class of {classes}")
    return exported


def _vocabulary(dataset: str) -> str:
    """Name of the vocabulary that a dataset was made with."""
    if open_objects(dataset).size(SPEC_PATH) is None:
        message = f"{dataset} is a folder of tars and names no vocabulary: give --vocabulary"
        raise InputError(message)
    return Store.open(dataset).spec["plan"]["vocabulary"]


def closed_sets_locally(parameters: TrainAndEvaluateParameters, console: Console) -> list[Scores]:
    """Train closed-set segmenters in this process, and score them.

    Raises:
        IncompleteError: Fewer good shards are committed than wanted.
        InputError: Data, weights or mmsegmentation are missing, or a folder belongs to another run.
    """
    from flows.train_and_evaluate import closed_set_score_jobs
    from tasks.closed_sets import describe_subject, export_dataset, run_job
    from tasks.measuring import find_scores
    from tasks.training import require_shards
    from training.closed_sets.loop import train

    jobs = closed_set_jobs(parameters)
    require_shards(parameters.dataset, parameters.min_shards)
    measured = []
    for job in jobs:
        with log_file(Path(job.config.out)), console.status(f"training {job.config.name}"):
            export_dataset(job)
            record = train(job.config)
        console.print(f"trained: {job.config.out}", markup=False, soft_wrap=True)
        for wanted in closed_set_score_jobs(parameters, job):
            with console.status(f"scoring {job.config.name} on {wanted.benchmark.name}"):
                known = find_scores(wanted, describe_subject(record))
                measured.append(known or run_job(wanted))
    if measured:
        console.print(score_table(measured))
    return measured


def ablate_locally(parameters: AblationParameters, console: Console) -> Ablation:
    """Walk the grid of an ablation in this process.

    Raises:
        BudgetError: The writer's budget is spent.
        InputError: Weights or files are missing, or a setting does not fit.
    """
    grid = Grid(parameters)
    if check_grid(grid):
        ensure_server(grid.folder / ".engine" / "prefect")
    from flows.ablation import check_scoring

    check_scoring(grid)

    def generate(dataset: GenerationParameters) -> None:
        console.rule(dataset.root, align="left")
        generate_locally(dataset, console)

    def measure(run: TrainAndEvaluateParameters) -> list[Measured]:
        console.rule(str(run.run_folder), align="left")
        train_locally(run, console)
        return evaluate_locally(run, console)

    return walk(grid, generate, measure)


@contextmanager
def log_file(folder: Path) -> Iterator[Path]:
    """Write what our packages log into a file of the store, until the block ends."""
    path = folder / "logs" / f"{datetime.now(UTC):%Y%m%dT%H%M%S}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(package) for package in PACKAGES]
    for logger in loggers:
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
    try:
        yield path
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()


def _engine_folder(root: str) -> Path:
    """Where a local run keeps its database and logs: in the store, if that is a folder."""
    if "://" in root:
        return Path.home() / ".cache" / "magicseg"
    return Path(root).expanduser() / ".engine"
