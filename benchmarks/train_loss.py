"""Mask losses of one batch, value and gradient, beside the same written out at full size.

The plain form holds several maps of (batch, names, height, width), as the release does. The limit
is what no form can do without: one exponential and one logarithm a pixel and name, in pieces that
stay in the cache.
"""

import argparse

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measurement import compare, peak_megabytes, seconds_on
from benchmarks.results_file import write_results
from training.config import LossConfig
from training.losses import FOCAL_ALPHA, mask_losses, weighted_sum
from training.sampling import BACKGROUND

NAMES = 100
SIDE = 512
GRID = 32
PIECE = {"cpu": 2**18, "cuda": 2**26}
"""Values a piece: what stays in a CPU's cache, what keeps a GPU busy."""

TOLERANCES = {
    "cpu": {"value": 1e-6, "gradient": 1e-5},
    "cuda": {"value": 1e-5, "gradient": 1e-4},
}
"""Relative; a GPU adds up in another order."""

CONFIG = LossConfig(ignored_pixels="negative")


def plain_losses(logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Released focal and dice losses with every map at full size.

    Args:
        logits: Small logits, (batch, names, h, w).
        targets: Position of the pixel's name, or `BACKGROUND`; (batch, height, width).
    """
    names = torch.arange(logits.shape[1], device=logits.device)[:, None, None]
    truth = (targets[:, None] == names).float()
    large = F.interpolate(logits, targets.shape[1:], mode="bilinear", align_corners=False)
    probability = large.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(large, truth, reduction="none")
    right = probability * truth + (1 - probability) * (1 - truth)
    balance = FOCAL_ALPHA * truth + (1 - FOCAL_ALPHA) * (1 - truth)
    focal = (entropy * (1 - right) ** 2 * balance).mean(dim=(2, 3)).sum()
    overlap = (probability * truth).sum(dim=(2, 3))
    size = (probability + truth).sum(dim=(2, 3))
    present = truth.amax(dim=(2, 3))
    dice = ((1 - (2 * overlap + 1) / (size + 1)) * present).sum()
    return {"mask": focal / present.sum(), "dice": dice / present.sum()}


def random_batch(batch: int, device: str) -> tuple[Tensor, Tensor]:
    """Draw logits, and targets with two names an image."""
    torch.manual_seed(0)
    logits = torch.randn(batch, NAMES, GRID, GRID, device=device)
    targets = torch.full((batch, SIDE, SIDE), BACKGROUND, dtype=torch.int16, device=device)
    targets[:, 100:300, 100:400] = 0
    targets[:, 350:450, 50:200] = 1
    return logits.requires_grad_(), targets


def main() -> None:
    """Check that both agree, then take time and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=2)
    arguments = parser.parse_args()
    device, batch = arguments.device, arguments.batch
    logits, targets = random_batch(batch, device)
    piece = torch.randn(PIECE[device], device=device)

    def learn(terms: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        logits.grad = None
        loss = weighted_sum(terms, CONFIG)
        loss.backward()
        assert logits.grad is not None
        return loss.detach(), logits.grad

    def limit() -> None:
        for _ in range(batch * NAMES * SIDE**2 // len(piece)):
            piece.exp().log1p()

    ways = {
        "ours": lambda: learn(mask_losses(logits, targets, CONFIG)),
        "full size": lambda: learn(plain_losses(logits, targets)),
    }
    (ours, gradient), (plain, expected) = (work() for work in ways.values())
    value_error = ((ours - plain).abs() / plain).item()
    gradient_error = ((gradient - expected).norm() / expected.norm()).item()
    assert value_error < TOLERANCES[device]["value"], value_error
    assert gradient_error < TOLERANCES[device]["gradient"], gradient_error
    del gradient, expected

    timed = {**ways, "limit: exp and log1p": limit}
    rows = compare(timed, repeats=2, items=batch, clock=seconds_on(device))
    for row, work in zip(rows, ways.values(), strict=False):
        row["peak_mb"] = round(peak_megabytes(work, device) / batch, 1)
    rows[0]["value_error"] = float(f"{value_error:.1g}")
    rows[0]["gradient_error"] = float(f"{gradient_error:.1g}")
    setting = {"batch": batch, "names": NAMES, "side": SIDE, "grid": GRID}
    packages = ("magicseg-engine", "torch")
    write_results("train_loss", rows, packages, setting=setting, device=device)


if __name__ == "__main__":
    main()
