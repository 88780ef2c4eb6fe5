"""Noise learning on a dataset of which a fifth of the masks are those of other images.

A dataset of the demonstration is copied; in the copy one sample of five gets the mask of another
image that shows as many classes, none of them its own. `labels`: the mask as it is, with the
classes of that image. `places` (the first seed alone): under the sample's own classes, so that only
the place and the outline are wrong; the objects of this dataset lie in the middle, and such a mask
covers half of the true one. Students of three folds judge the copy, and the share of the planted
samples that is left out is counted for each share that stays. Students are trained on the dataset
as it was made, on the copy with wrong labels, on what noise learning left of that, and on what is
left when as many samples are taken out by chance. `--out` keeps datasets and runs; what is there is
not made again.
"""

import argparse
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Literal

import numpy as np
from rich.console import Console

from benchmarks.results_file import write_results
from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.scoring.agreement import Agreement
from evaluation.scoring.results import Scores
from flows.demo import demo_generation
from flows.local_runs import generate_locally
from flows.local_steps import LocalExecutor, evaluate_locally, train_locally
from flows.noise_learning import NoiseParameters, judge_all, plan_noise
from flows.training_parameters import TrainAndEvaluateParameters
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark
from storage.codecs import decode_label_map, encode_label_map
from storage.exclusions import exclude_samples
from storage.identity import derive_seed
from storage.manifest import count_classes, encode_manifest
from storage.payloads import Payload
from storage.records import Stage
from storage.shards import Sample, iterate, pack
from storage.store import Store
from tasks.noise import NoiseRules, apply_noise, find_noise

SPLITS = ("val", "test")
PLANTED = 0.2
KEPT = (0.9, 0.8, 0.7, 0.5, 0.3)
KEEP = 0.7
FOLDS = 3
Way = Literal["labels", "places"]
WAYS: tuple[Way, ...] = ("labels", "places")
SUBJECTS = {
    "generated": "student on the dataset",
    "labels": "student on the copy with wrong labels",
    "cleaned": "student on what noise learning left of it",
    "chance": "student on as many samples by chance",
}


def plant(source: Path, target: Path, seed: int, way: Way) -> dict[str, float]:
    """Copy a dataset with wrong masks in some of its samples; again, it says the same.

    Returns:
        For each sample with a wrong mask the part of the union of its true and its wrong objects
        that both cover, whatever their classes.
    """
    samples = read_samples(source)
    order = sorted(samples, key=lambda key: derive_seed("planted", seed, key))
    wrong = {
        key: _with_mask_of(samples[key], choose_donor(samples, key, order), way)
        for key in order[: round(PLANTED * len(order))]
    }
    copy_with(source, target, wrong)
    return {key: _overlap(samples[key], sample) for key, sample in wrong.items()}


def read_samples(source: Path) -> dict[str, Sample]:
    """All samples of a dataset, by key."""
    return {
        each.key: each
        for shard in Store.open(source).shards()
        if shard.path is not None
        for each in iterate(shard.path, shard.sha256)
    }


def copy_with(source: Path, target: Path, wrong: Mapping[str, Sample]) -> None:
    """Copy a dataset with some of its samples replaced."""
    made, samples = Store.open(source), read_samples(source)
    copy = Store.create(target, made.spec)
    for shard in made.shards():
        rows = [
            row.model_copy(update=_mask_fields(wrong[row.key])) if row.key in wrong else row
            for row in made.manifest(shard.commit)
        ]
        own = [wrong.get(row.key, samples[row.key]) for row in rows if row.status == "written"]
        commit = shard.commit
        about = {"start": commit.start, "stop": commit.stop, "classes": count_classes(rows)}
        payload = Payload(pack(own), encode_manifest(rows), about=about)
        copy.commit(Stage.SHARDS, commit.shard, commit.key, payload, commit.counts)


def choose_donor(samples: dict[str, Sample], key: str, order: Sequence[str]) -> Sample:
    """Another image with as many classes, none of them its own."""
    own = samples[key]
    turn = order.index(key)
    for other in (*order[turn + 1 :], *order[:turn]):
        if len(samples[other].class_ids) == len(own.class_ids) and not set(
            samples[other].class_ids
        ) & set(own.class_ids):
            return samples[other]
    message = f"no other image shows {len(own.class_ids)} other classes"
    raise ValueError(message)


def _with_mask_of(sample: Sample, donor: Sample, way: Way) -> Sample:
    if way == "labels":
        theirs = {"class_ids": donor.class_ids, "class_names": donor.class_names}
        mask = donor.mask_bytes
        return dataclasses.replace(sample, mask_bytes=mask, instances=(), mentions=(), **theirs)
    shown = _labels(donor)
    labels = shown.copy()
    for mine, other in zip(sample.class_ids, donor.class_ids, strict=True):
        labels[shown == other + 1] = mine + 1
    return dataclasses.replace(sample, mask_bytes=encode_label_map(labels), instances=())


def _labels(sample: Sample) -> np.ndarray:
    return decode_label_map(sample.mask_bytes, name=sample.key)


def _overlap(sample: Sample, other: Sample) -> float:
    first, second = _labels(sample) > 0, _labels(other) > 0
    return np.count_nonzero(first & second) / np.count_nonzero(first | second)


def _mask_fields(sample: Sample) -> dict[str, object]:
    found, areas = np.unique(_labels(sample), return_counts=True)
    shown = [(int(k) - 1, int(n)) for k, n in zip(found, areas, strict=True) if 0 < k < 65535]
    return {
        "class_ids": sample.class_ids,
        "class_names": sample.class_names,
        "mask_sha256": hashlib.sha256(sample.mask_bytes).hexdigest(),
        "mask_class_ids": tuple(k for k, _ in shown),
        "mask_areas": tuple(n for _, n in shown),
        "instance_class_ids": tuple(each.class_id for each in sample.instances),
        "instance_scores": tuple(each.score for each in sample.instances),
        "instance_ious": tuple(each.predicted_iou for each in sample.instances),
    }


def measure(out: Path, seed: int, console: Console) -> list[dict[str, object]]:
    """Plant, judge, train and score; a row for each share that stays and each student."""
    root = out / f"seed{seed}"
    generate_locally(demo_generation(root / "generated", seed), console)
    rows: list[dict[str, object]] = []
    for way in WAYS if seed == 0 else WAYS[:1]:
        overlaps = plant(root / "generated", root / way, seed, way)
        agreements = _judged(root, way, seed, console)
        rows += _all_found(seed, way, agreements, overlaps)
    judged = _judged(root, "labels", seed, console)
    for name in ("cleaned", "chance"):
        plant(root / "generated", root / name, seed, "labels")
    rules = NoiseRules(keep=KEEP)
    apply_noise(Store.open(root / "cleaned"), judged, rules, who="benchmark")
    drawn = sorted(judged, key=lambda key: derive_seed("chance", seed, key))
    number = len(find_noise(judged, rules))
    store = Store.open(root / "chance")
    exclude_samples(store, drawn[:number], who="benchmark", why="drawn by chance")
    for name, subject in SUBJECTS.items():
        rows += _students(out, root, name, subject, seed, console)
    return rows


def _judged(root: Path, way: Way, seed: int, console: Console) -> dict[str, Agreement]:
    parameters = NoiseParameters(
        dataset=str(root / way),
        out=str(root / f"{way}-noise"),
        folds=FOLDS,
        training={"seed": seed},
    )
    return judge_all(plan_noise(parameters), LocalExecutor(console))


def _all_found(
    seed: int, way: Way, agreements: dict[str, Agreement], overlaps: dict[str, float]
) -> list[dict[str, object]]:
    means = {key: own.score for key, own in agreements.items()}
    rows: list[dict[str, object]] = [
        {
            "seed": seed,
            "wrong": way,
            "planted": len(overlaps),
            "their_overlap": round(fmean(overlaps.values()), 3),
            "agreement_of_planted": round(fmean(means[key] for key in overlaps), 3),
            "agreement_of_others": round(
                fmean(mean for key, mean in means.items() if key not in overlaps), 3
            ),
        }
    ]
    for ranking in ("class", "all"):
        for keep in KEPT:
            noise = find_noise(agreements, NoiseRules(keep=keep, ranking=ranking))
            share = 100 * len(noise & overlaps.keys()) / len(overlaps)
            rows.append(
                {
                    "seed": seed,
                    "wrong": way,
                    "ranking": ranking,
                    "kept": keep,
                    "dropped": len(noise),
                    "planted_dropped_percent": round(share, 1),
                }
            )
    return rows


def _students(
    out: Path, root: Path, name: str, subject: str, seed: int, console: Console
) -> list[dict[str, object]]:
    benchmark = write_benchmark(DrawnBenchmarkConfig(), out / "benchmark")
    parameters = TrainAndEvaluateParameters(
        dataset=str(root / name),
        out=str(root / f"{name}-run"),
        training={"seed": seed},
        benchmarks=tuple(BenchmarkConfig(root=benchmark, split=split) for split in SPLITS),
        untrained=False,
        baseline=False,
    )
    train_locally(parameters, console)
    rows: list[dict[str, object]] = []
    for scores in evaluate_locally(parameters, console):
        assert isinstance(scores, Scores)
        miou = round(100 * scores.miou, 2)
        rows.append(
            {"seed": seed, "subject": subject, "split": scores.protocol.split, "miou": miou}
        )
    return rows


def main() -> None:
    """Measure some seeds and write their rows and means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/noise-learning"))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    for seed in range(arguments.seeds):
        rows += measure(arguments.out, seed, Console())
    found = [row for row in rows if "kept" in row]
    scored = [row for row in rows if "miou" in row]
    means = _means(found, ("wrong", "ranking", "kept"), "planted_dropped_percent")
    means += _means(scored, ("subject", "split"), "miou")
    setting = {"samples": 160, "planted": PLANTED, "folds": FOLDS, "keep_of_students": KEEP}
    packages = ("magicseg-engine", "torch", "transformers")
    write_results("noise_learning", rows + means, packages, setting=setting)


def _means(
    rows: list[dict[str, object]], names: tuple[str, ...], value: str
) -> list[dict[str, object]]:
    groups = dict.fromkeys(tuple(row[name] for name in names) for row in rows)
    return [
        {
            "seed": "mean",
            **dict(zip(names, group, strict=True)),
            value: round(
                fmean(
                    float(str(row[value]))
                    for row in rows
                    if tuple(row[name] for name in names) == group
                ),
                2,
            ),
        }
        for group in groups
    ]


if __name__ == "__main__":
    main()
