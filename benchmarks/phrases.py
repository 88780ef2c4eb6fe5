"""A detector that asks one image for more phrases than fit into a caption.

We prepare the image and run the image tower once; the other way, as the library's pipeline would,
does both for each caption. At the size of Grounding DINO tiny, with random weights. What both give
is compared before anything is timed.
"""

import itertools
import string
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.full_labels import random_images
from benchmarks.measurement import Row, compare, seconds_on
from benchmarks.random_models import Geometry, chosen_geometry, save_detector
from benchmarks.results_file import write_results
from models.labelling.config import DetectorConfig
from models.labelling.detectors import GroundingDino

CAPTIONS, LONGEST = 4, 256
"""As many full captions, of as many tokens."""
WORDS = 4
"""Of a phrase; each is a token, and so is the stop behind them."""
AGREE = 1e-5


def phrases(count: int) -> tuple[str, ...]:
    """Different phrases of some words, of a letter each."""
    words = itertools.product(string.ascii_lowercase, repeat=WORDS)
    return tuple(" ".join(own) for own in itertools.islice(words, count))


def measure(geometry: Geometry, device: str, folder: Path) -> list[Row]:
    """Check that both ways agree, then take times of an image."""
    torch.set_num_threads(1)
    detector = GroundingDino(
        DetectorConfig(
            model=save_detector(folder, geometry, device),
            device=device,
            batch_size=1,
            box_threshold=0.999,  # or nearly every query would be a box, to be told apart
        )
    )
    [image] = random_images(1, geometry.side)
    in_one = (LONGEST - 2) // (WORDS + 1)
    asked = phrases(CAPTIONS * in_one)
    parts = [asked[first : first + in_one] for first in range(0, len(asked), in_one)]

    def ours() -> np.ndarray:
        return detector.detect([image], [asked])[0].best_scores

    def anew() -> np.ndarray:
        return np.concatenate([detector.detect([image], [own])[0].best_scores for own in parts])

    error = float(np.abs(ours() - anew()).max())
    assert error < AGREE, error
    rows = compare({"ours": ours, "an image a caption": anew}, repeats=1, clock=seconds_on(device))
    rows[0]["score_error"] = error
    return rows


def main() -> None:
    """Measure at full size, or the small geometry."""
    geometry, device = chosen_geometry(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(geometry, device, Path(folder))
    setting = {"geometry": geometry.name, "captions": CAPTIONS}
    packages = ("magicseg-engine", "torch", "transformers")
    write_results("phrases", rows, packages, setting=setting, device=device)


if __name__ == "__main__":
    main()
