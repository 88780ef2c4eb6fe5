"""The same pictures labelled by each labeller that the miniature's trained weights can carry.

A dataset of the demonstration is made with each: texts, seeds and painter are equal, so that the
pictures are, and so are the rules. Told are how many samples pass, how many the default's dataset
has too, how far the label maps of those agree with the default's, how far masks of drawn scenes
agree with the exact ones, what an image takes, and what a student learns. MM-Grounding-DINO and
SAM-HQ have the miniature's weights, converted (`benchmarks.converted`). `--out` keeps datasets and
runs; what is there is not made again.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console

from benchmarks.converted import save_mm_grounding_dino, save_sam_hq
from benchmarks.counterfactuals import score
from benchmarks.results_file import write_results
from benchmarks.student_transfer import draw_scene
from flows.demo import demo_generation
from flows.generation_parameters import GenerationParameters
from flows.local_runs import generate_locally
from models.labellers import build_labeller
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark
from models.miniature.world import CLASSES, masks, render
from models.profiles import load_profile
from storage.codecs import decode_label_map
from storage.shards import Sample, iterate
from storage.store import Store

DEFAULT = "grounding-dino + sam"
SCENES = 96


def labellers(folder: Path) -> Mapping[str, Any]:
    """What each labeller changes in the one of the profile `miniature`."""
    relative = {"kind": "mm-grounding-dino", "model": save_mm_grounding_dino(folder / "mm")}
    finer = {"kind": "sam-hq", "model": save_sam_hq(folder / "hq")}
    return {
        DEFAULT: {},
        "mm-grounding-dino + sam": {"detector": relative},
        "grounding-dino + sam-hq": {"segmenter": finer},
    }


def profile_with(changes: Mapping[str, Any], file: Path) -> Path:
    """Write the miniature profile with another labeller."""
    document = load_profile("miniature").model_dump(mode="json", exclude={"name"})
    for part, own in changes.items():
        document["labeller"][part] |= own
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return file


def generate(root: Path, profile: Path, console: Console) -> dict[int, Sample]:
    """Make a dataset, or find it; its samples by their place in the plan, which is one for all."""
    document = demo_generation(root, 0).model_dump(mode="json", exclude_unset=True)
    parameters = GenerationParameters.model_validate(document | {"profile": str(profile)})
    generate_locally(parameters, console)
    shards = [shard.path for shard in Store.open(root).shards() if shard.path is not None]
    return {sample.index: sample for path in shards for sample in iterate(path)}


def agreement(own: Mapping[int, Sample], others: Mapping[int, Sample]) -> dict[str, Any]:
    """How many samples both have, and how alike their label maps are, class by class."""
    common = sorted(own.keys() & others.keys())
    overlaps: list[float] = []
    for index in common:
        first, second = (decode_label_map(each[index].mask_bytes) for each in (own, others))
        assert own[index].image_bytes == others[index].image_bytes, "one painter paints one picture"
        overlaps += [
            _iou(first == class_id + 1, second == class_id + 1) for class_id in own[index].class_ids
        ]
    return {"samples": len(own), "common": len(common), "iou_default": _percent(overlaps)}


def exactness(profile: Path) -> dict[str, Any]:
    """How alike masks of drawn scenes are to the exact ones, and what an image takes."""
    labeller = build_labeller(load_profile(str(profile)).labeller)
    scenes = [draw_scene(1, index)[0] for index in range(SCENES)]
    asked = [tuple(dict.fromkeys(CLASSES[t.class_id] for t in s.things)) for s in scenes]
    pictures = [render(scene) for scene in scenes]
    labeller.label(pictures[:1], asked[:1])
    began = time.process_time()
    found = labeller.label(pictures, asked)
    seconds = (time.process_time() - began) / SCENES
    overlaps: list[float] = []
    for scene, names, own in zip(scenes, asked, found, strict=True):
        exact = masks(scene)
        for number, name in enumerate(names):
            truth = np.any(
                [
                    m
                    for t, m in zip(scene.things, exact, strict=True)
                    if CLASSES[t.class_id] == name
                ],
                axis=0,
            )
            cut = [own.cuts.masks[i] for i in np.flatnonzero(own.boxes.phrases == number)]
            overlaps.append(_iou(np.any(cut, axis=0) if cut else np.zeros_like(truth), truth))
    return {"iou_exact": _percent(overlaps), "cpu_ms_an_image": round(1000 * seconds, 1)}


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 1.0


def _percent(shares: list[float]) -> float:
    return round(100 * float(np.mean(shares)), 2) if shares else 0.0


def main() -> None:
    """Make and measure all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/labellers"))
    out, console = parser.parse_args().out, Console()
    benchmark = write_benchmark(DrawnBenchmarkConfig(), out / "benchmark")
    rows: list[dict[str, Any]] = []
    default: dict[int, Sample] = {}
    for number, (name, changes) in enumerate(labellers(out / "weights").items()):
        profile = profile_with(changes, out / f"{number}.yaml")
        samples = generate(out / f"dataset-{number}", profile, console)
        default = default or samples
        row = {"labeller": name, **agreement(samples, default), **exactness(profile)}
        row |= score(out / f"dataset-{number}", out / f"run-{number}", benchmark, console)
        print(row, flush=True)
        rows.append(row)
    write_results(
        "labellers",
        rows,
        ("magicseg-engine", "torch", "transformers"),
        setting={"samples_planned": demo_generation(out, 0).samples, "scenes": SCENES, "seed": 0},
    )


if __name__ == "__main__":
    main()
