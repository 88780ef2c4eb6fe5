"""Preparing an image of 512 pixels for each kind of network that labels or checks it.

The peer is the library's image processor, which computes with Pillow and numpy. The limit is
Pillow's resizing alone. On a CPU we resize with Pillow and look numbers up; on a GPU everything
after the bytes is done there. "in torch" is what a GPU computes, here on the CPU.
"""

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.full_labels import random_images
from benchmarks.measurement import Row, compare, seconds_on
from benchmarks.results_file import write_results
from models.preparation import Steps, read_steps
from models.processors import image_processor_class

SIDE = 512
PROCESSORS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "Grounding DINO": ("GroundingDinoImageProcessor", {}),
    "SAM": ("SamImageProcessor", {}),
    "SAM 2": ("ViTImageProcessor", {"size": {"height": 1024, "width": 1024}}),
    "safety checker": ("CLIPImageProcessor", {}),
}


def measure(device: str) -> list[Row]:
    """Check that pixels are equal, then take times."""
    torch.set_num_threads(1)
    [image] = random_images(1, SIDE)
    rows: list[Row] = []
    for network, (name, settings) in PROCESSORS.items():
        processor: Any = image_processor_class(name)(**settings)
        steps = read_steps(processor, name)
        ways = _ways(steps, lambda own=processor: _by_library(own, image), image, device)
        expected = _by_library(processor, image)
        ours = {way: work() for way, work in ways.items() if way != "resizing alone"}
        assert all(torch.equal(pixels.cpu(), expected) for pixels in ours.values())
        ways["resizing alone"]()
        timed = compare(ways, repeats=10, clock=seconds_on(device))
        rows += [{"network": network, **row} for row in timed]
    return rows


def _by_library(processor: Any, image: np.ndarray) -> torch.Tensor:
    return processor(images=[Image.fromarray(image)], return_tensors="pt")["pixel_values"]


def _ways(
    steps: Steps, library: Callable[[], torch.Tensor], image: np.ndarray, device: str
) -> dict[str, Callable[[], torch.Tensor]]:
    table = torch.from_numpy(steps.table).to(device)
    high, wide = steps.sized((SIDE, SIDE))
    picture = Image.fromarray(image)

    def in_torch() -> torch.Tensor:
        return steps.on_device(image, table).pixels

    def resizing() -> torch.Tensor:
        return torch.empty(picture.resize((wide, high), steps.resample).size)

    if device != "cpu":
        return {"ours": in_torch, "library": library, "resizing alone": resizing}
    return {
        "ours": lambda: steps.with_pillow(image).pixels,
        "library": library,
        "resizing alone": resizing,
        "ours in torch": in_torch,
    }


def main() -> None:
    """Measure, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    device: str = parser.parse_args().device
    packages = ("magicseg-engine", "torch", "transformers", "pillow", "numpy")
    write_results("preparation", measure(device), packages, setting={"side": SIDE}, device=device)


if __name__ == "__main__":
    main()
