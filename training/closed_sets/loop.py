"""Training of closed-set segmenters on an exported dataset; `python -m training.closed_sets`.

The counterpart of the student in MagicSeg's table IV (arXiv 2603.19575): an ordinary segmenter that
knows a benchmark's classes and nothing else. mmengine's runner does the work; this module says what
a run is made of, refuses to mix two runs, and leaves one file of weights behind.

    out/model.safetensors  out/closed_set.json    the trained network and what it is made of
    out/metrics.jsonl                             one line an update
    out/run.json                                  what the run is made of, before it is over
    out/work/                                     mmengine's: config, checkpoints, logs
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage.files import write_whole
from storage.identity import canonical_json, refuse_drift
from storage.locks import hold_folder
from storage.records import read_object
from training.closed_sets.config import ClosedSetConfig
from training.closed_sets.trained import (
    TrainedSet,
    closed_set_run_identity,
    find_trained_closed_set,
    read_exports,
    save_trained,
)

WORK_FOLDER = "work"

_RUN_FILE = "run.json"


def train_closed_set(config: ClosedSetConfig) -> TrainedSet:
    """Train a closed-set segmenter, or go on with the training that `out` holds.

    A finished run returns at once.

    Raises:
        DataError: If files of the export or of the run are damaged.
        InputError: If there is no export, mmsegmentation or weights are missing, or `out` belongs
            to another run.
        LeaseHeldError: If somebody else trains in `out`.
    """
    exported = read_exports(config)
    meta = closed_set_run_identity(config, exported)
    out = Path(config.out)
    with hold_folder(out):
        finished = find_trained_closed_set(config)
        if finished is not None:
            return finished
        _check_run(out, meta)
        from training.closed_sets.runner import run_training

        network = run_training(config, exported, out / WORK_FOLDER)
        return save_trained(network, config, exported, out)


def _check_run(out: Path, meta: Mapping[str, Any]) -> None:
    """Refuse a folder in which another run was begun."""
    place = out / _RUN_FILE
    if place.is_file():
        refuse_drift(
            f"{out} belongs to another run",
            read_object(place.read_bytes(), str(place), way_out="train into another folder"),
            meta,
            way_out="Train into another folder, or take the old values back",
        )
    write_whole(place, canonical_json(meta))
