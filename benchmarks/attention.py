"""What recording a painter's attention costs, at the size of Stable Diffusion 1.5 at 512 pixels.

Recorded is all that the labellers `diffumask` and `dataset-diffusion` read: words at 16, 32 and 64
cells, of the text and of the class names alone, and cells to cells at 32. The peer is painting
without a recording; the limit is to compute the same probabilities in place of the network's own
attention, which changes pictures. Memory is what a batch takes beyond the weights, for more steps
and for more pairs. Weights are random. On a CPU one pair of two steps is timed; on a GPU a batch.
"""

import gc
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor

from benchmarks.full_pair import our_painter
from benchmarks.measurement import Row, compare, peak_megabytes, seconds_on
from benchmarks.random_models import FULL, Geometry, chosen_geometry, save_painter
from benchmarks.results_file import write_results
from models.attention_maps import MapsWanted
from models.painting.painters import DiffusionPairPainter
from models.protocols import AttendedClass, PaintedPair, PairRequest

STEPS = (1, 2, 4)
"""For which memory is taken, with one pair."""
PAIRS = (1, 2)
"""For which memory is taken, with one step."""
MEMORY_SIDE = 256
"""Pixels of the pictures for which memory is taken on a CPU: at 512 they would take an hour."""


def requests_of(count: int) -> list[PairRequest]:
    """Pairs with two classes each, of letters, which are all the words of the random network."""
    attended = (AttendedClass("b c", ((2, 5),)), AttendedClass("e", ((8, 9),)))
    return [PairRequest("a b c d e f", "a d f", seed, attended) for seed in range(count)]


def wanted_of(side: int) -> MapsWanted:
    """What both labellers read together, for latents of a side."""
    if side < MEMORY_SIDE // 8:
        return MapsWanted(cross=(side // 2,), cells=side // 2)
    return MapsWanted(cross=(side // 4, side // 2, side), cells=side // 2)


def measure_time(geometry: Geometry, device: str, path: str) -> list[Row]:
    """Time a batch with and without a recording, and check that the pictures are the same."""
    painter = our_painter(path, geometry, device, compile=False)
    requests = requests_of(geometry.pairs)
    wanted = wanted_of(_latent_side(painter, geometry))
    plain, recorded = painter.paint(requests), painter.paint_recorded(requests, wanted)
    for one, other in zip(plain, recorded, strict=True):
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.counterfactual, other.counterfactual)
    plainly = our_painter(path, geometry, device, compile=False)
    plainly.loaded.network.set_attn_processor(AttnProcessor())
    ways = {
        "with a recording": lambda: painter.paint_recorded(requests, wanted),
        "without": lambda: painter.paint(requests),
        "with explicit probabilities in place of the network's own attention": lambda: (
            plainly.paint(requests)
        ),
    }
    rows = compare(ways, repeats=1, items=geometry.pairs, clock=seconds_on(device))
    rows[-1] |= _apart(plain, plainly.paint(requests))
    return [{"part": "time", **row} for row in rows]


def _apart(pairs: Sequence[PaintedPair], others: Sequence[PaintedPair]) -> Row:
    """How many pictures are others, and by how many levels at most."""
    both = [
        np.abs(np.int16(one) - np.int16(other))
        for pair, again in zip(pairs, others, strict=True)
        for one, other in (
            (pair.image, again.image),
            (pair.counterfactual, again.counterfactual),
        )
    ]
    return {
        "pictures": len(both),
        "other_pictures": sum(bool(each.any()) for each in both),
        "most_levels": int(max(each.max() for each in both)),
    }


def measure_memory(geometry: Geometry, device: str, path: str) -> list[Row]:
    """Take what a batch needs for more steps, and for more pairs, with and without a recording."""
    rows: list[Row] = []
    for steps, pairs in [(each, 1) for each in STEPS] + [(1, each) for each in PAIRS[1:]]:
        own = replace(geometry, steps=steps, pairs=pairs)
        painter = our_painter(path, own, device, compile=False)
        requests = requests_of(pairs)
        wanted = wanted_of(_latent_side(painter, own))
        painter.paint(requests)
        rows.append(
            {
                "part": "memory",
                "side": own.side,
                "steps": steps,
                "pairs": pairs,
                "without_mb": peak_megabytes(partial(painter.paint, requests), device),
                "with_mb": peak_megabytes(
                    partial(painter.paint_recorded, requests, wanted), device
                ),
            }
        )
        print(rows[-1], flush=True)
        del painter
        gc.collect()  # the next one has weights of its own
    return rows


def _latent_side(painter: DiffusionPairPainter, geometry: Geometry) -> int:
    return geometry.side // painter.loaded.pipeline.vae_scale_factor


def main() -> None:
    """Measure at full size, or the small geometry."""
    geometry, device = chosen_geometry(__doc__)
    of_time, of_memory = geometry, geometry
    if device == "cpu":
        torch.set_num_threads(1)
        if geometry is FULL:
            of_time = replace(FULL, pairs=1, steps=2)
            of_memory = replace(FULL, side=MEMORY_SIDE)
    with tempfile.TemporaryDirectory() as folder:
        path = save_painter(Path(folder) / "painter", geometry, device)
        rows = measure_memory(of_memory, device, path) + measure_time(of_time, device, path)
    setting = {"geometry": geometry.name, "side": of_time.side, "steps": of_time.steps}
    packages = ("magicseg-engine", "torch", "diffusers")
    write_results("attention", rows, packages, setting=setting, device=device)


if __name__ == "__main__":
    main()
