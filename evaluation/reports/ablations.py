"""Ablations: the results of a grid of runs. A cell is one training run: an arm at one seed."""

from typing import Any, Literal

from pydantic import Field

from storage.records import Record


class Arm(Record, frozen=True):
    """What is varied, apart from the seed."""

    prompts: str
    """Name of the kind of prompts."""
    classes_per_image: int = Field(ge=1)
    """Names m that an image is trained against."""
    counterfactual: bool
    """Whether the counterfactual loss is on."""


class Cell(Record, frozen=True):
    """One run of the grid."""

    arm: Arm
    """What was varied."""
    seed: int
    """Seed of the random choices of its dataset and its training."""
    run: str
    """Folder of the run."""
    state: Literal["measured", "failed", "to do"] = "to do"
    """Its state."""
    error: str = ""
    """Why it failed."""
    scores: dict[str, float] = Field(default_factory=dict)
    """The headline in [0, 1] by benchmark."""
    untrained_scores: dict[str, float] = Field(default_factory=dict)
    """The same of the student before training, in the cells where it was asked for."""


class DatasetYield(Record, frozen=True):
    """What a dataset of the grid holds."""

    prompts: str
    """Name of the kind of prompts."""
    seed: int
    """Seed of the random choices."""
    root: str
    """Where it is."""
    requested: int
    """Samples of its finished shards."""
    written: int
    """Of these, samples in tars."""
    dropped: dict[str, int]
    """The others, by reason."""


class Ablation(Record, frozen=True):
    """A grid and its results."""

    profile: str
    """Profile of the student."""
    num_classes: int
    """Size N of the vocabulary."""
    usual: int
    """Names m of the runs that are compared by their prompts, and with and without the loss."""
    names_prompts: str
    """The kind of prompts of the runs that are compared by m."""
    seeds: tuple[int, ...]
    """In the order of the tables."""
    benchmarks: tuple[str, ...]
    """In the order of the tables."""
    metrics: dict[str, str]
    """What the headline is, by benchmark: mIoU, or p-mIoU where points are asked."""
    cells: tuple[Cell, ...]
    """Every run."""
    datasets: tuple[DatasetYield, ...]
    """What the runs are trained on, where it exists."""
    protocols: dict[str, dict[str, Any]]
    """How scores were measured, by benchmark: the fields of their protocol."""
    settings: dict[str, Any]
    """The parameters of the grid."""
    engine_version: str
    """Version of the code."""

    @property
    def unfinished(self) -> tuple[Cell, ...]:
        """Cells that are not measured."""
        return tuple(cell for cell in self.cells if cell.state != "measured")
