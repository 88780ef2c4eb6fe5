"""Training of closed-set segmenters on an exported dataset; `python -m training.closed_sets.loop`.

The counterpart of the student in MagicSeg's table IV (arXiv 2603.19575): an ordinary segmenter that
knows a benchmark's classes and nothing else. mmengine's runner does the work; this module says what
a run is made of, refuses to mix two runs, and leaves one file of weights behind.

    out/model.safetensors  out/closed_set.json    the trained network and what it is made of
    out/metrics.jsonl                             one line an update
    out/run.json                                  what the run is made of, before it is over
    out/work/                                     mmengine's: config, checkpoints, logs
"""

import argparse
import hashlib
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.closed_sets.networks import RECIPE_FOLDER, NetworkConfig, build_network
from storage.documents import read_yaml, suggest
from storage.errors import DataError, EngineError, InputError
from storage.exports.closed_sets import ClosedSet, resolve_closed_set
from storage.exports.folders import ExportedSet, read_export
from storage.files import write_whole
from storage.identity import canonical_json, describe_drift, digest
from storage.vocabulary import load_vocabulary

WEIGHTS_FILE = "model.safetensors"
RECORD_FILE = "closed_set.json"
WORK_FOLDER = "work"

_RUN_FILE = "run.json"


class ClosedSetConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """One run; the defaults are those of Dataset Diffusion (NeurIPS 2023) for PASCAL VOC."""

    name: str
    """What reports call the network."""
    data: str
    """Folder of an export."""
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
    """What the backbone's rate is multiplied by."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Of all tensors."""
    power: float = Field(default=0.9, gt=0)
    """Exponent of the polynomial fall to 0."""
    clip_norm: float | None = Field(default=0.01, gt=0)
    """Largest norm of the gradient; nothing leaves it as it is."""
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
    """Largest share of one label in a crop; ten are tried."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Share of mirrored images."""
    photometric: bool = True
    """Whether brightness, contrast, saturation and hue are changed at random."""
    seed: int = Field(default=0, ge=0)
    """Root of every random choice."""
    workers: int = Field(default=4, ge=0)
    """Processes that read and augment; 0 does it between the updates."""
    checkpoint_every: int = Field(default=2_000, gt=0)
    """Updates between checkpoints."""
    log_every: int = Field(default=50, gt=0)
    """Updates between lines of the log."""

    def identity(self) -> dict[str, Any]:
        """Fields that decide the weights that come out; places and habits are left out."""
        places = {"name", "data", "out", "workers", "checkpoint_every", "log_every"}
        return self.model_dump(mode="json", exclude=places)


class TrainedSet(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What a finished run's weights are: the contents of ``closed_set.json``."""

    fingerprint: str
    """Digest of config, classes and data."""
    config: ClosedSetConfig
    """How it was trained."""
    closed_set: ClosedSet
    """Classes in the order of the network's outputs from 1 on; output 0 is background."""
    num_samples: int
    """Images that it was trained on."""
    weights_sha256: str
    """Digest of the file of weights."""


class ClosedSetRequest(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """A closed-set segmenter that is wanted."""

    recipe: str
    """Network and schedule: a shipped recipe (deeplabv3_r50, deeplabv3_r101, mask2former_r50,
    deeplabv3_miniature, mask2former_miniature), or the path of a YAML file."""
    classes: str
    """Its classes: voc20, coco80, context59, miniature, or names between commas."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings that differ from the recipe's, as in the closed-set config."""

    @property
    def folder_name(self) -> str:
        """A folder name of its own for each recipe, classes and settings."""
        changed = f"-{digest(self.settings)[:8]}" if self.settings else ""
        return f"{Path(self.recipe).stem}-{self.data_name}{changed}"

    @property
    def data_name(self) -> str:
        """A folder name of its own for each set of classes."""
        plain = self.classes.isalnum()
        return self.classes if plain else f"names-{digest(self.classes)[:8]}"


class ClosedSetJob(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """A closed-set segmenter to train."""

    dataset: str
    """Root of a dataset, or a folder that holds its tars."""
    vocabulary: str
    """Name of the vocabulary that the label maps index."""
    classes: str
    """The network's classes, as `storage.closed_sets` reads them."""
    config: ClosedSetConfig
    """Network and schedule; the export goes to its `data`."""

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
        InputError: If there is none, or it is no YAML mapping.
    """
    own = Path(name).suffix in {".yaml", ".yml"}
    shipped = sorted(file.stem for file in RECIPE_FOLDER.glob("*.yaml"))
    if not own and name not in shipped:
        message = (
            f"recipe {name!r} is unknown; {suggest(name, shipped)}, or the path of a .yaml file"
        )
        raise InputError(message)
    file = Path(name).expanduser() if own else RECIPE_FOLDER / f"{name}.yaml"
    return {"name": file.stem, **read_yaml(file)}


def describe_run(config: ClosedSetConfig, exported: ExportedSet) -> dict[str, Any]:
    """Say what the weights depend on; its digest is the run's fingerprint."""
    return {
        "config": config.identity(),
        "classes": exported.closed_set.model_dump(mode="json"),
        "data": {"samples": exported.num_samples, "digest": exported.digest},
    }


def train(config: ClosedSetConfig) -> TrainedSet:
    """Train a closed-set segmenter, or go on with the training that `out` holds.

    A finished run returns at once.

    Raises:
        DataError: If files of the export or of the run are damaged.
        InputError: If there is no export, mmsegmentation or weights are missing, or `out` belongs
            to another run.
    """
    exported = read_export(Path(config.data))
    meta = describe_run(config, exported)
    finished = find_finished(config)
    if finished is not None:
        return finished
    out = Path(config.out)
    _check_run(out, meta)
    from training.closed_sets.runner import run

    network = run(config, exported, out / WORK_FOLDER)
    return _save(network, config, exported, out)


def find_finished(config: ClosedSetConfig) -> TrainedSet | None:
    """The record of a run that is over, if it was made of the same data and settings.

    Raises:
        InputError: If there is no export.
        DataError: If the record is damaged.
    """
    out = Path(config.out)
    if not (out / RECORD_FILE).is_file():
        return None
    record = load_record(out)
    meta = describe_run(config, read_export(Path(config.data)))
    return record if record.fingerprint == digest(meta) else None


def load_record(out: Path) -> TrainedSet:
    """Read what the weights of a finished run are.

    Raises:
        InputError: If the run is not over.
        DataError: If the record is damaged.
    """
    path = out / RECORD_FILE
    try:
        return TrainedSet.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        message = f"{out} holds no trained segmenter (no {RECORD_FILE}): train first"
        raise InputError(message) from error
    except ValidationError as error:
        message = f"{path} is no record of a trained segmenter: train again elsewhere"
        raise DataError(message) from error


def load_trained(out: Path) -> tuple[Any, TrainedSet]:
    """Build the network of a finished run, in evaluation mode, on the CPU.

    Raises:
        InputError: If the run is not over, or mmsegmentation is missing.
        DataError: If its files are damaged.
    """
    record = load_record(out)
    path = out / WEIGHTS_FILE
    found = _sha256(path) if path.is_file() else "nothing"
    if found != record.weights_sha256:
        message = f"{path} is {found}, expected {record.weights_sha256}: train again elsewhere"
        raise DataError(message)
    network = build_network(record.config.network, len(record.closed_set.labels))
    network.load_state_dict(load_file(path))
    return network.eval(), record


def _check_run(out: Path, meta: Mapping[str, Any]) -> None:
    """Refuse a folder in which another run was begun."""
    place = out / _RUN_FILE
    if place.is_file():
        drift = describe_drift(json.loads(place.read_bytes()), meta)
        if drift:
            message = (
                f"{out} belongs to another run: {'; '.join(drift)}. Train into another folder, or "
                "take the old values back"
            )
            raise InputError(message)
    write_whole(place, canonical_json(meta))


def _save(
    network: nn.Module, config: ClosedSetConfig, exported: ExportedSet, out: Path
) -> TrainedSet:
    tensors: dict[str, Tensor] = {
        name: tensor.detach().cpu().clone().contiguous()
        for name, tensor in network.state_dict().items()
    }
    temporary = out / f".{WEIGHTS_FILE}.{os.getpid()}"
    save_file(tensors, temporary)
    temporary.replace(out / WEIGHTS_FILE)
    record = TrainedSet(
        fingerprint=digest(describe_run(config, exported)),
        config=config,
        closed_set=exported.closed_set,
        num_samples=exported.num_samples,
        weights_sha256=_sha256(out / WEIGHTS_FILE),
    )
    write_whole(out / RECORD_FILE, record.model_dump_json(indent=1).encode())
    return record


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """Train as a JSON file says; returns the exit code: 0 done, 2 for anything to be changed."""
    parser = argparse.ArgumentParser(
        prog="python -m training.closed_sets.loop", description=__doc__
    )
    parser.add_argument("--config", type=Path, required=True, help="a ClosedSetConfig as JSON")
    path = parser.parse_args(arguments).config
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        config = ClosedSetConfig.model_validate_json(path.read_bytes())
        record = train(config)
    except ValidationError as error:
        fields = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        sys.stderr.write(f"error: {path} is no ClosedSetConfig: {fields}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except EngineError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{config.out} {record.fingerprint}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
