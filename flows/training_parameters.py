"""The parameters of the flows: they compose what each package owns, and can be read from YAML."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, Field

from evaluation.benchmarks.catalogue import BenchmarkConfig
from models.closed_sets.networks import require_packages
from models.profiles import load_profile
from models.writing.writers import WriterConfig
from storage.documents import read_yaml, validate
from storage.errors import InputError
from storage.exports.closed_sets import resolve_closed_set
from storage.plan import DatasetSpec
from storage.vocabulary import load_vocabulary
from tasks.detections import DetectionRules
from tasks.masks import MaskRules
from tasks.pairs import PairRules
from tasks.prompts import PromptRules
from tasks.recipe import Recipe
from training.closed_sets.loop import ClosedSetConfig, ClosedSetJob, ClosedSetRequest, load_recipe
from training.config import TrainingConfig

ParametersT = TypeVar("ParametersT", bound=BaseModel)


class GenerationParameters(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What to generate, and where."""

    root: str = Field(min_length=1)
    """Dataset: a folder or an object-store URL. An existing dataset is resumed or extended."""
    samples: int = Field(ge=1)
    """Samples to plan for the slice. More than before extends the slice."""
    slice: str = "all"
    """Classes: all, a named slice (lvis-r, voc20, ...), a range of ids (0:100), or names between
    commas."""
    profile: str = "miniature"
    """Models and their parameters: a shipped profile, or the path of a YAML file."""
    writer: WriterConfig | None = None
    """Who writes the texts instead of the profile's writer."""
    shards: str = "all"
    """Shards of the slice to work on: all, or indices and ranges such as 0-3,7."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Root of every random choice."""
    samples_per_shard: int = Field(default=1000, ge=1)
    """Samples that are made, committed and resumed as one."""
    two_class_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the samples that name two classes."""
    texts_per_class_set: int = Field(default=10, ge=1)
    """Consecutive samples with the same classes, whose texts are asked for at once."""
    prompts: PromptRules = PromptRules()
    """When a text is good enough."""
    pairs: PairRules = PairRules()
    """When a pair of images is good enough."""
    detections: DetectionRules = DetectionRules()
    """When the detector has found what was asked for."""
    masks: MaskRules = MaskRules()
    """When a mask is good enough."""
    min_yield: float = Field(default=0.25, ge=0, le=1)
    """A shard with a smaller share of written samples is degraded: training leaves it out."""
    device: str = "auto"
    """Where the models run: auto, cpu, cuda, cuda:1 ..."""
    batch_size: int | None = Field(default=None, ge=1)
    """Images that a network sees at once; nothing means what the profile says."""
    shards_in_flight: int = Field(default=2, ge=1, le=64)
    """Shards worked on at once in this process: writing and packing overlap with painting."""
    max_failed_shards: int = Field(default=3, ge=1)
    """Start no further shard after so many have failed."""
    writer_limit: str | None = None
    """Name of a Prefect concurrency limit that every use of the writer must fit into, over all
    workers; it must exist."""
    ready_after_shards: int | None = Field(default=None, ge=1)
    """Announce the dataset as ready for training once so many good shards are committed."""

    @property
    def spec(self) -> DatasetSpec:
        """What fixes the plan."""
        return DatasetSpec(
            vocabulary=load_profile(self.profile).vocabulary,
            seed=self.seed,
            samples_per_shard=self.samples_per_shard,
            two_class_share=self.two_class_share,
            texts_per_class_set=self.texts_per_class_set,
        )

    @property
    def recipe(self) -> Recipe:
        """How samples are made, on the device asked for."""
        profile = load_profile(self.profile)
        execution: dict[str, Any] = {"device": self.device}
        if self.batch_size is not None:
            execution["batch_size"] = self.batch_size
        roles: dict[str, Any] = {
            role: getattr(profile, role).model_copy(update=execution)
            for role in ("painter", "detector", "segmenter")
        }
        if self.writer is not None:
            roles["writer"] = self.writer
        return Recipe(
            profile=profile.model_copy(update=roles),
            prompts=self.prompts,
            pairs=self.pairs,
            detections=self.detections,
            masks=self.masks,
        )


class TrainAndEvaluateParameters(
    BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True
):
    """What to train on, and what to score it on."""

    dataset: str = Field(min_length=1)
    """Root of a dataset."""
    out: str | None = Field(default=None, min_length=1)
    """Folder of the run; an interrupted one is resumed, a finished one is left alone. Nothing means
    the dataset's folder with `-run` behind its name."""
    profile: str = "miniature"
    """Profile whose student is trained: a shipped one, or the path of a YAML file."""
    min_shards: int = Field(default=1, ge=1)
    """Good shards that must be committed before training starts."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Training settings that differ from the profile's, as in the training config."""
    scoring: dict[str, Any] = Field(default_factory=dict)
    """Scoring settings that differ from the profile's, as in the scoring config."""
    benchmarks: tuple[BenchmarkConfig, ...] = ()
    """Benchmarks to score on."""
    untrained: bool = True
    """Score the student before training too, to stand beside it."""
    baseline: bool = True
    """Score the profile's detector with its segmenter too."""
    closed_sets: tuple[ClosedSetRequest, ...] = ()
    """Ordinary segmenters to train on the same shards and to score on the same benchmarks; they
    need the extra `mmseg`."""
    processes: int = Field(default=1, ge=1)
    """Processes that train, one a GPU, started by torchrun if there are several."""

    @property
    def run_folder(self) -> Path:
        """Where the run is.

        Raises:
            InputError: None is given and the dataset is no folder.
        """
        if self.out is not None:
            return Path(self.out).expanduser()
        if "://" in self.dataset:
            message = f"{self.dataset} is no folder: set out to the folder of the run"
            raise InputError(message)
        return Path(f"{self.dataset.rstrip('/')}-run").expanduser()


def training_config(parameters: TrainAndEvaluateParameters) -> TrainingConfig:
    """The training settings: the profile's, with the parameters' on top.

    Raises:
        InputError: If a setting is unknown or does not fit.
    """
    profile = load_profile(parameters.profile)
    document = {
        **merge(profile.training, parameters.training),
        "dataset": parameters.dataset,
        "out": str(parameters.run_folder),
        "vocabulary": profile.vocabulary,
        "student": profile.student.model_dump(),
    }
    return validate(TrainingConfig, document, f"training settings of {profile.name}")


def closed_set_jobs(parameters: TrainAndEvaluateParameters) -> list[ClosedSetJob]:
    """The closed-set segmenters to train: recipes with the parameters' settings on top.

    Raises:
        InputError: If a recipe or a setting is unknown, does not fit, or mmsegmentation is missing.
    """
    if parameters.closed_sets:
        require_packages()
    vocabulary = load_profile(parameters.profile).vocabulary
    folder = parameters.run_folder / "closed-sets"
    jobs = []
    for request in parameters.closed_sets:
        document = {
            **merge(load_recipe(request.recipe), request.settings),
            "data": str(folder / f"data-{request.data_name}"),
            "out": str(folder / request.folder_name),
        }
        job = ClosedSetJob(
            dataset=parameters.dataset,
            vocabulary=vocabulary,
            classes=request.classes,
            config=validate(ClosedSetConfig, document, f"settings of {request.recipe}"),
        )
        resolve_closed_set(load_vocabulary(vocabulary), request.classes)
        jobs.append(job)
    return jobs


def read_parameters(
    kind: type[ParametersT], file: Path | None, values: Mapping[str, Any]
) -> ParametersT:
    """Read parameters from a YAML file and from single values, which win.

    Args:
        kind: Which parameters.
        file: YAML file, or nothing.
        values: By name; dots reach into nested models (`masks.min_area`).

    Raises:
        InputError: If the file is no YAML mapping, a key is unknown, or a value does not fit; says
            where, and what is close to an unknown key.
    """
    document = nest(values, read_yaml(file) if file else {})
    return validate(kind, document, str(file) if file else "parameters")


def nest(values: Mapping[str, Any], document: dict[str, Any] | None = None) -> dict[str, Any]:
    """Put values under dotted names into nested mappings.

    Args:
        values: By name, such as `optimiser.steps`.
        document: Where to put them; an empty one if none is given.

    Raises:
        InputError: If a name reaches into a value that holds nothing.
    """
    document = {} if document is None else document
    for name, value in values.items():
        _put(document, name.split("."), value, name)
    return document


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values of both, those of the second where both have one."""
    merged = dict(low)
    for name, value in high.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = merge(merged[name], value) if nested else value
    return merged


def split_assignment(text: str) -> tuple[str, Any]:
    """Split `a.b=value`; the value is read as YAML.

    Raises:
        InputError: If there is no `=` or the value is no YAML.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        message = f"{text!r} sets nothing, expected name=value such as masks.min_area=0.01"
        raise InputError(message)
    try:
        return name.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        message = f"the value of {text!r} is no YAML ({' '.join(str(error).split())})"
        raise InputError(message) from error


def _put(document: dict[str, Any], path: list[str], value: Any, name: str) -> None:
    for part in path[:-1]:
        document = document.setdefault(part, {})
        if not isinstance(document, dict):
            message = f"{name} cannot be set: {part} holds a single value"
            raise InputError(message)
    document[path[-1]] = value
