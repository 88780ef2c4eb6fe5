"""The best of 1,204 classes a pixel, beside all score maps at full size and one arg-max.

The student's work is left out: its logits at the patch grid are given. The limit is enlarging each
class once, a few at a time, without looking at the result.
"""

import argparse

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measurement import compare, peak_megabytes, seconds_on
from benchmarks.results_file import write_results
from evaluation.scoring.config import InferenceConfig
from evaluation.scoring.predictors import StudentPredictor, TextRows

CLASSES = 1_204
SIDE = 512
GRID = 32
CHUNKS = (2, 8, 32, 128)


class GivenLogits:
    """A student that has made up its mind.

    Args:
        logits: What it says of every image.
    """

    patch_size = SIDE // GRID

    def __init__(self, logits: Float[Tensor, "1 classes h w"]) -> None:
        self.logits = logits

    def normalise(self, pixels: Tensor) -> Tensor:
        """Leave the image as it is."""
        return pixels

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Embed nothing: one channel of zeros."""
        patches = torch.zeros(len(image), 1, GRID, GRID, device=image.device)
        return patches, patches[:, :, 0, 0]

    def scores(self, patches: Tensor, cls: Tensor, text: Tensor) -> Float[Tensor, "1 classes h w"]:
        """Say what was given."""
        assert (len(patches), len(cls), len(text)) == (1, 1, CLASSES)
        return self.logits


def main() -> None:
    """Check that all chunks give the plain answer, then take time and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    device = parser.parse_args().device
    torch.manual_seed(0)
    logits = torch.randn(1, CLASSES, GRID, GRID, device=device)
    rows = TextRows.one_each(torch.zeros(CLASSES, 1, device=device))
    image = np.zeros((SIDE, SIDE, 3), np.uint8)

    def predictor(chunk: int) -> StudentPredictor:
        return StudentPredictor(GivenLogits(logits), rows, InferenceConfig(class_chunk=chunk))

    def plain() -> tuple[Tensor, Tensor]:
        large = F.interpolate(logits, (SIDE, SIDE), mode="bilinear", align_corners=False)
        best, index = large.sigmoid()[0].max(dim=0)
        return best, index

    def limit() -> None:
        for chunk in logits.split(8, dim=1):
            F.interpolate(chunk, (SIDE, SIDE), mode="bilinear", align_corners=False)

    default = InferenceConfig().class_chunk
    best, index = (found.cpu().numpy() for found in plain())
    for chunk in dict.fromkeys((default, *CHUNKS)):
        found = predictor(chunk).predict(image)
        assert np.array_equal(found.index, index)
        assert np.array_equal(found.best, best)

    chosen = {f"ours: chunks of {default}": lambda: predictor(default).predict(image)}
    sweep = {
        f"chunks of {chunk}": lambda chunk=chunk: predictor(chunk).predict(image)
        for chunk in CHUNKS
        if chunk != default
    }
    ways = {**chosen, "all maps at once": plain, **sweep, "limit: enlarging": limit}
    rows_measured = compare(ways, repeats=1, clock=seconds_on(device))
    for row, work in zip(rows_measured, ways.values(), strict=True):
        row["peak_mb"] = peak_megabytes(work, device)
    setting = {"classes": CLASSES, "side": SIDE, "grid": GRID}
    packages = ("magicseg-engine", "numpy", "torch")
    write_results("argmax", rows_measured, packages, setting=setting, device=device)


if __name__ == "__main__":
    main()
