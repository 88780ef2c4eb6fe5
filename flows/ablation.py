"""The flow that compares arms of an ablation: datasets, runs and scores are subflows."""

from collections.abc import Sequence
from typing import Any, cast

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from evaluation.reports.ablation_files import format_ablation
from evaluation.reports.ablations import Ablation
from evaluation.scoring.measured import Measured
from flows.ablation_grid import AblationParameters, Grid, check_grid, require_all, walk
from flows.drawn_benchmarks import draw_missing_benchmarks
from flows.generate_dataset import generate_dataset
from flows.generation_form import form_values
from flows.generation_parameters import GenerationParameters
from flows.train_and_evaluate import RunSummary, train_and_evaluate
from flows.training_parameters import TrainAndEvaluateParameters, training_form_values
from flows.waiting import looked_at_later


@flow(name="ablate", flow_run_name="{parameters.out}", persist_result=False)
def ablate(parameters: AblationParameters) -> Ablation:
    """Train and score a grid of students, and compare them in tables.

    Every dataset and every run is a subflow, and what is done is found done: an interrupted grid
    goes on, and several workers may walk one grid.

    Args:
        parameters: What to compare.

    Raises:
        AwaitedError: Datasets wait for answers of batches; a run of a deployment is begun again
            at the time of the next look instead.
        BudgetError: The writer's budget is spent.
        IncompleteError: Cells are not measured; the tables say why.
        InputError: Weights or files are missing, or a setting does not fit.
    """
    grid = Grid(parameters)
    draw_missing_benchmarks(parameters.benchmarks)
    check_grid(grid)
    with looked_at_later():
        ablation = walk(grid, _generate, _measure)
    create_markdown_artifact(markdown=format_ablation(ablation), key="magicseg-ablation")
    require_all(ablation)
    return ablation


def _generate(parameters: GenerationParameters) -> Any:
    return generate_dataset(**form_values(parameters))


def _measure(parameters: TrainAndEvaluateParameters) -> Sequence[Measured]:
    named = train_and_evaluate.with_options(flow_run_name=parameters.run_folder.name)
    return cast("RunSummary", named(**training_form_values(parameters))).scores
