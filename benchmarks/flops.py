"""Multiplications and additions of a pair, by network, against those that no way can do without.

Calls and rows are counted in our own painter, detector and segmenter with networks that have hardly
a weight; what a row costs is counted at full size on the meta device, where nothing is computed.
The floor has 20 calls of the U-Net with guidance, both pictures decoded, and the image found and
cut once; no checker, and no detector on the counterfactual.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPTextConfig,
    CLIPTextModel,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    SamConfig,
    SamModel,
    SamVisionConfig,
    SwinConfig,
)

from benchmarks.random_models import FULL, SMALL, save_detector, save_painter, save_segmenter
from benchmarks.results_file import write_results
from benchmarks.train_step import count_flops
from models.labelling.config import DetectorConfig, SegmenterConfig
from models.labelling.detectors import GroundingDino
from models.labelling.segmenters import Sam
from models.painting.config import PainterConfig
from models.painting.painters import DiffusionPairPainter
from models.protocols import PairRequest

STEPS = 20
BATCH = 8
GOAL = 1.06
"""Most of the floor."""


@dataclass(frozen=True)
class Network:
    """What a network costs at full size.

    Attributes:
        gflop: Multiplications and additions of a row, in billions.
        floor_rows: Rows of a pair that no way can do without.
    """

    gflop: float
    floor_rows: float


class Rows:
    """Counts calls and rows of networks while they are used."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()

    def watch(self, name: str, module: nn.Module) -> None:
        """Count the calls of a module from now on."""

        def count(_module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            tensors = [each for each in (*arguments, *named.values()) if isinstance(each, Tensor)]
            self.calls[name] += 1
            self.rows[name] += max(len(each) for each in tensors if each.ndim > 1)

        module.register_forward_pre_hook(count, with_kwargs=True)


def painted_rows(folder: Path) -> Rows:
    """What our painter asks of its networks for one full batch of pairs."""
    geometry = replace(SMALL, steps=STEPS)
    config = PainterConfig(
        model=save_painter(folder / "painter", geometry, "cpu"),
        device="cpu",
        steps=STEPS,
        height=geometry.side,
        width=geometry.side,
        batch_size=BATCH,
    )
    painter, rows = DiffusionPairPainter(config), Rows()
    requests = [PairRequest(letter, "z", seed) for seed, letter in enumerate("abcdefgh")]
    painter.paint(requests)  # the empty text is read once a run
    pipeline: Any = painter.loaded.pipeline
    rows.watch("U-Net", pipeline.unet)
    rows.watch("autoencoder", pipeline.vae.decoder)
    rows.watch("text encoder", pipeline.text_encoder)
    rows.watch("safety checker", _inside(painter.loaded.checker, "_network"))
    painter.paint(requests)
    return rows


def labelled_rows(folder: Path) -> Rows:
    """What our detector and segmenter ask of their networks for the images of as many pairs."""
    rows = Rows()
    detector = GroundingDino(
        DetectorConfig(
            model=save_detector(folder / "detector", SMALL, "cpu"), device="cpu", batch_size=BATCH
        )
    )
    segmenter = Sam(
        SegmenterConfig(
            model=save_segmenter(folder / "segmenter", SMALL, "cpu"), device="cpu", batch_size=BATCH
        )
    )
    rows.watch("detector", _inside(detector, "_backend", "_network"))
    rows.watch("segmenter, image tower", _inside(segmenter.backend, "_network").vision_encoder)
    rng = np.random.default_rng(0)
    pictures = list(rng.integers(0, 255, (2 * BATCH, SMALL.side, SMALL.side, 3), dtype=np.uint8))
    detector.detect(pictures, [("a",)] * len(pictures))  # counterfactuals are looked at too
    box = np.array([[1, 1, SMALL.side - 1, SMALL.side - 1]], dtype=np.float32)
    segmenter.segment(pictures[:BATCH], [box] * BATCH)
    return rows


def _inside(owner: Any, *names: str) -> Any:
    """What an object keeps to itself."""
    for name in names:
        owner = vars(owner)[name]
    return owner


def full_size() -> dict[str, Network]:
    """What each network costs at full size."""
    meta = partial(torch.zeros, device="meta")
    kinds = {"down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",)}
    blocks = {name: kind * 4 for name, kind in kinds.items()}
    checked = CLIPConfig(vision_config={**FULL.checker, "projection_dim": 768}, projection_dim=768)
    with torch.device("meta"):
        unet = UNet2DConditionModel(**FULL.unet)
        vae = AutoencoderKL(**FULL.vae, **blocks)
        text = CLIPTextModel(CLIPTextConfig(**FULL.text))
        checker = StableDiffusionSafetyChecker(checked)
        sam = SamModel(SamConfig(vision_config=SamVisionConfig(**FULL.sam).to_dict()))
    swin = SwinConfig(window_size=7, out_features=["stage2", "stage3", "stage4"])
    dino = GroundingDinoForObjectDetection(GroundingDinoConfig(backbone_config=swin)).eval()
    edge = FULL.shortest_edge
    words = torch.tensor([[101, 1037, 1012, 1038, 1012, 1039, 1012, 102]])

    def detect() -> object:  # it asks for values on the way, which meta has none of
        with torch.inference_mode():
            return dino(pixel_values=torch.zeros(1, 3, edge, edge), input_ids=words)

    works: Mapping[str, tuple[Callable[[], object], float]] = {
        "U-Net": (
            lambda: unet(meta(1, 4, 64, 64), 1, meta(1, 77, FULL.unet["cross_attention_dim"])),
            2 * 2 * STEPS,
        ),
        "autoencoder": (lambda: vae.decoder(meta(1, 4, 64, 64)), 2),
        "text encoder": (lambda: text(meta(1, 77, dtype=torch.long)), 2),
        "safety checker": (lambda: checker.vision_model(meta(1, 3, 224, 224)), 0),
        "detector": (detect, 1),
        "segmenter, image tower": (lambda: sam.vision_encoder(meta(1, 3, 1024, 1024)), 1),
    }
    return {
        name: Network(round(count_flops(work) / 1e9, 1), rows)
        for name, (work, rows) in works.items()
    }


def main() -> None:
    """Count, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counted = [painted_rows(Path(folder)), labelled_rows(Path(folder))]
    networks = full_size()
    rows: list[dict[str, Any]] = []
    for seen in counted:
        for name in seen.calls:
            own, each = networks[name], seen.rows[name] / BATCH
            rows.append(
                {
                    "what": name,
                    "calls_a_batch": seen.calls[name],
                    "rows_a_pair": each,
                    "gflop_a_row": own.gflop,
                    "tflop": round(each * own.gflop / 1e3, 3),
                    "floor_tflop": round(own.floor_rows * own.gflop / 1e3, 3),
                }
            )
    ours, floor = (round(sum(row[name] for row in rows), 2) for name in ("tflop", "floor_tflop"))
    times = round(ours / floor, 3)
    rows.append({"what": "a pair", "tflop": ours, "floor_tflop": floor, "times_floor": times})
    setting = {"pairs": BATCH, "steps": STEPS, "goal_times_floor": GOAL}
    packages = ("torch", "diffusers", "transformers")
    write_results("flops", rows, packages, setting=setting)


if __name__ == "__main__":
    main()
