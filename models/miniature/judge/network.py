"""The judge: which classes of the drawn world does a picture show?

It scores the painter and takes no part in the pipeline, so that no model marks its own work.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_model
from torch import Tensor, nn

from models.miniature.world import CLASSES

FOUND = 0.5
"""A class counts as found from this probability on."""


class Judge(nn.Module):
    """A small convolutional network with one output for each class and one for "no thing"."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 128)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after)]
            layers += [nn.SiLU(), nn.Conv2d(after, after, 3, padding=1), nn.GroupNorm(8, after)]
            layers += [nn.SiLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(2 * widths[-1], len(CLASSES) + 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (images, classes + 1) for images in -1..1 of shape (images, 3, 64, 64)."""
        maps = self.features(images)  # (images, 128, 4, 4)
        return self.head(torch.cat([maps.amax((2, 3)), maps.mean((2, 3))], 1))

    @torch.no_grad()
    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities (images, classes + 1) for uint8 images of shape (images, 64, 64, 3)."""
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
        return torch.cat([self(part) for part in pixels.split(64)]).sigmoid().numpy()


def load(folder: Path) -> Judge:
    """Load a trained judge from the folder of its `model.safetensors`."""
    judge = Judge()
    load_model(judge, folder / "model.safetensors")
    return judge.eval()
