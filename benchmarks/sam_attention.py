"""Time and memory of SAM's image encoder with attention in rows, and as the library has it.

One image of 1,024 pixels at the size of SAM ViT-B, with random weights, on a CPU. What both give is
compared before anything is measured.
"""

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import SamModel

from benchmarks.boxes import VIT_B
from benchmarks.measurement import Row, compare, peak_megabytes, seconds_on
from benchmarks.random_models import FULL, SMALL, Geometry, chosen_geometry, save_segmenter
from benchmarks.results_file import write_results
from models.labelling.sam_attention import attend_in_rows


@torch.inference_mode()
def measure(geometry: Geometry, device: str, folder: Path) -> list[Row]:
    """Check that both give the same, then take time and memory of both."""
    torch.set_num_threads(1)
    network: Any = SamModel.from_pretrained(save_segmenter(folder, geometry, device))
    library = network.vision_encoder.eval()
    torch.manual_seed(0)
    for name, weight in library.named_parameters():
        if "rel_pos" in name:
            torch.nn.init.normal_(weight, std=0.1)  # new ones are zeros
    library = library.to(device)
    ours = copy.deepcopy(library)
    attend_in_rows(ours)
    side = library.config.image_size
    pixels = torch.randn(1, 3, side, side, device=device)
    made, expected = (own(pixels).last_hidden_state for own in (ours, library))
    error = float((made - expected).abs().max())
    assert error < 1e-5, error
    ways = {"ours": lambda: ours(pixels), "library": lambda: library(pixels)}
    rows = compare(ways, repeats=1, clock=seconds_on(device))
    for row, way in zip(rows, ways.values(), strict=True):
        row["peak_mb"] = peak_megabytes(way, device)
    rows[0]["error"] = error
    return rows


def main() -> None:
    """Measure at full size, or the small geometry."""
    geometry, device = chosen_geometry(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(VIT_B if geometry is FULL else SMALL, device, Path(folder))
    packages = ("magicseg-engine", "torch", "transformers")
    write_results(
        "sam_attention", rows, packages, setting={"geometry": geometry.name}, device=device
    )


if __name__ == "__main__":
    main()
