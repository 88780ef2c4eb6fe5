"""The first part of the painter's training: its text encoder learns what a caption names."""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from models.miniature import captions
from models.miniature.loop import Run, fit, step_rng
from models.miniature.painter.config import Config
from models.miniature.painter.network import Text
from models.miniature.world import BACKGROUNDS, CLASSES, COLOURS, SIZES, sample_scene
from models.writing.mentions import NOTHING


def pretrain(config: Config, text: Text, state: Path) -> None:
    """Teach the mean of the text states which things, colours, sizes and places a text names.

    Args:
        config: Lengths and seed.
        text: The text encoder; it is trained in place.
        state: Folder for checkpoints.
    """
    classes, colours = len(CLASSES) + 2, len(COLOURS) + 1
    sizes = (classes, classes, colours, colours, len(SIZES) + 1, len(BACKGROUNDS) + 1)
    heads = nn.ModuleList(nn.Linear(64, size) for size in sizes)
    both = nn.ModuleList([text.encoder, heads]).to(config.device)
    optimizer = torch.optim.AdamW(both.parameters(), lr=3e-3, weight_decay=1e-3)

    def step(index: int) -> dict[str, float]:
        rng = step_rng(config.seed, index, 2)
        texts, labels = [], []
        for _ in range(64):
            scene = sample_scene(rng, num_things=int(rng.integers(1, 3)), hard=1.0)
            texts.append(captions.caption(scene, rng)[rng.random() < config.twins])
            labels.append(_labels(texts[-1].split()))
        pooled = text(texts).mean(1)  # (64 texts, TOKENS, 64) to (64 texts, 64)
        target = torch.tensor(labels, device=config.device)  # (64 texts, heads)
        parts = [F.cross_entropy(head(pooled), target[:, i]) for i, head in enumerate(heads)]
        loss = torch.stack(parts).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss.item()}

    run = Run("text", state, config.text_steps, config.seed)
    fit(run, {"text": text.encoder, "heads": heads, "optimizer": optimizer}, step)


def _labels(words: list[str]) -> list[int]:
    """Numbers of first and second class, first and second colour, size and place; 0 is unnamed."""
    kinds = (*CLASSES, NOTHING)
    classes = [1 + kinds.index(word) for word in words if word in kinds] + [0, 0]
    colours = [1 + COLOURS.index(word) for word in words if word in COLOURS] + [0, 0]
    size = next((1 + SIZES.index(word) for word in words if word in SIZES), 0)
    keys = dict(zip(BACKGROUNDS, (p.split()[-1] for p in captions.places().values()), strict=True))
    place = next((1 + i for i, key in enumerate(keys.values()) if key in words), 0)
    return [*classes[:2], *colours[:2], size, place]
