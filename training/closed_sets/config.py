"""Settings of a closed-set training; nothing here needs torch or mmsegmentation."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, model_validator

from models.closed_sets.configs import RECIPE_FOLDER, NetworkConfig
from storage.documents import read_yaml, suggest
from storage.errors import InputError
from storage.exports.closed_sets import ClosedSet, resolve_closed_set
from storage.folds import Fold
from storage.identity import digest
from storage.paths import local_path
from storage.vocabulary import load_vocabulary
from training.shares import source_shares


class ExportSource(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """One of several exports that a network is trained on."""

    data: str = Field(min_length=1)
    """Folder of the export."""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Its share of the images drawn is this by the sum of all weights."""


class ClosedSetConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """One run; the defaults are those of Dataset Diffusion (NeurIPS 2023) for PASCAL VOC."""

    name: str
    """Name of the network in reports."""
    data: str = ""
    """Folder of an export."""
    sources: tuple[ExportSource, ...] = ()
    """Instead of `data`: several exports of the same classes, drawn from by their weights."""
    out: str
    """Folder of the run."""
    network: NetworkConfig
    """What is trained."""
    steps: int = Field(default=20_000, gt=0)
    """Updates; Dataset Diffusion has 20,000 for PASCAL VOC and 40,000 for COCO."""
    batch_size: int = Field(default=8, gt=0)
    """Images an update."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Highest learning rate of AdamW."""
    backbone_rate: float = Field(default=0.1, gt=0)
    """Factor of the backbone's learning rate."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Of all tensors."""
    power: float = Field(default=0.9, gt=0)
    """Exponent of the polynomial fall to 0."""
    clip_norm: float | None = Field(default=0.01, gt=0)
    """Largest norm of the gradient; empty leaves it as it is."""
    crop: int = Field(default=512, ge=32)
    """Side of the square crops in pixels."""
    short_side: int = Field(default=512, ge=32)
    """Pixels of the shorter side before random scaling, and when images are scored."""
    long_side: int = Field(default=2048, ge=32)
    """Most pixels of the longer side; it wins over `short_side`."""
    min_scale: float = Field(default=0.5, gt=0)
    """Least random scale."""
    max_scale: float = Field(default=2.0, gt=0)
    """Largest random scale."""
    cat_max_ratio: float = Field(default=0.75, gt=0, le=1)
    """Largest share of one label in a crop; up to ten crops are tried."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Share of mirrored images."""
    photometric: bool = True
    """Whether brightness, contrast, saturation and hue are changed at random."""
    seed: int = Field(default=0, ge=0)
    """Seed of every random choice."""
    workers: int = Field(default=4, ge=0)
    """Processes that read and augment; 0 does it between the updates."""
    checkpoint_every: int = Field(default=2_000, gt=0)
    """Updates between checkpoints."""
    log_every: int = Field(default=50, gt=0)
    """Updates between lines of the log."""

    @model_validator(mode="after")
    def _check_exports(self) -> "ClosedSetConfig":
        if bool(self.data) == bool(self.sources):
            found = "both are there" if self.data else "neither is"
            message = f"expected either data or sources, but {found}: give one of them"
            raise ValueError(message)
        source_shares([source.weight for source in self.sources])
        return self

    @property
    def exports(self) -> tuple[ExportSource, ...]:
        """What images are drawn from: one export, or several by their weights."""
        return self.sources or (ExportSource(data=self.data),)

    def identity(self) -> dict[str, Any]:
        """Fields that decide the weights that come out; places and logging are left out."""
        places = {"name", "data", "sources", "out", "workers", "checkpoint_every", "log_every"}
        found = self.model_dump(mode="json", exclude=places)
        if len(self.sources) > 1:
            found["shares"] = source_shares([source.weight for source in self.sources])
        return found


class ClosedSetRequest(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """A closed-set segmenter that is wanted."""

    recipe: str
    """Network and schedule: a shipped recipe (deeplabv3_r50, deeplabv3_r101, mask2former_r50,
    mask2former_swin_b, deeplabv3_miniature, mask2former_miniature), or the path of a YAML file."""
    classes: str
    """Its classes: voc20, coco80, coco_stuff, cityscapes, context59, miniature, or names between
    commas."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings that differ from the recipe's, as in the closed-set config."""

    @property
    def folder_name(self) -> str:
        """A folder name that differs for each recipe, set of classes and settings."""
        changed = f"-{digest(self.settings)[:8]}" if self.settings else ""
        return f"{Path(self.recipe).stem}-{self.data_name}{changed}"

    @property
    def data_name(self) -> str:
        """A folder name that differs for each set of classes."""
        plain = self.classes.isalnum()
        return self.classes if plain else f"names-{digest(self.classes)[:8]}"


class ClosedSetJob(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """A closed-set segmenter to train."""

    datasets: tuple[str, ...] = Field(min_length=1)
    """Roots of datasets, or folders of tars."""
    vocabulary: str
    """Name of the vocabulary that the label maps index."""
    classes: str
    """The network's classes, as `storage.exports.closed_sets` reads them."""
    held_out: Fold | None = None
    """Samples of the datasets that are not exported, so that the network can judge them; noise
    learning sets it. What noise learning said of samples before does not count then."""
    config: ClosedSetConfig
    """Network and schedule; the export of each dataset goes to one of its `exports`."""

    @property
    def closed_set(self) -> ClosedSet:
        """The classes.

        Raises:
            InputError: If the text means none.
        """
        return resolve_closed_set(load_vocabulary(self.vocabulary), self.classes)


def load_recipe(name: str) -> dict[str, Any]:
    """Read a recipe: fields of `ClosedSetConfig` without places.

    Args:
        name: A shipped recipe, or the path of a YAML file (with its suffix).

    Raises:
        InputError: If there is none, or it is not a YAML mapping.
    """
    is_path = Path(name).suffix in {".yaml", ".yml"}
    shipped = sorted(file.stem for file in RECIPE_FOLDER.glob("*.yaml"))
    if not is_path and name not in shipped:
        message = (
            f"recipe {name!r} is unknown; {suggest(name, shipped)}, or the path of a .yaml file"
        )
        raise InputError(message)
    file = local_path(name, "the recipe") if is_path else RECIPE_FOLDER / f"{name}.yaml"
    return {"name": file.stem, **read_yaml(file)}
