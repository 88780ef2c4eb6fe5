"""Train the miniatures and score them: `python -m models.miniature --help`."""

import importlib
import json
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated

import torch
from cyclopts import App, Parameter

from models.devices import pick_device
from models.miniature import miniatures
from storage.errors import EngineError, IncompleteError, InputError

_log = logging.getLogger(__name__)

WEIGHTS = Path(__file__).parent / "weights"
STATE = Path("runs/miniature")
FOLDERS = {
    "vae": Path("painter/vae"),
    "painter": Path("painter"),
    "detector": Path("detector"),
    "segmenter": Path("segmenter"),
    "clip": Path("clip"),
    "judge": Path("judge"),
}
"""Where each miniature's weights lie. All but the segmenter learn from pictures that the painter's
autoencoder has blurred, so that it comes first; the others follow, the longest training first."""

app = App(name="python -m models.miniature", help=__doc__)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to train.

    Attributes:
        steps: Overrides the number of steps.
        seed: Overrides the seed.
        device: Where networks learn: auto (cuda where there is one), cpu, cuda or cuda:<index>.
        threads: Threads of torch; another number changes the last digits of the results.
    """

    steps: int | None = None
    seed: int | None = None
    device: str = "auto"
    threads: int = 1

    def changes(self) -> dict[str, object]:
        """The fields of a training's configuration that these options set.

        Raises:
            InputError: The device is not there.
        """
        given = asdict(self) | {"device": str(pick_device(self.device))}
        return {name: value for name, value in given.items() if value is not None}

    def flags(self) -> list[str]:
        """The same options as words of a command line."""
        given = ((name, value) for name, value in asdict(self).items() if value is not None)
        return [word for name, value in given for word in (f"--{name}", str(value))]


_DEFAULTS = Options()


@app.command
def train(
    name: str,
    *,
    out: Path = WEIGHTS,
    state: Path = STATE,
    options: Annotated[Options, Parameter(name="*")] = _DEFAULTS,
) -> None:
    """Train one miniature; an interrupted training goes on where it was saved.

    Args:
        name: One of vae, painter, detector, segmenter, clip and judge; most need the vae first.
        out: Folder with one folder of weights for each miniature.
        state: Folder for checkpoints, one folder for each miniature.
        options: How to train.

    Raises:
        InputError: There is no such miniature, no such device, or no autoencoder yet.
    """
    if name not in FOLDERS:
        message = f"{name} is not a miniature, expected one of {', '.join(FOLDERS)}"
        raise InputError(message)
    autoencoder = out / FOLDERS["vae"]
    if name not in ("vae", "segmenter") and not autoencoder.is_dir():
        message = f"{name} needs {autoencoder}, which is not there; train vae first"
        raise InputError(message)
    miniature = importlib.import_module(f"models.miniature.{name}.training").MINIATURE
    changes = options.changes()
    if "autoencoder" in {field.name for field in fields(miniature.config)}:
        changes["autoencoder"] = str(autoencoder)
    config = miniature.config(**changes)
    metrics = miniatures.train(miniature, config, out / FOLDERS[name], state / name)
    print(json.dumps({name: metrics}))


@app.command
def train_all(
    *,
    out: Path = WEIGHTS,
    state: Path = STATE,
    jobs: int = 1,
    options: Annotated[Options, Parameter(name="*")] = _DEFAULTS,
) -> None:
    """Train all miniatures, each in a process of its own whose log lies in the state folder.

    Where one fails the others go on; the same command then continues what is not finished.

    Args:
        out: Folder with one folder of weights for each miniature.
        state: Folder for checkpoints and logs; delete it to start afresh.
        jobs: Trainings at a time.
        options: How to train each.

    Raises:
        InputError: The device is not there, or jobs is not positive.
        IncompleteError: Trainings failed; it names them and their logs.
    """
    if jobs < 1:
        message = f"{jobs} jobs, expected at least 1"
        raise InputError(message)
    options.changes()  # a device that is not there fails here, not in a log
    state.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "models.miniature", "train"]
    places = ["--out", str(out), "--state", str(state), *options.flags()]

    def run(name: str) -> str | None:
        log = state / f"{name}.log"
        _log.info("%s: started, its log is %s", name, log)
        with log.open("ab") as file:
            done = subprocess.run(
                [*command, name, *places], stdout=file, stderr=subprocess.STDOUT, check=False
            )
        _log.info("%s: ended with status %d", name, done.returncode)
        return f"{name} failed, see {log}" if done.returncode else None

    first, *others = FOLDERS
    for names in ([first], others):
        with ThreadPoolExecutor(jobs) as pool:
            failures = [failure for failure in pool.map(run, names) if failure]
        if failures:
            raise IncompleteError("; ".join(failures))


@app.command
def scorecard(
    *,
    out: Path = Path("docs/miniature.md"),
    students: Path = Path("benchmarks/results/student_transfer.json"),
    threads: int = 2,
) -> None:
    """Measure all miniatures on held-out scenes and write the score card with its contact sheet.

    Args:
        out: The page; the contact sheet is written beside it.
        students: What `python -m benchmarks.student_transfer` measured.
        threads: Threads of torch.
    """
    torch.set_num_threads(threads)
    page = importlib.import_module("models.miniature.scorecard.page")
    print(json.dumps(page.write(out, WEIGHTS, students)))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        app()
    except EngineError as error:
        message = f"error: {error}"
        raise SystemExit(message) from error
