"""How often the judge is right on held-out scenes."""

from pathlib import Path

import numpy as np
import torch

from models.miniature.degradation import load_autoencoder
from models.miniature.judge.examples import draw_examples
from models.miniature.judge.network import FOUND, load
from models.miniature.vae.training import HELD_OUT_PICTURES


@torch.no_grad()
def score(folder: Path, num_scenes: int, seed: int) -> dict[str, float]:
    """Score a saved judge on held-out scenes, degraded as in training.

    Args:
        folder: Folder of `model.safetensors`, beside that of the painter.
        num_scenes: How many scenes.
        seed: Which scenes.

    Returns:
        `accuracy`: share of the degraded scenes of one thing in which it has the highest
        probability; `exact`: share of all scenes in which exactly the right classes are found.
    """
    judge = load(folder)
    encoder = load_autoencoder(folder.parent / "painter" / "vae")
    torch.manual_seed(seed)
    rng = np.random.default_rng((HELD_OUT_PICTURES, seed))
    images, labels, scenes = draw_examples(rng, num_scenes, encoder)
    chances = torch.cat(
        [judge(part) for part in images.split(64)]
    ).sigmoid()  # (num_scenes, classes + 1)
    exact = ((chances >= FOUND) == (labels >= FOUND)).all(1).float().mean()
    single = [i for i, scene in enumerate(scenes) if labels[i].sum() == 1 and scene.things]
    right = (chances[single].argmax(1) == labels[single].argmax(1)).float().mean()
    return {"accuracy": float(right), "exact": float(exact)}
