"""Painting pairs at the size of Stable Diffusion 1.5: 512 pixels, 20 steps, with guidance.

The peer is the usual loop: the library's pipeline is asked for the positive, then for the
counterfactual, one prompt a call. The library's pipeline in batches as large as ours comes near to
what there is to gain by batching alone. The limit is the time of our multiplications and additions
at the speed of one large matrix product, measured in the same run. Weights are random, so that the
figures need no download; what is painted has no meaning.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import Tensor

from benchmarks.measurement import Row, compare, peak_megabytes, seconds_on
from benchmarks.random_models import Geometry, chosen_geometry, save_painter
from benchmarks.results_file import write_results
from benchmarks.train_step import count_flops, product_speed
from models.painting.config import PainterConfig
from models.painting.painters import DiffusionPairPainter
from models.protocols import PaintedPair, PairRequest
from storage.records import Mention, Prompt
from tasks.pairs import paint_pairs
from tasks.rules import PairRules

LETTERS = "abcdefghijklmnop"
LOOP_PAIRS = 2
"""Pairs that the loop paints to be timed: it takes as long for each."""
TOLERANCE = 1.0
"""Levels by which pictures may differ in the mean, of 255: a batch of another size adds up in
another order."""


class PlainLoop:
    """The library's pipeline as its own page has it.

    Args:
        folder: The checkpoint.
        geometry: Sizes.
        device: Where it paints.
    """

    def __init__(self, folder: str, geometry: Geometry, device: str) -> None:
        kind = torch.float32 if device == "cpu" else torch.float16
        make: Any = StableDiffusionPipeline
        self.pipeline = make.from_pretrained(folder).to(device, kind)
        self.pipeline.set_progress_bar_config(disable=True)
        self.geometry = geometry
        self.kind = kind

    def start(self, seed: int) -> Tensor:
        """The noise that both pictures of a pair begin with."""
        channels, side = self.pipeline.unet.config.in_channels, self._latent_side()
        noise = torch.randn(channels, side, side, generator=torch.Generator().manual_seed(seed))
        return noise[None].to(self.pipeline.device, self.kind)

    def one_by_one(self, requests: Sequence[PairRequest]) -> list[list[np.ndarray]]:
        """Paint pair after pair, one prompt a call."""
        return [
            [
                np.asarray(self._call([text], self.start(request.seed), "pil")[0])
                for text in (request.text, request.counterfactual_text)
            ]
            for request in requests
        ]

    def in_batches(self, requests: Sequence[PairRequest]) -> Tensor:
        """Paint all pictures in one call; they stay on the device."""
        texts = [request.text for request in requests]
        texts += [request.counterfactual_text for request in requests]
        starts = torch.cat([self.start(request.seed) for request in requests])
        return self._call(texts, starts.repeat(2, 1, 1, 1), "pt")

    def _call(self, texts: list[str], latents: Tensor, output: str) -> Any:
        return self.pipeline(
            texts,
            latents=latents,
            num_inference_steps=self.geometry.steps,
            guidance_scale=7.5,
            height=self.geometry.side,
            width=self.geometry.side,
            output_type=output,
        ).images

    def _latent_side(self) -> int:
        return self.geometry.side // self.pipeline.vae_scale_factor


class GivenPairs:
    """A painter that has painted already.

    Args:
        pairs: What it gives.
    """

    def __init__(self, pairs: list[PaintedPair]) -> None:
        self._pairs = pairs

    def paint(self, requests: Sequence[PairRequest]) -> list[PaintedPair]:
        """Give as many pairs as are asked for."""
        return self._pairs[: len(requests)]


def our_painter(folder: str, geometry: Geometry, device: str, **options: Any) -> Any:
    """Our painter with the settings of the profile `sd15`."""
    return DiffusionPairPainter(
        PainterConfig(
            model=folder,
            dtype="float32" if device == "cpu" else "float16",
            device=device,
            steps=geometry.steps,
            height=geometry.side,
            width=geometry.side,
            batch_size=geometry.pairs,
            **options,
        )
    )


def measure(geometry: Geometry, device: str, folder: Path) -> list[Row]:
    """Check that all ways paint the same, then take time and memory a pair."""
    count = geometry.pairs
    requests = [PairRequest(LETTERS[i], LETTERS[i + 1], seed=i) for i in range(count)]
    began = time.perf_counter()
    path = save_painter(folder / "painter", geometry, device)
    print(f"random weights made in {time.perf_counter() - began:.1f} s", flush=True)
    painter = our_painter(path, geometry, device)
    plain = PlainLoop(path, geometry, device)
    began = time.perf_counter()
    ours = painter.paint(requests)
    first = time.perf_counter() - began
    error, spread = _difference(ours[:LOOP_PAIRS], plain.one_by_one(requests[:LOOP_PAIRS]))
    apart = np.mean([np.abs(np.int16(own.image) - own.counterfactual).mean() for own in ours])
    print(f"mean difference {error} of a spread of {spread}, in a pair {apart}", flush=True)
    assert error < TOLERANCE < spread
    ways = {
        "ours": lambda: painter.paint(requests),
        "plain loop": lambda: plain.one_by_one(requests[:LOOP_PAIRS]),
        "plain pipeline in batches": lambda: plain.in_batches(requests),
    }
    items = {"ours": count, "plain loop": LOOP_PAIRS, "plain pipeline in batches": count}
    if device == "cuda":  # a processor runs the same with and without
        eager = our_painter(path, geometry, device, compile=False)
        ways["ours, not compiled"] = lambda: eager.paint(requests)
        items["ours, not compiled"] = count
        ways["ours, not compiled"]()
    ways["plain pipeline in batches"]()
    rows = compare(ways, repeats=1, items=items, clock=seconds_on(device))
    for row, work in zip(rows, ways.values(), strict=True):
        row["peak_mb"] = peak_megabytes(work, device)
    rows[0] |= {
        "first_batch_s": float(f"{first:.3g}"),
        "mean_difference": float(f"{error:.2g}"),
        "spread": float(f"{spread:.3g}"),
    }
    flops = count_flops(lambda: plain.in_batches(requests)) / count
    floor = flops / product_speed(device)
    rows.append(
        {
            "what": "limit: its products",
            "best_ms": float(f"{floor:.4g}"),
            "times_ours": [round(floor / rows[0]["best_ms"], 3)],
            "gflop": round(flops / 1e9, 1),
        }
    )
    return rows + _cpu_work(ours, requests)


def _cpu_work(pairs: list[PaintedPair], requests: Sequence[PairRequest]) -> list[Row]:
    """What the processor does about a painted pair, in milliseconds of its own."""
    prompts = [
        Prompt(
            key=f"{request.seed:016x}",
            text=request.text,
            counterfactual_text=request.counterfactual_text,
            mentions=(Mention(class_id=0, start=0, end=1),),
            writer="letters",
        )
        for request in requests
    ]
    seeds = {prompt.key: request.seed for prompt, request in zip(prompts, requests, strict=True)}
    given = GivenPairs(pairs)
    work = {"checks of the pixels": lambda: paint_pairs(prompts, seeds, given, PairRules())}
    return compare(work, repeats=2, items=len(pairs))


def _difference(
    ours: Sequence[PaintedPair], others: Sequence[Sequence[np.ndarray]]
) -> tuple[float, float]:
    """Mean difference of two ways' pictures, and their own mean standard deviation, in levels."""
    pictures = np.stack([[pair.image, pair.counterfactual] for pair in ours]).astype(np.float32)
    expected = np.stack(others).astype(np.float32)
    return float(np.abs(pictures - expected).mean()), float(expected.std(axis=(2, 3)).mean())


def main() -> None:
    """Measure at full size on a GPU, or the small geometry on a processor."""
    geometry, device = chosen_geometry(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(geometry, device, Path(folder))
    setting = {
        "geometry": geometry.name,
        "side": geometry.side,
        "steps": geometry.steps,
        "pairs": geometry.pairs,
        "scheduler": "pndm",
    }
    packages = ("magicseg-engine", "torch", "diffusers", "transformers")
    write_results("full_pair", rows, packages, setting=setting, device=device)


if __name__ == "__main__":
    main()
