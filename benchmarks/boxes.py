"""Memory of a segmenter for 1 to 900 boxes in an image, at the size of SAM ViT-B.

Our way decodes chunks of boxes and keeps a bit a pixel of each mask. The other way, for comparison
and with fewer boxes, decodes all at once, as one call of the library does. The image is encoded
once before: that takes the same memory for any number of boxes. Weights are random.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.full_labels import random_images
from benchmarks.measurement import Row, peak_megabytes
from benchmarks.random_models import FULL, SMALL, Geometry, chosen_geometry, save_segmenter
from benchmarks.results_file import RESULTS, write_results
from evaluation.reports.charts import Axes, Line, line_chart
from models.labelling.config import SegmenterConfig
from models.labelling.segmenters import Sam

VIT_B = replace(
    FULL,
    name="full",
    sam={"initializer_range": 0.02},  # the default makes all but zeros
)
"""The library's defaults are those of SAM ViT-B."""
CHUNKED = (1, 50, 300, 900)
AT_ONCE = (1, 50, 150)
"""More take more memory than a machine of 16 GB has to spare."""
_STYLE = """
svg { font: 11px sans-serif; background: white } polyline { fill: none; stroke-width: 2 }
.rule { stroke: #ddd } .axis { stroke: #888 }
.line.s0 { stroke: #2a6fb0 } .dot.s0 { fill: #2a6fb0 }
.line.s1 { stroke: #c4551d } .dot.s1 { fill: #c4551d }
"""


def random_boxes(count: int, side: int) -> np.ndarray:
    """Draw boxes, xyxy in pixels."""
    generator = np.random.default_rng(count)
    corners = generator.uniform(0, side, (count, 2, 2))
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)


def measure(geometry: Geometry, device: str, folder: Path) -> list[Row]:
    """Take memory and time of both ways."""
    torch.set_num_threads(1)
    path = save_segmenter(folder, geometry, device)
    chunked = Sam(SegmenterConfig(model=path, device=device))
    whole = Sam(SegmenterConfig(model=path, device=device, boxes_at_once=max(CHUNKED)))
    [image] = random_images(1, geometry.side)
    rows = [_encoded_once(chunked, whole, image, device)]
    for way, segmenter, counts in (("chunks", chunked, CHUNKED), ("at once", whole, AT_ONCE)):
        for count in counts:
            boxes = random_boxes(count, geometry.side)
            row = _measured(lambda own=boxes, by=segmenter: by.segment([image], [own]), device)
            rows.append({"way": way, "boxes": count, **row})
            print(rows[-1], flush=True)
    return rows


def chart(rows: list[Row]) -> str:
    """Draw memory over boxes, as a file of its own."""
    lines = [
        Line(way, tuple((row["boxes"], row["peak_mb"]) for row in rows if row["way"] == way), style)
        for style, way in enumerate(("chunks", "at once"))
    ]
    drawn = str(line_chart(lines, Axes(x="boxes in an image", y="peak memory in MB")))
    return drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
        ">", f"><style>{_STYLE}</style>", 1
    )


def _encoded_once(chunked: Sam, whole: Sam, image: np.ndarray, device: str) -> Row:
    """Let both ways find the image encoded; say what encoding takes."""
    [square] = chunked.backend.squares([image])
    encoded: list[torch.Tensor] = []

    @torch.inference_mode()
    def encode() -> None:
        encoded.extend(chunked.backend.encode(square.pixels))

    row = _measured(encode, device)
    for segmenter in (chunked, whole):
        segmenter.backend.encode = lambda _pixels: encoded
    return {"way": "encoding", "boxes": 0, **row}


def _measured(work: Callable[[], object], device: str) -> Row:
    began = time.perf_counter()
    peak = peak_megabytes(work, device)
    return {"peak_mb": peak, "seconds": round(time.perf_counter() - began, 1)}


def main() -> None:
    """Measure at full size, or the small geometry; write the figures and their chart."""
    geometry, device = chosen_geometry(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(VIT_B if geometry is FULL else SMALL, device, Path(folder))
    setting = {"geometry": geometry.name, "side": geometry.side, "boxes_at_once": 64}
    packages = ("magicseg-engine", "torch", "transformers")
    write_results("boxes", rows, packages, setting=setting, device=device)
    if device == "cpu":
        RESULTS.joinpath("boxes.svg").write_text(chart(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
