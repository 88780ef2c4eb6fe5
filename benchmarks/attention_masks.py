"""Masks from the attention of the miniature's painter, beside SAM's masks of the same pictures.

A dataset of the demonstration's kind is painted once, with all maps. Told are the mean IoU of
DiffuMask's and Dataset Diffusion's recipes as published and refined, of scenes with one thing and
with two; what a network of affinities adds; and how often a class that was not drawn is found, by
the detector and by the raw attention to its name. `--out` keeps the dataset and the affinities.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.results_file import write_results
from flows.demo import demo_generation
from flows.generation_parameters import GenerationParameters
from flows.local_runs import generate_locally
from flows.local_steps import train_affinity_locally
from models.attention_maps import MapsWanted, unpack_maps
from models.labelling.attention.config import DatasetDiffusionConfig, DiffuMaskConfig
from models.labelling.attention.labellers import DatasetDiffusion, DiffuMask
from models.profiles import load_profile
from models.protocols import AttendedClass, PairRequest, RecordedScene
from models.registry import build
from storage.codecs import decode_image, decode_label_map
from storage.records import Stage
from storage.shards import Sample, iterate
from storage.store import Store
from storage.vocabulary import load_vocabulary
from tasks.affinities import AffinityJob
from tasks.drawn_agreement import mask_iou

SAMPLES = 96
BOTH = {16: 1.0, 8: 1.0}
LEAST = 0.1
"""All classes are known to be there; the setting has no part in it."""
THRESHOLDS = (0.35, 0.4, 0.45)
VOCABULARY = load_vocabulary("miniature")

VARIANTS: Mapping[str, Any] = {
    "diffumask as published, without refinement": DiffuMaskConfig(
        cross_resolutions=BOTH, min_presence=LEAST
    ),
    "diffumask as published, field": DiffuMaskConfig(
        cross_resolutions=BOTH, min_presence=LEAST, refine="crf"
    ),
    "diffumask as published, GrabCut": DiffuMaskConfig(
        cross_resolutions=BOTH, min_presence=LEAST, refine="grabcut"
    ),
    "diffumask, threshold .6, field": DiffuMaskConfig(
        cross_resolutions=BOTH, min_presence=LEAST, threshold=0.6, refine="crf"
    ),
    "dataset-diffusion as published (power 4, .6), without refinement": DatasetDiffusionConfig(
        cell_resolution=8, min_presence=LEAST
    ),
    "dataset-diffusion as published, field": DatasetDiffusionConfig(
        cell_resolution=8, min_presence=LEAST, refine="crf"
    ),
    "dataset-diffusion, power 1, .5, without refinement": DatasetDiffusionConfig(
        cell_resolution=8, min_presence=LEAST, power=1, foreground=0.5, uncertain=0.4
    ),
    "dataset-diffusion, power 1, .5, field": DatasetDiffusionConfig(
        cell_resolution=8, min_presence=LEAST, power=1, foreground=0.5, uncertain=0.4, refine="crf"
    ),
    "dataset-diffusion, power 1, .5, GrabCut": DatasetDiffusionConfig(
        cell_resolution=8,
        min_presence=LEAST,
        power=1,
        foreground=0.5,
        uncertain=0.4,
        refine="grabcut",
    ),
}


@dataclass(frozen=True, eq=False)
class Labelled:
    """A sample with its maps and SAM's label map."""

    sample: Sample
    scene: RecordedScene
    labels: np.ndarray


def generation(root: Path) -> GenerationParameters:
    """What is painted."""
    document = demo_generation(root, 0).model_dump(mode="json", exclude_unset=True)
    changes = {
        "samples": SAMPLES,
        "two_class_share": 0.33,
        "pairs": {"record": {"cross": [4, 8, 16], "cells": 8}},
    }
    return GenerationParameters.model_validate(document | changes)


def labelled(root: Path) -> list[Labelled]:
    """The finished samples with their maps."""
    store = Store.open(root)
    samples = {each.key: each for each in _samples(root)}
    return [
        Labelled(
            own,
            RecordedScene(
                decode_image(pair.image_bytes),
                unpack_maps(pair.maps_bytes),
                _names(own.class_ids),
                frozenset(range(len(own.class_ids))),
            ),
            decode_label_map(own.mask_bytes),
        )
        for commit in store.commits(Stage.PAIRS)
        for pair in store.pairs(commit)
        if (own := samples.get(pair.key)) is not None
    ]


def agreement(labeller: Any, scenes: Sequence[Labelled]) -> dict[str, float]:
    """Mean IoU with SAM's masks, of scenes with one class and with two."""
    found = labeller.label_scenes([each.scene for each in scenes])
    overlaps: dict[int, list[float]] = {1: [], 2: []}
    for own, objects in zip(scenes, found, strict=True):
        ids = own.sample.class_ids
        for mask, position in zip(objects.cuts.masks, objects.boxes.phrases, strict=True):
            exact = own.labels == ids[position] + 1
            overlaps[len(ids)].append(mask_iou(mask, exact))
    return {
        "one": round(float(np.mean(overlaps[1])), 3),
        "two": round(float(np.mean(overlaps[2])), 3),
    }


def presence(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """How often a class is found that is there, and one that is not, by detector and attention."""
    rng = np.random.default_rng(0)
    others = [
        int(rng.choice([each.class_id for each in VOCABULARY if each.class_id not in s.class_ids]))
        for s in samples
    ]
    asked = [(*_names(s.class_ids), *_names([o])) for s, o in zip(samples, others, strict=True)]
    profile = load_profile("miniature")
    images = [decode_image(sample.image_bytes) for sample in samples]
    found = build(profile.labeller.detector).detect(images, asked)
    rates = [
        (set(each.phrases.tolist()), len(names)) for each, names in zip(found, asked, strict=True)
    ]
    rows = [
        {
            "presence": "detector",
            "drawn_found_percent": _percent([p in f for f, n in rates for p in range(n - 1)]),
            "not_drawn_found_percent": _percent([n - 1 in f for f, n in rates]),
        }
    ]
    requests = [
        PairRequest(
            sample.text,
            sample.counterfactual_text,
            sample.seed,
            tuple(AttendedClass(name, ()) for name in names),
        )
        for sample, names in zip(samples, asked, strict=True)
    ]
    wanted = MapsWanted(mentions=False, class_prompt=True, cross=(8,))
    pairs = build(profile.painter).paint_recorded(requests, wanted)
    peaks = [
        [
            float(pair.maps.prompt.of_class(position)[8].mean(axis=0).max())
            for position in range(len(names))
        ]
        for pair, names in zip(pairs, asked, strict=True)
    ]
    rows += [
        {
            "presence": f"attention at 8 x 8 of {least} or more",
            "drawn_found_percent": _percent([p >= least for own in peaks for p in own[:-1]]),
            "not_drawn_found_percent": _percent([own[-1] >= least for own in peaks]),
        }
        for least in THRESHOLDS
    ]
    return rows


def _samples(root: Path) -> list[Sample]:
    shards = [shard.path for shard in Store.open(root).shards() if shard.path is not None]
    return [sample for path in shards for sample in iterate(path)]


def _names(class_ids: Sequence[int]) -> tuple[str, ...]:
    return tuple(VOCABULARY[class_id].detector_phrase for class_id in class_ids)


def _percent(hits: Sequence[bool]) -> float:
    return round(100 * float(np.mean(hits)), 1)


def main() -> None:
    """Paint, label in every way, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/attention-masks"))
    out, console = parser.parse_args().out, Console()
    generate_locally(generation(out / "dataset"), console)
    scenes = labelled(out / "dataset")
    rows: list[dict[str, Any]] = []
    for name, config in VARIANTS.items():
        kind = DiffuMask if isinstance(config, DiffuMaskConfig) else DatasetDiffusion
        rows.append({"variant": name, **agreement(kind(config), scenes)})
        print(rows[-1], flush=True)
    job = AffinityJob.model_validate(
        {
            "dataset": str(out / "dataset"),
            "out": str(out / "affinity"),
            "cross_resolutions": BOTH,
            "config": {"network": {"stride": 2}, "crop": 64, "device": "cpu"},
        }
    )
    train_affinity_locally(job, console)
    walked = DiffuMaskConfig(cross_resolutions=BOTH, min_presence=LEAST, affinity=job.out)
    rows.append({"variant": "diffumask, affinities", **agreement(DiffuMask(walked), scenes)})
    rows += presence([each.sample for each in scenes])
    counts = {len(each.sample.class_ids) for each in scenes}
    assert counts == {1, 2}
    setting = {
        "samples": len(scenes),
        "of_one_class": sum(len(each.sample.class_ids) == 1 for each in scenes),
    }
    write_results(
        "attention_masks", rows, ("magicseg-engine", "torch", "diffusers"), setting=setting
    )


if __name__ == "__main__":
    main()
