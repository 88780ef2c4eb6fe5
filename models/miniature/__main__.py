"""Train the miniatures and score them: `python -m models.miniature --help`."""

import importlib
import json
import logging
from dataclasses import fields, replace
from pathlib import Path

import torch
from cyclopts import App

WEIGHTS = Path(__file__).parent / "weights"
STATE = Path("runs/miniature")
ORDER = ("painter", "judge", "clip", "detector", "segmenter")
"""The painter comes first: the others learn from pictures that its autoencoder has blurred."""

app = App(name="python -m models.miniature", help=__doc__)


@app.command
def train(
    name: str,
    *,
    out: Path | None = None,
    state: Path | None = None,
    steps: int | None = None,
    seed: int | None = None,
    threads: int = 1,
) -> None:
    """Train one miniature; an interrupted training goes on where it was saved.

    Args:
        name: painter, judge, clip, detector or segmenter.
        out: Folder for the weights and their record; the shipped weights when left out.
        state: Folder for checkpoints.
        steps: Overrides the number of steps.
        seed: Overrides the seed.
        threads: Threads of torch; another number changes the last digits of the results.
    """
    if name not in ORDER:
        message = f"{name} is no miniature, expected one of {', '.join(ORDER)}"
        raise SystemExit(message)
    torch.set_num_threads(threads)
    out = out or WEIGHTS / name
    module = importlib.import_module(f"models.miniature.{name}")
    changes: dict[str, object] = {"steps": steps, "seed": seed}
    if "autoencoder" in {field.name for field in fields(module.Config)}:
        changes["autoencoder"] = str(out.parent / "painter" / "vae")
    given = {key: value for key, value in changes.items() if value is not None}
    metrics = module.train(replace(module.Config(), **given), out, state or STATE / name)
    print(json.dumps({name: metrics}))


@app.command
def train_all(*, out: Path = WEIGHTS, state: Path = STATE, threads: int = 1) -> None:
    """Train all miniatures in order.

    Args:
        out: Folder with one folder of weights for each miniature.
        state: Folder for checkpoints; delete it to start afresh.
        threads: Threads of torch.
    """
    for name in ORDER:
        train(name, out=out / name, state=state / name, threads=threads)


@app.command
def scorecard(*, out: Path = Path("docs/miniature.md"), threads: int = 2) -> None:
    """Measure all miniatures on held-out scenes and write the score card with its contact sheet.

    Args:
        out: The page; the contact sheet is written beside it.
        threads: Threads of torch.
    """
    torch.set_num_threads(threads)
    card = importlib.import_module("models.miniature.scorecard")
    print(card.write(out, WEIGHTS))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    app()
