"""Training of the miniature Grounding DINO on drawn scenes.

The first part of the run trains the encoder alone, with a dense loss on all of its proposals; then
the decoder joins; in the last part all boxes that fit an object well may stand for it.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import GroundingDinoForObjectDetection

from models.miniature.degradation import PAINTER_AUTOENCODER, load_autoencoder
from models.miniature.detector.losses import batch_losses
from models.miniature.detector.network import processor, untrained_network
from models.miniature.detector.prompts import ask
from models.miniature.detector.scoring import BOX_THRESHOLD, score
from models.miniature.loop import Training, step_generator
from models.miniature.miniatures import Miniature, Task
from models.miniature.optimisation import LossOfStep, Schedule, averaging_task, save_half
from models.miniature.record import metric_table
from models.miniature.scenes import SceneStream
from models.miniature.world import CLASSES


@dataclass(frozen=True)
class Config(Training):
    """Hyper-parameters of the detector's training, beside those of every training.

    Attributes:
        encoder_steps: How many of the first ones train the encoder alone.
        refine_steps: How many of the last ones teach every good box of an object to be sure of it,
            not the best one alone; they begin again at half the learning rate.
        batch: Scenes in a step.
        learning_rate: Highest learning rate.
        flat: Share of the steps after which the rate falls.
        two_share: Share of the scenes with two objects.
        empty_share: Share of the scenes whose objects are left out.
        autoencoder: Folder of the painter's autoencoder, which degrades a part of the pictures.
    """

    steps: int = 3900
    encoder_steps: int = 900
    refine_steps: int = 1300
    batch: int = 32
    learning_rate: float = 1e-3
    flat: float = 0.5
    two_share: float = 0.5
    empty_share: float = 0.15
    autoencoder: str = PAINTER_AUTOENCODER


def task(config: Config) -> Task:
    """A fresh detector and the step that trains it."""
    network, losses = objective(config)
    schedule = Schedule(config.steps, config.learning_rate, config.flat, config.refine_steps)
    return averaging_task(
        network, losses, schedule, lambda folder: save_half(network, folder, processor())
    )


def objective(config: Config) -> tuple[GroundingDinoForObjectDetection, LossOfStep]:
    """The network as it begins, and its losses at a step."""
    torch.manual_seed(config.seed)
    network = untrained_network().to(config.device)  # pyright: ignore[reportArgumentType]
    autoencoder = load_autoencoder(config.autoencoder, config.device)
    stream = SceneStream(config.seed, config.two_share)

    def losses(step: int) -> dict[str, Tensor]:
        generator = step_generator(config.seed, step)
        batch = stream.batch(step, config.batch, empty_share=config.empty_share)
        batch = batch.damaged(generator, autoencoder)
        prompts = ask(batch.class_ids, random.Random(f"{config.seed}/{step}"))  # noqa: S311
        stage = 0 if step < config.encoder_steps else 1
        if step >= config.steps - config.refine_steps:
            stage = 2
        return batch_losses(network, batch.to(config.device), prompts.to(config.device), stage)

    return network, losses


def _card(config: Config, metrics: Mapping[str, float]) -> str:
    return f"""# Miniature Grounding DINO

A Grounding DINO (arXiv 2303.05499, the `transformers` implementation) with 1.7 million parameters
for 64 x 64 pictures of the drawn world of `models/miniature/world.py`. It knows the names of that
world's {len(CLASSES)} classes ({", ".join(CLASSES)}) and nothing else.

Trained from random weights by `python -m models.miniature train detector`: {config.steps} steps of
{config.batch} drawn scenes, seed {config.seed}; most scenes are bent, blurred, recoloured, noisy or
recompressed, some have no object. The tensors are stored in half precision and load as float32.

Held-out drawn scenes, box threshold {BOX_THRESHOLD} (see `score` in
`models.miniature.detector.scoring`):

{metric_table(metrics)}

Several boxes may be sure of the same object: apply non-maximum suppression at IoU 0.5. Not for
photographs. Licence: that of the repository.
"""


MINIATURE = Miniature(
    "detector",
    Config,
    task=lambda config, *_: task(config),
    measure=lambda folder, _: score(folder, 300, seed=0),
    card=_card,
)
"""The miniature Grounding DINO; its metrics are those of `score`."""
