"""How long a GPU is held for a pair, part by part, and what that is for the pairs of the paper.

The parts are those of the profile `sd15` at its batch sizes: a pair painted, both of its pictures
looked at by the detector, the masks of one cut; networks compiled, detector and segmenter in
float16. What a detector does about the boxes that it found is left out: with random weights nearly
all of its queries become boxes, about a thousand an image, where a trained one finds a few. There
is no peer here: `full_pair` and `full_labels` have them.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.full_labels import PHRASES, random_boxes, random_images
from benchmarks.full_pair import LETTERS, our_painter
from benchmarks.measurement import seconds_on
from benchmarks.random_models import (
    Geometry,
    chosen_geometry,
    save_detector,
    save_painter,
    save_segmenter,
)
from benchmarks.results_file import write_results
from models.labelling.captions import Captions
from models.labelling.config import DetectorConfig, SegmenterConfig
from models.labelling.detectors import GroundingDino
from models.labelling.segmenters import Sam
from models.labelling.span_detector import SpanBackend
from models.protocols import PairRequest

PAIRS = 380_000
REPEATS = 6
GOAL_HOURS = 24


def painting(geometry: Geometry, device: str, folder: Path) -> dict[str, Callable[[], object]]:
    """A batch of pairs."""
    painter = our_painter(save_painter(folder / "painter", geometry, device), geometry, device)
    requests = [PairRequest(LETTERS[i], LETTERS[i + 1], seed=i) for i in range(geometry.pairs)]
    return {"a pair painted": lambda: painter.paint(requests)}


def looking(geometry: Geometry, device: str, folder: Path) -> dict[str, Callable[[], object]]:
    """A batch of pictures, with pixels prepared, and its captions."""
    path = save_detector(folder / "detector", geometry, device)
    size = geometry.images
    config = DetectorConfig(model=path, dtype=_kind(device), device=device, batch_size=size)
    [backend] = [own for own in vars(GroundingDino(config)).values() if _is_backend(own)]
    images = random_images(size, geometry.side)
    captions = Captions(backend.tokenizer, backend.max_tokens)
    asked = [own for index in range(size) for own in captions.of(index, list(PHRASES))]
    encoded = backend.encode(images)
    return {
        "a picture encoded by the detector": lambda: backend.encode(images),
        "its phrases scored": lambda: backend.score(encoded, asked),
    }


def cutting(geometry: Geometry, device: str, folder: Path) -> dict[str, Callable[[], object]]:
    """A batch of images with two boxes each."""
    path = save_segmenter(folder / "segmenter", geometry, device)
    size = max(1, geometry.images // 2)
    sam = Sam(SegmenterConfig(model=path, dtype=_kind(device), device=device, batch_size=size))
    images, boxes = random_images(size, geometry.side), [random_boxes(geometry.side)] * size
    return {"the masks of an image": lambda: sam.segment(images, boxes)}


def measure(geometry: Geometry, device: str, folder: Path) -> list[dict[str, Any]]:
    """Time each part, and add up what a pair takes."""
    half = max(1, geometry.images // 2)
    rows: list[dict[str, Any]] = []
    for make, items, times in (
        (painting, geometry.pairs, 1),
        (looking, geometry.images, 2),
        (cutting, half, 1),
    ):
        for what, work in make(geometry, device, folder).items():
            rows.append(_timed(what, work, items, times, device))
            print(rows[-1], flush=True)
    taken = sum(row["best_ms"] * row["times_a_pair"] for row in rows)
    rows.append({"what": "a pair, all of it", "best_ms": round(taken, 1), "times_a_pair": 1})
    if device != "cpu":
        for row in rows:
            row["gpu_hours"] = round(row["best_ms"] * row["times_a_pair"] * PAIRS / 3.6e6, 1)
    return rows


def _timed(
    what: str, work: Callable[[], object], items: int, times: int, device: str
) -> dict[str, Any]:
    clock = seconds_on(device)
    began = time.perf_counter()
    work()
    first = time.perf_counter() - began
    taken: list[float] = []
    for _ in range(REPEATS):
        began = clock()
        work()
        taken.append(clock() - began)
    best = min(taken) / items * 1e3
    return {
        "what": what,
        "best_ms": float(f"{best:.4g}"),
        "median_ms": float(f"{np.median(taken) / items * 1e3:.4g}"),
        "times_a_pair": times,
        "first_batch_s": float(f"{first:.3g}"),
    }


def _kind(device: str) -> Literal["float32", "float16"]:
    return "float32" if device == "cpu" else "float16"


def _is_backend(own: object) -> bool:
    return isinstance(own, SpanBackend)


def main() -> None:
    """Measure at full size on a GPU, or the small geometry on a processor."""
    geometry, device = chosen_geometry(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(geometry, device, Path(folder))
    setting = {"geometry": geometry.name, "side": geometry.side, "pairs_of_the_paper": PAIRS}
    setting |= {"goal_gpu_hours": GOAL_HOURS}
    packages = ("magicseg-engine", "torch", "diffusers", "transformers")
    write_results("device_time", rows, packages, setting=setting, device=device)


if __name__ == "__main__":
    main()
