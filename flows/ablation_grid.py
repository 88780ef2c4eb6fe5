"""The grid of an ablation: its datasets, its runs, and the walk through them.

Who does the work is the caller's choice: subflows, or the process of a command line.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, model_validator

from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.reports.ablation_files import write_ablation
from evaluation.reports.ablations import Ablation, Arm, Cell, DatasetYield
from evaluation.scoring.measured import Measured, headline
from flows.generation_parameters import GenerationParameters
from flows.generation_run import open_run
from flows.quotas import try_survey
from flows.run_plan import check_benchmarks, scoring_configs
from flows.training_parameters import TrainAndEvaluateParameters, training_config
from models.profiles import load_profile, require_weights
from storage.documents import merge, validate
from storage.errors import (
    AwaitedError,
    BudgetError,
    DataError,
    EngineError,
    IncompleteError,
    InputError,
)
from storage.identity import describe_drift
from storage.paths import local_path
from storage.store import Store
from storage.vocabulary import load_vocabulary
from tasks.progress import StoppedError

_log = logging.getLogger(__name__)

Subset = Annotated[int, Field(ge=1)] | Literal["all"]

Key = tuple[str, int]
"""A dataset of a grid: kind of prompts and seed."""
Generate = Callable[[GenerationParameters], object]
Measure = Callable[[TrainAndEvaluateParameters], Sequence[Measured]]
GivenT = TypeVar("GivenT")
MadeT = TypeVar("MadeT")

_NAME = r"^[a-z0-9][a-z0-9-]*$"
_FIXED = {"root", "seed", "profile"}


class AblationParameters(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What to compare, and where to put it.

    For every seed and kind of prompts there is one dataset. On it students are trained without and
    with the counterfactual loss; on the datasets of one kind of prompts, also with other numbers of
    names an image, without the loss (MagicSeg, arXiv 2603.19575, tables V and VI).
    """

    out: str = Field(min_length=1)
    """Folder for the runs and the tables. Finished ones are not made again."""
    datasets: str | None = Field(default=None, min_length=1)
    """Folder or object-store URL of the datasets; empty means `datasets` in `out`."""
    profile: str = "miniature"
    """Models and their parameters: a shipped profile, or the path of a YAML file."""
    prompts: dict[Annotated[str, Field(pattern=_NAME)], dict[str, Any]] = Field(
        default_factory=lambda: {"rich": {}}, min_length=1
    )
    """Kinds of prompts, by the name that the tables show: for each, the generation settings in
    which it differs, such as `writer`. Published numbers stand beside `simple` and `rich`."""
    generation: dict[str, Any]
    """Generation settings of all datasets: `samples` at least; not `root`, `seed` or `profile`."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Training settings that differ from the profile's."""
    scoring: dict[str, Any] = Field(default_factory=dict)
    """Scoring settings that differ from the profile's."""
    classes_per_image: tuple[Subset, ...] = (1, "all")
    """Names an image to compare with as many as the profile trains with; `all` is the
    vocabulary."""
    names_prompts: str | None = None
    """Kind of prompts of that comparison; empty means the last."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0, 1, 2), min_length=1)
    """Each seed is a dataset for every kind of prompts, and a run for every arm."""
    benchmarks: tuple[BenchmarkConfig, ...] = Field(min_length=1)
    """Benchmarks to score on."""
    untrained: bool = True
    """Score the student before training too, once for each seed."""
    min_shards: int = Field(default=1, ge=1)
    """Good shards that a dataset must have."""
    processes: int = Field(default=1, ge=1)
    """Processes that train, one a GPU; the command line trains in its own."""

    @model_validator(mode="after")
    def _check(self) -> "AblationParameters":
        if self.names_prompts is not None and self.names_prompts not in self.prompts:
            message = f"names_prompts is {self.names_prompts!r}, expected one of {[*self.prompts]}"
            raise ValueError(message)
        if "://" in self.out:
            message = f"out is {self.out}, expected a folder of this machine"
            raise ValueError(message)
        if len(set(self.seeds)) < len(self.seeds):
            message = f"seeds {list(self.seeds)} hold one twice, expected each once"
            raise ValueError(message)
        names = [_name_of(benchmark) for benchmark in self.benchmarks]
        if len(set(names)) < len(names):
            message = f"benchmarks {names} hold one twice, expected each split once"
            raise ValueError(message)
        fixed = _FIXED & set().union(self.generation, *self.prompts.values())
        if fixed:
            message = f"generation and prompts set {sorted(fixed)}, which the grid itself sets"
            raise ValueError(message)
        return self


@dataclass(frozen=True)
class GridRun:
    """The work of one cell.

    Attributes:
        arm: What is varied.
        seed: Seed of its random choices.
        parameters: Training and scoring.
    """

    arm: Arm
    seed: int
    parameters: TrainAndEvaluateParameters

    @property
    def cell(self) -> Cell:
        """The cell before anything is done."""
        return Cell(arm=self.arm, seed=self.seed, run=str(self.parameters.run_folder))


class Grid:
    """An ablation, worked out from its parameters.

    Attributes:
        parameters: What to compare.
        num_classes: Size N of the vocabulary.
        usual: Names m of the runs that do not vary it.
        names_prompts: Kind of prompts of the runs that vary m.
        datasets: What is generated, by kind of prompts and seed.
        runs: What is trained and scored, seed after seed.

    Args:
        parameters: What to compare.

    Raises:
        InputError: If a setting is unknown or does not fit.
    """

    def __init__(self, parameters: AblationParameters) -> None:
        self.parameters = parameters
        self.num_classes = len(load_vocabulary(load_profile(parameters.profile).vocabulary))
        self.names_prompts = parameters.names_prompts or [*parameters.prompts][-1]
        self.datasets = {
            (prompts, seed): self._dataset(prompts, seed)
            for seed in parameters.seeds
            for prompts in parameters.prompts
        }
        self.usual = self._usual()
        arms = self._arms()
        self.runs = [self._run(arm, seed) for seed in parameters.seeds for arm in arms]

    @property
    def folder(self) -> Path:
        """Where the tables go."""
        return local_path(self.parameters.out, "out")

    def describe(
        self, cells: Sequence[Cell], made: Collection[Key], measured: Sequence[Measured]
    ) -> Ablation:
        """Summarise the results of the grid so far.

        Args:
            cells: All of them, as far as they are.
            made: Datasets that are complete.
            measured: All scores.
        """
        return Ablation(
            profile=self.parameters.profile,
            num_classes=self.num_classes,
            usual=self.usual,
            names_prompts=self.names_prompts,
            seeds=self.parameters.seeds,
            benchmarks=tuple(map(_name_of, self.parameters.benchmarks)),
            cells=tuple(cells),
            datasets=tuple(
                _yield_of(*key, self.datasets[key].root) for key in self.datasets if key in made
            ),
            metrics={_benchmark_of(each): headline(each)[0] for each in measured},
            protocols=_protocols(measured),
            settings=self.parameters.model_dump(mode="json"),
            engine_version=version("magicseg-engine"),
        )

    def _dataset(self, prompts: str, seed: int) -> GenerationParameters:
        parent = self.parameters.datasets or f"{self.parameters.out.rstrip('/')}/datasets"
        settings = merge(self.parameters.generation, self.parameters.prompts[prompts])
        fixed = {
            "root": f"{parent.rstrip('/')}/{prompts}-seed{seed}",
            "seed": seed,
            "profile": self.parameters.profile,
        }
        return validate(GenerationParameters, settings | fixed, f"generation of {prompts} prompts")

    def _usual(self) -> int:
        plain = TrainAndEvaluateParameters(
            dataset=next(iter(self.datasets.values())).root,
            out=self.parameters.out,
            profile=self.parameters.profile,
            training=self.parameters.training,
        )
        config = training_config(plain)
        if not config.losses.counterfactual_weight:
            message = (
                "losses.counterfactual_weight is 0, expected the weight that the runs with the "
                "counterfactual loss have: set it above 0"
            )
            raise InputError(message)
        return min(config.classes_per_image, self.num_classes)

    def _arms(self) -> tuple[Arm, ...]:
        arms = [
            Arm(prompts=prompts, classes_per_image=self.usual, counterfactual=counterfactual)
            for prompts in self.parameters.prompts
            for counterfactual in (False, True)
        ]
        for size in self.parameters.classes_per_image:
            m = self.num_classes if size == "all" else min(size, self.num_classes)
            arms.append(Arm(prompts=self.names_prompts, classes_per_image=m, counterfactual=False))
        return tuple(dict.fromkeys(arms))

    def _run(self, arm: Arm, seed: int) -> GridRun:
        varied: dict[str, Any] = {"classes_per_image": arm.classes_per_image, "seed": seed}
        if not arm.counterfactual:
            varied["losses"] = {"counterfactual_weight": 0.0}
        switch = "on" if arm.counterfactual else "off"
        name = f"{arm.prompts}-m{arm.classes_per_image}-loss-{switch}-seed{seed}"
        given = self.parameters
        first = next(iter(given.prompts))
        hosts_untrained = arm == Arm(
            prompts=first, classes_per_image=self.usual, counterfactual=False
        )
        parameters = TrainAndEvaluateParameters(
            dataset=self.datasets[arm.prompts, seed].root,
            out=f"{given.out.rstrip('/')}/runs/{name}",
            profile=given.profile,
            min_shards=given.min_shards,
            training=merge(given.training, varied),
            scoring=given.scoring,
            benchmarks=given.benchmarks,
            untrained=given.untrained and hosts_untrained,
            baseline=False,
            processes=given.processes,
        )
        training_config(parameters)
        scoring_configs(parameters)
        return GridRun(arm, seed, parameters)


def check_grid(grid: Grid) -> list[GenerationParameters]:
    """Check everything that can be checked before anything is paid for; nothing is written.

    Returns:
        The datasets that are not complete.

    Raises:
        InputError: If weights or files of a benchmark are missing, or a dataset that is there was
            made with other settings.
    """
    profile = load_profile(grid.parameters.profile)
    for dataset in grid.datasets.values():
        require_weights(dataset.recipe.models())
        dataset.recipe.check_recording()
    profile.student.check()
    check_benchmarks(grid.parameters.benchmarks)
    todo = []
    for dataset in grid.datasets.values():
        run = open_run(dataset)
        found = try_survey(run) if run is not None else None
        if found is None or found.todo:
            todo.append(dataset)
    return todo


def walk(grid: Grid, generate: Generate, measure: Measure) -> Ablation:
    """Make all datasets, then train and score all students; finished work is found, not repeated.

    A dataset or a run that fails does not stop the others. The tables are rewritten after every
    run.

    Args:
        grid: What is wanted.
        generate: Makes a dataset, or finds it complete.
        measure: Trains and scores a student, or finds that done.

    Raises:
        AwaitedError: Datasets wait for answers that come hours later; all else is done.
        BudgetError: A limit was reached.
        DataError: Runs that are there were scored in another way than today's.
        InputError: The caller must change something.
    """
    waits: list[AwaitedError] = []

    def make(dataset: GenerationParameters) -> None:
        try:
            generate(dataset)
        except AwaitedError as error:
            waits.append(error)
            raise

    broken = {key: _attempt(make, dataset)[1] for key, dataset in grid.datasets.items()}
    made = [key for key, error in broken.items() if not error]
    cells = [run.cell for run in grid.runs]
    measured: list[Measured] = []
    for index, run in enumerate(grid.runs):
        scores, error = None, broken[run.arm.prompts, run.seed]
        if not error:
            scores, error = _attempt(measure, run.parameters)
        cells[index] = _judged(run.cell, scores, error)
        measured += scores or ()
        write_ablation(grid.describe(cells, made, measured), grid.folder)
    if waits:
        raise waits[0]
    return grid.describe(cells, made, measured)


def require_all(ablation: Ablation) -> None:
    """Check that every cell is measured.

    Raises:
        IncompleteError: Some are not.
    """
    left = len(ablation.unfinished)
    if left:
        message = (
            f"{left} of {len(ablation.cells)} cells are not measured, the tables say why; "
            "run again to go on"
        )
        raise IncompleteError(message)


def _attempt(
    work: Callable[[GivenT], MadeT], given: GivenT
) -> tuple[MadeT, Literal[""]] | tuple[None, str]:
    """Do a part of the grid; returns its result, and why it failed."""
    try:
        return work(given), ""
    except EngineError as error:
        if isinstance(error, InputError | BudgetError | StoppedError):
            raise
        _log.exception("a part of the grid failed")
        return None, " ".join(str(error).split())


def _judged(cell: Cell, scores: Sequence[Measured] | None, error: str) -> Cell:
    if scores is None:
        return cell.model_copy(update={"state": "failed", "error": error})
    by_kind: dict[str, dict[str, float]] = {"student": {}, "untrained": {}}
    for each in scores:
        by_kind[each.subject.kind][_benchmark_of(each)] = headline(each)[1]
    return cell.model_copy(
        update={
            "state": "measured",
            "scores": by_kind["student"],
            "untrained_scores": by_kind["untrained"],
        }
    )


def _name_of(benchmark: BenchmarkConfig) -> str:
    return f"{benchmark.name} {benchmark.split}"


def _benchmark_of(scores: Measured) -> str:
    return f"{scores.protocol.benchmark} {scores.protocol.split}"


def _protocols(measured: Sequence[Measured]) -> dict[str, dict[str, Any]]:
    """The protocol of each benchmark; scores of two protocols do not belong in one table."""
    protocols: dict[str, dict[str, Any]] = {}
    for scores in measured:
        own = scores.protocol.model_dump(mode="json")
        if protocols.setdefault(_benchmark_of(scores), own) != own:
            message = (
                f"{_benchmark_of(scores)} was scored in two ways ("
                f"{'; '.join(describe_drift(protocols[_benchmark_of(scores)], own))}), expected "
                "one: delete the older scores below the grid's runs"
            )
            raise DataError(message)
    return protocols


def _yield_of(prompts: str, seed: int, root: str) -> DatasetYield:
    slices = Store.open(root).status()
    dropped: Counter[str] = Counter()
    for part in slices:
        dropped.update({reason.value: count for reason, count in part.dropped.items()})
    return DatasetYield(
        prompts=prompts,
        seed=seed,
        root=root,
        requested=sum(part.requested for part in slices),
        written=sum(part.written for part in slices),
        dropped=dict(dropped),
    )
