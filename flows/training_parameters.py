"""The parameters of training and scoring: they compose what each package owns."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, model_validator

from evaluation.benchmarks.contract import BenchmarkConfig
from flows.data_sources import IMPORTS_FOLDER, DataSource
from models.closed_sets.packages import require_packages
from models.profiles import load_profile
from storage.documents import merge, validate
from storage.errors import InputError
from storage.exports.closed_sets import resolve_closed_set
from storage.paths import local_path
from storage.vocabulary import load_vocabulary
from tasks.imports import RealImport
from training.closed_sets.config import ClosedSetConfig, ClosedSetJob, ClosedSetRequest, load_recipe
from training.config import TrainingConfig
from training.shares import source_shares

CLOSED_SETS_FOLDER = "closed-sets"
"""Name of the folder, in a run's, with its closed-set segmenters."""

__all__ = ["EvaluationParameters", "TrainAndEvaluateParameters"]

DatasetRoot = Annotated[str, Field(min_length=1)]
ProfileName = Annotated[str, Field(min_length=1)]
RunFolder = Annotated[str, Field(min_length=1)] | None
ImportsFolder = Annotated[str, Field(min_length=1)] | None
TrainingData = tuple[DataSource, ...]
MinShards = Annotated[int, Field(ge=1)]
NumProcesses = Annotated[int, Field(ge=1)]
ChangedSettings = dict[str, Any]

NO_SETTINGS: ChangedSettings = {}
"""What a form shows where nothing differs from the profile; nobody changes it."""


class ScoringParameters(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What to score on, and how: the part that every run with scores has."""

    profile: ProfileName = "miniature"
    """Profile whose student is meant: a shipped one, or the path of a YAML file."""
    scoring: ChangedSettings = Field(default_factory=dict)
    """Scoring settings that differ from the profile's, as in the scoring config."""
    benchmarks: tuple[BenchmarkConfig, ...] = ()
    """Benchmarks to score on."""
    untrained: bool = True
    """Score the student before training too, to stand beside it."""
    baseline: bool = True
    """Score the profile's labeller too."""


class EvaluationParameters(ScoringParameters, frozen=True):
    """Which trained student to score, and on what."""

    run: str = Field(min_length=1)
    """Folder of its training run."""
    by_image: bool = False
    """Score again what an older version scored without figures and pictures of single images."""

    @property
    def run_folder(self) -> Path:
        """Where the run is."""
        return local_path(self.run, "run")


class TrainAndEvaluateParameters(ScoringParameters, frozen=True):
    """What to train on, and what to score it on."""

    dataset: DatasetRoot | None = None
    """Root of a dataset; with `data` beside it a source of weight 1."""
    data: TrainingData = ()
    """What else is trained on, or instead: generated datasets and folders of real images, drawn
    from by their weights."""
    imports: ImportsFolder = None
    """Folder where real images are kept in the engine's format; several runs may share one. Empty
    means `imports` in the run's folder."""
    out: RunFolder = None
    """Folder of the run; an interrupted one is resumed, a finished one is left alone. Empty means
    the dataset's folder with `-run` behind its name."""
    min_shards: MinShards = 1
    """Good shards that must be committed before training starts."""
    training: ChangedSettings = Field(default_factory=dict)
    """Training settings that differ from the profile's, as in the training config."""
    closed_sets: tuple[ClosedSetRequest, ...] = ()
    """Ordinary segmenters to train on the same shards and to score on the same benchmarks; they
    need the extra `mmseg`."""
    processes: NumProcesses = 1
    """Processes that train, one a GPU, started by torchrun if there are several."""

    @model_validator(mode="after")
    def _check_sources(self) -> "TrainAndEvaluateParameters":
        if not self.sources:
            message = "there is nothing to train on: give dataset or data"
            raise ValueError(message)
        source_shares([source.weight for source in self.sources])
        return self

    @property
    def sources(self) -> tuple[DataSource, ...]:
        """Everything that is trained on."""
        own = () if self.dataset is None else (DataSource(path=self.dataset),)
        return own + self.data

    @property
    def run_folder(self) -> Path:
        """Where the run is.

        Raises:
            InputError: None is given and the dataset is not a folder.
        """
        if self.out is not None:
            return local_path(self.out, "out")
        if self.dataset is None:
            message = "there is no dataset to name the run after: set out to the folder of the run"
            raise InputError(message)
        if "://" in self.dataset:
            message = f"{self.dataset} is not a folder: set out to the folder of the run"
            raise InputError(message)
        return local_path(f"{self.dataset.rstrip('/')}-run")


def read_training_form(**values: Any) -> TrainAndEvaluateParameters:
    """The parameters that a filled-in form of the flow `train-and-evaluate` means.

    Args:
        **values: Its fields; those that are left out have their defaults.

    Raises:
        InputError: One is unknown, missing, or does not fit.
    """
    return validate(TrainAndEvaluateParameters, values, "parameters of train-and-evaluate")


def training_form_values(parameters: TrainAndEvaluateParameters) -> dict[str, Any]:
    """The form that means these parameters: what `train_and_evaluate` is called with."""
    return {name: getattr(parameters, name) for name in type(parameters).model_fields}


def real_imports(parameters: TrainAndEvaluateParameters) -> list[RealImport]:
    """The steps that bring folders of real images into the engine's format."""
    return [step for step in _imports(parameters) if step is not None]


def _imports(parameters: TrainAndEvaluateParameters) -> list[RealImport | None]:
    """For each source the import that it needs."""
    vocabulary = load_profile(parameters.profile).vocabulary
    folder = parameters.imports or str(parameters.run_folder / IMPORTS_FOLDER)
    return [source.real_import(vocabulary, folder) for source in parameters.sources]


def source_places(parameters: TrainAndEvaluateParameters) -> list[str]:
    """Where the tars of each source are, or will be once it is imported.

    Raises:
        DataError: If files of real images are damaged.
        InputError: If some are missing.
    """
    return [
        source.path if step is None else str(step.folder)
        for source, step in zip(parameters.sources, _imports(parameters), strict=True)
    ]


def training_config(parameters: TrainAndEvaluateParameters) -> TrainingConfig:
    """The training settings: the profile's, with the parameters' on top.

    Raises:
        DataError: If files of real images are damaged.
        InputError: If a setting is unknown or does not fit, or files of real images are missing.
    """
    profile = load_profile(parameters.profile)
    places = source_places(parameters)
    weighted = [
        {"dataset": place, "weight": source.weight}
        for place, source in zip(places, parameters.sources, strict=True)
    ]
    document = {
        **merge(profile.training, parameters.training),
        **({"dataset": places[0]} if len(places) == 1 else {"sources": weighted}),
        "out": str(parameters.run_folder),
        "vocabulary": profile.vocabulary,
        "student": profile.student.model_dump(),
    }
    return validate(TrainingConfig, document, f"training settings of {profile.name}")


def closed_set_jobs(parameters: TrainAndEvaluateParameters) -> list[ClosedSetJob]:
    """The closed-set segmenters to train: recipes with the parameters' settings on top.

    Raises:
        DataError: If files of real images are damaged.
        InputError: If a recipe or a setting is unknown, does not fit, or mmsegmentation or files of
            real images are missing.
    """
    if not parameters.closed_sets:
        return []
    require_packages()
    places = source_places(parameters)
    vocabulary = load_profile(parameters.profile).vocabulary
    folder = parameters.run_folder / CLOSED_SETS_FOLDER
    jobs = []
    for request in parameters.closed_sets:
        document = {
            **merge(load_recipe(request.recipe), request.settings),
            **_exports(folder / f"data-{request.data_name}", parameters.sources),
            "out": str(folder / request.folder_name),
        }
        job = ClosedSetJob(
            datasets=tuple(places),
            vocabulary=vocabulary,
            classes=request.classes,
            config=validate(ClosedSetConfig, document, f"settings of {request.recipe}"),
        )
        resolve_closed_set(load_vocabulary(vocabulary), request.classes)
        jobs.append(job)
    return jobs


def _exports(folder: Path, sources: Sequence[DataSource]) -> dict[str, Any]:
    """The folders of the exports: one for each source, numbered from the second on."""
    if len(sources) == 1:
        return {"data": str(folder)}
    names = [folder.name, *(f"{folder.name}-{number}" for number in range(2, len(sources) + 1))]
    return {
        "sources": [
            {"data": str(folder.with_name(name)), "weight": source.weight}
            for name, source in zip(names, sources, strict=True)
        ]
    }
