"""Training of the miniature CLIP on drawn scenes and their captions.

Random batches would let it tell pictures apart by their background and colours alone. Here all
pictures of a batch share one background, every class is there several times, and most captions name
the class alone. Two heads that are thrown away afterwards help: one names the classes from the
image embedding, one names the class of each patch, so that patch tokens know what they show.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from models.miniature.clip.batches import ScenePool, Sizes
from models.miniature.clip.claims import write_claim
from models.miniature.clip.losses import batch_losses
from models.miniature.clip.network import ClipWithHeads, untrained_network, write_processor
from models.miniature.clip.scoring import score
from models.miniature.degradation import PAINTER_AUTOENCODER, load_autoencoder
from models.miniature.loop import Training, step_generator
from models.miniature.miniatures import Miniature, Task
from models.miniature.optimisation import LossOfStep, Schedule, averaging_task, save_half
from models.miniature.record import metric_table
from models.miniature.scenes import collate


@dataclass(frozen=True)
class Config(Training):
    """Hyper-parameters of CLIP's training, beside those of every training.

    Every third step is of fewer pictures, twice as large.

    Attributes:
        per_class: One-object scenes of each class in a batch.
        pairs: Two-object scenes in a batch.
        empties: Object-free scenes in a batch.
        bare_share: Share of the captions that name a class and nothing else.
        learning_rate: Highest learning rate.
        flat: Share of the steps after which the rate falls.
        autoencoder: Folder of the painter's autoencoder, which degrades a part of the pictures.
    """

    steps: int = 1500
    per_class: int = 3
    pairs: int = 16
    empties: int = 4
    bare_share: float = 0.6
    learning_rate: float = 1e-3
    flat: float = 0.67
    autoencoder: str = PAINTER_AUTOENCODER


def task(config: Config, out: Path) -> Task:
    """A fresh CLIP and the step that trains it; its processor is written into `out` at once."""
    learner, losses = objective(config, write_processor(out).tokenizer)
    schedule = Schedule(config.steps, config.learning_rate, config.flat)
    return averaging_task(learner, losses, schedule, lambda folder: save_half(learner.clip, folder))


def objective(config: Config, tokenizer: CLIPTokenizer) -> tuple[ClipWithHeads, LossOfStep]:
    """The network as it begins, and its losses at a step."""
    torch.manual_seed(config.seed)
    learner = ClipWithHeads(untrained_network(tokenizer)).to(config.device)
    autoencoder = load_autoencoder(config.autoencoder, config.device)
    pool = ScenePool(config.seed)
    sizes = Sizes(config.per_class, config.pairs, config.empties)

    def losses(step: int) -> dict[str, Tensor]:
        generator = step_generator(config.seed, step)
        rng = np.random.default_rng((config.seed, 4, step))
        scale = 2 if step % 3 == 2 else 1  # times their size that the pictures are shown at
        drawn, bare = pool.batch(step, sizes.divided(1 if scale == 1 else 3), rng)
        claims = [
            write_claim(item.scene, rng, bare=none, short=rng.random() < config.bare_share)
            for item, none in zip(drawn, bare, strict=True)
        ]
        fits = [
            [claim.holds(item.scene, bare=none) for claim in claims]
            for item, none in zip(drawn, bare, strict=True)
        ]
        batch = collate(drawn, bare).damaged(generator, autoencoder).to(config.device)
        ids = tokenizer([claim.text for claim in claims], padding=True, return_tensors="pt")
        holds = torch.tensor(fits, device=config.device).float()
        return batch_losses(learner, batch, ids.to(config.device), holds, scale=scale)

    return learner, losses


def _card(config: Config, metrics: Mapping[str, float]) -> str:
    return f"""# Miniature CLIP

A CLIP (arXiv 2103.00020, the `transformers` implementation): a ViT of 4 layers with patches of 8
pixels and a text encoder of 2 layers, for the drawn world of `models/miniature/world.py`. Pictures
may be 64 x 64 or, with `interpolate_pos_encoding=True`, 128 x 128. Its tokenizer knows the words of
that world; other words are spelled and mean nothing to it.

Trained from random weights by `python -m models.miniature train clip`: {config.steps} steps, seed
{config.seed}. All pictures of a batch share one background and show every class. Unlike the
original it was also told, by heads that were thrown away, which class each patch shows. The tensors
are stored in half precision and load as float32.

Held-out drawn scenes with one object (see `models.miniature.clip.scoring.score`):

{metric_table(metrics)}

Not for photographs. Licence: that of the repository.
"""


MINIATURE = Miniature(
    "clip",
    Config,
    task=lambda config, out, _: task(config, out),
    measure=lambda folder, _: score(folder, 300, seed=0),
    card=_card,
)
"""The miniature CLIP; its metrics are those of `score`."""
