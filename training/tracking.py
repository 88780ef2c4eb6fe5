"""Weights & Biases: the numbers of `metrics.jsonl`, where a team can look at them."""

import logging
import uuid
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from storage.errors import InputError
from storage.files import write_whole

_log = logging.getLogger(__name__)

_ID_FILE = "wandb-id"


def require_wandb() -> None:
    """Check that the optional package is there, before anything is loaded for a run.

    Raises:
        InputError: If it is not installed.
    """
    if find_spec("wandb") is None:
        message = (
            "wandb is set, but the package is not installed: run `pip install wandb` (or install "
            "the engine with its extra `wandb`), or leave the field wandb out"
        )
        raise InputError(message)


class Tracker:
    """A run at Weights & Biases, or below `out/wandb` where `WANDB_MODE` is `offline`.

    Starting a run again goes on with the same one: its name is kept in `out/wandb-id`. The service
    cannot take numbers back; curves over `step` show both tries of an update that is done again.

    Args:
        project: Name of the project there.
        out: Folder of the run.
        meta: What the run is made of.

    Raises:
        InputError: If nobody is logged in, or the service refuses the run.
    """

    def __init__(self, project: str, out: Path, meta: Mapping[str, Any]) -> None:
        wandb = import_module("wandb")
        out.mkdir(parents=True, exist_ok=True)
        try:
            self._run = wandb.init(
                project=project,
                dir=out,
                id=_run_id(out / _ID_FILE),
                resume="allow",
                config=dict(meta),
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.Error as error:
            message = (
                f"Weights & Biases refuses project {project!r} ({error}): run `wandb login`, or "
                "set WANDB_MODE=offline and upload later with `wandb sync`"
            )
            raise InputError(message) from error
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        _log.info("Weights & Biases run %s in %s", self._run.id, self._run.dir)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._run.finish(exit_code=0 if kind is None else 1)

    def write(self, row: Mapping[str, float]) -> None:
        """Record an update."""
        self._run.log(dict(row))


def _run_id(path: Path) -> str:
    if not path.exists():
        write_whole(path, uuid.uuid4().hex[:12].encode())
    return path.read_text(encoding="ascii").strip()
