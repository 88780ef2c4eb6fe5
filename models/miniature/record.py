"""What is written beside a miniature's weights: `training.json`, `losses.csv` and a model card."""

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from os.path import relpath
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.miniature.loop import Cost, Run, Training, losses


@dataclass(frozen=True)
class Outcome:
    """What is to be told about a finished training.

    Attributes:
        config: How it was trained.
        metrics: What it reached on held-out scenes.
        cost: What it cost.
        card: The model card, without the part about the run.
    """

    config: Training
    metrics: Mapping[str, float]
    cost: Cost
    card: str


def record(folder: Path, outcome: Outcome, run: Run) -> None:
    """Write `training.json`, `losses.csv` and the model card `README.md` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    entry = {
        "config": _settings(outcome.config, folder),
        "metrics": {key: round(value, 4) for key, value in outcome.metrics.items()},
        "first_losses": [row["loss"] for row in losses(run)[:20]],
        "seconds": {key: round(value) for key, value in asdict(outcome.cost).items()},
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }
    (folder / "training.json").write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
    shutil.copyfile(run.table, folder / "losses.csv")
    text = f"{outcome.card}\n{_origin(run.name, outcome)}"
    (folder / "README.md").write_text(text, encoding="utf-8")


def metric_table(metrics: Mapping[str, float]) -> str:
    """The metrics as a Markdown table, for a model card."""
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in metrics.items())
    return f"| metric | value |\n| --- | ---: |\n{rows}"


def _settings(config: Training, folder: Path) -> dict[str, Any]:
    """The configuration; the autoencoder's place is told as seen from the folder."""
    values = asdict(config)
    if "autoencoder" in values:
        values["autoencoder"] = relpath(values["autoencoder"], folder)
    return values


def _origin(name: str, outcome: Outcome) -> str:
    """The part of a model card that says which command made the weights, and at what cost."""
    config, wall, processor = outcome.config, outcome.cost.wall / 60, outcome.cost.processor / 60
    flags = f"--seed {config.seed} --steps {config.steps} --device {config.device}"
    return f"""## Origin

    python -m models.miniature train {name} {flags} --threads {config.threads}

{wall:.0f} minutes, {processor:.0f} of processor time; Python {sys.version.split()[0]}, torch
{torch.__version__}. `training.json` holds the whole configuration, `losses.csv` the losses.
"""
