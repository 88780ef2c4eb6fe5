"""What recording a painter's attention costs, at the size of Stable Diffusion 1.5 at 512 pixels.

Recorded is all that the labellers `diffumask` and `dataset-diffusion` read: words at 16, 32 and 64
cells, of the text and of the class names alone, and cells to cells at 32. Timed is one call of the
network for a batch of pairs with guidance: on a CPU of one pair. The peer is the call without a
recording; the other way is to compute explicit probabilities in place of the network's own
attention, which changes what comes out. Memory is what a batch takes to paint beyond the weights,
for more steps and for more pairs. Weights are random.
"""

import gc
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from benchmarks.full_pair import our_painter
from benchmarks.measurement import Row, compare, peak_megabytes, seconds_on
from benchmarks.random_models import FULL, Geometry, chosen_geometry, save_painter
from benchmarks.results_file import write_results
from models.attention_maps import MapsWanted
from models.painting.attention import AttentionRecorder
from models.painting.painters import DiffusionPairPainter
from models.protocols import AttendedClass, PairRequest

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
    """Time one call of the network for a batch of pairs with guidance, in three ways."""
    painter = our_painter(path, geometry, device, compile=False)
    network, pairs, side = painter.loaded.network, geometry.pairs, _latent_side(painter, geometry)
    wanted, like = wanted_of(side), {"device": network.device, "dtype": network.dtype}
    noise = torch.randn(4 * pairs, network.config.in_channels, side, side).to(**like)
    texts = torch.randn(4 * pairs, 77, network.config.cross_attention_dim).to(**like)

    @torch.inference_mode()
    def call() -> torch.Tensor:
        return network(noise, 500, texts).sample

    def recorded() -> torch.Tensor:
        recorder = AttentionRecorder(
            painter.loaded, wanted, (side, side), 2 * pairs, texts[:pairs].contiguous()
        )
        with recorder.listening():
            return call()

    def explicit() -> torch.Tensor:
        network.set_attn_processor(AttnProcessor())
        found = call()
        network.set_attn_processor(AttnProcessor2_0())
        return found

    expected = call()
    assert torch.equal(recorded(), expected)
    ways = {
        "with a recording": recorded,
        "without": call,
        "with explicit probabilities in place of the network's own attention": explicit,
    }
    rows = compare(ways, repeats=1, items=pairs, clock=seconds_on(device))
    apart = (explicit().float() - expected.float()).abs().max() / expected.float().abs().max()
    rows[-1]["largest_difference"] = float(f"{apart.item():.2g}")
    return [{"part": "time", **row} for row in rows]


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
            of_time = replace(FULL, pairs=1)
            of_memory = replace(FULL, side=MEMORY_SIDE)
    with tempfile.TemporaryDirectory() as folder:
        path = save_painter(Path(folder) / "painter", geometry, device)
        rows = measure_memory(of_memory, device, path) + measure_time(of_time, device, path)
    setting = {"geometry": geometry.name, "side": of_time.side, "pairs": of_time.pairs}
    packages = ("magicseg-engine", "torch", "diffusers")
    write_results("attention", rows, packages, setting=setting, device=device)


if __name__ == "__main__":
    main()
