"""Training of the judge on drawn scenes, degraded in the ways in which generated ones are worse."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_model
from torch.nn import functional as F

from models.miniature.degradation import load_autoencoder
from models.miniature.judge.examples import draw_examples
from models.miniature.judge.network import Judge
from models.miniature.judge.scoring import score
from models.miniature.loop import Training, step_rng
from models.miniature.miniatures import Miniature, Task
from models.miniature.world import CLASSES


@dataclass(frozen=True)
class Config(Training):
    """How the judge is trained, beside what every training is told.

    Attributes:
        batch: Scenes a step.
        learning_rate: Peak of a one-cycle schedule.
    """

    seed: int = 3
    steps: int = 1500
    batch: int = 48
    learning_rate: float = 3e-3


def task(config: Config, folder: Path) -> Task:
    """A fresh judge and the step that trains it.

    Args:
        config: Length and seed.
        folder: Where the judge belongs: the folder `painter` beside it holds the autoencoder that
            degrades a third of the pictures.
    """
    encoder = load_autoencoder(folder.parent / "painter" / "vae", config.device)
    torch.manual_seed(config.seed)
    judge = Judge().to(config.device)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=config.learning_rate, weight_decay=1e-2)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps
    )

    def step(index: int) -> dict[str, float]:
        rng = step_rng(config.seed, index)
        # images have the shape (batch, 3, 64, 64), labels (batch, classes + 1)
        images, labels, _ = draw_examples(rng, config.batch, encoder)
        images, labels = images.to(config.device), labels.to(config.device)
        loss = F.binary_cross_entropy_with_logits(judge(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cycle.step()
        return {"loss": loss.item()}

    def save(folder: Path) -> None:
        save_model(judge.eval(), str(folder / "model.safetensors"))

    return Task({"judge": judge, "optimizer": optimizer, "cycle": cycle}, step, save)


def _card(config: Config, metrics: Mapping[str, float]) -> str:
    return f"""# Judge of the miniature painter

A small convolutional network that says which of the {len(CLASSES)} classes of the drawn world a
64 x 64 picture shows, or that it shows none. It exists to score generated pictures
(`docs/miniature.md`) and takes no part in the pipeline.

Trained by `python -m models.miniature train judge`: {config.steps} steps of {config.batch} drawn
scenes, seed {config.seed}, a third of them blurred and noisy, a third through the painter's
autoencoder. Held-out scenes, degraded in the same ways: right first choice with one thing
{metrics["accuracy"]:.3f}, exactly the right classes {metrics["exact"]:.3f}.

Licence: that of the repository.
"""


MINIATURE = Miniature(
    "judge",
    Config,
    task=lambda config, out, _: task(config, out),
    measure=lambda folder, _: score(folder, 600, seed=0),
    card=_card,
    save_every=500,
)
"""The judge; its metrics are those of `score`."""
