"""One sample through every stage, and one training step, at full size, by the command line.

Stable Diffusion 1.5 with two steps, Grounding DINO tiny, SAM ViT-B and a student on CLIP ViT-B/16
at 512 pixels, all on the CPU and with random weights in folders of the hub's layout, which a
profile names: what is shown is that the chain runs to a tar and a checkpoint, in how much time and
memory. Thresholds let random boxes pass. There is no peer: nothing else does all of it.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from benchmarks.measurement import Row
from benchmarks.random_models import (
    FULL,
    SMALL,
    Geometry,
    chosen_geometry,
    save_clip,
    save_detector,
    save_painter,
    save_segmenter,
)
from benchmarks.results_file import write_results

CHAIN = replace(
    FULL,
    checker=SMALL.checker,  # it is saved, and not loaded
    sam={
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "mlp_dim": 3072,
        "global_attn_indexes": [2, 5, 8, 11],
        "initializer_range": 0.02,
    },
)
"""The full size, with the segmenter of ViT-B."""


def save_models(folder: Path, geometry: Geometry) -> Path:
    """Save all models, and a profile that names them; give the profile's path."""
    place = {"device": "cpu", "batch_size": 1}
    side = geometry.side
    profile: dict[str, Any] = {
        "vocabulary": "miniature",
        "writer": {"kind": "template", "templates": "simple"},
        "painter": {
            "model": save_painter(folder / "painter", geometry, "cpu"),
            "steps": 2,
            "scheduler": "ddim",
            "height": side,
            "width": side,
            "safety_checker": False,
            **place,
        },
        "labeller": {
            "kind": "grounded",
            "detector": {
                "model": save_detector(folder / "detector", geometry, "cpu"),
                "box_threshold": 0.0,
                "text_threshold": 0.0,
                "nms_iou": 0.01,
                **place,
            },
            "segmenter": {
                "model": save_segmenter(folder / "segmenter", geometry, "cpu"),
                **place,
            },
        },
        "student": {
            "clip": save_clip(folder / "clip", geometry, "cpu"),
            "image_size": side,
            **({"decoder_heads": 2} if geometry.name == "small" else {}),
        },
        "training": {
            "templates": "single",
            "classes_per_image": 8,
            "augmentation": {"crop_rule": "object"},
            "optimiser": {"steps": 1, "batch_size": 1, "warmup_steps": 0},
        },
    }
    file = folder / "chain.yaml"
    file.write_text(yaml.safe_dump(profile), encoding="utf-8")
    return file


def measure(geometry: Geometry, folder: Path) -> list[Row]:
    """Make a dataset of one sample and train one step on it.

    Args:
        geometry: Of the models.
        folder: An empty one for models, dataset and run.

    Returns:
        A row for each command: seconds, and the largest memory of its processes in 10^6 bytes.
    """
    profile, root, run = save_models(folder, geometry), folder / "dataset", folder / "run"
    settings = {
        "samples": 1,
        "samples_per_shard": 1,
        "texts_per_class_set": 1,
        "profile": str(profile),
        "pairs": {"min_deviation": 0.0},
        "detections": {"require": "any", "counterfactual": "record"},
        "masks": {"min_area": 0.0, "max_area": 1.0},
    }
    file = folder / "generate.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    rows = [
        _commanded("generate", str(file), "--root", str(root)),
        _commanded("train", "--dataset", str(root), "--out", str(run), "--profile", str(profile)),
    ]
    assert len(list((root / "data").glob("*.tar"))) == 1
    assert list(run.rglob("*.safetensors")), sorted(run.rglob("*"))
    return rows


def _commanded(*arguments: str) -> Row:
    """Run a command of ours to its end."""
    began = time.monotonic()
    variables = {name: own for name, own in os.environ.items() if not name.startswith("PREFECT_")}
    child = subprocess.Popen(
        [sys.executable, "-m", "flows", *arguments],
        env=variables | {"HF_HUB_OFFLINE": "1"},
        cwd=Path(__file__).parents[1],
    )
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, child.args)
    return {
        "what": arguments[0],
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mb": round(used.ru_maxrss * 1024 / 1e6),
    }


def main() -> None:
    """Measure."""
    geometry, _ = chosen_geometry(__doc__)
    with tempfile.TemporaryDirectory(prefix="magicseg-chain-") as folder:
        rows = measure(CHAIN if geometry is FULL else geometry, Path(folder))
    setting = {
        "geometry": geometry.name,
        "samples": 1,
        "steps": 2,
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
    }
    write_results("full_chain", rows, ("torch", "transformers", "diffusers"), setting=setting)


if __name__ == "__main__":
    main()
