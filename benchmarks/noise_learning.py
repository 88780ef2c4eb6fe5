"""Noise learning on a dataset of which a fifth of the masks are those of other images.

A dataset of the demonstration is copied; in the copy one sample of five gets the mask of another
image with as many classes, under its own classes: right words, right picture, wrong place. Students
of three folds judge the copy, and the share of the planted samples that is left out is counted for
each share that stays. Students are trained on the dataset as it was made, on the copy, on what
noise learning left of it, and on what is left when as many samples are taken out by chance. `--out`
keeps datasets and runs; what is there is not made again.
"""

import argparse
import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from rich.console import Console

from benchmarks.results_file import write_results
from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.scoring.agreement import class_agreements
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
from storage.manifest import encode_manifest
from storage.payloads import Payload
from storage.records import Stage
from storage.shards import Sample, iterate, pack
from storage.store import Store
from tasks.noise import NoiseRules, Ranking, apply_noise, find_noise

SPLITS = ("val", "test")
PLANTED = 0.2
KEPT = (0.9, 0.8, 0.7, 0.5, 0.3)
KEEP = 0.7
FOLDS = 3


def plant(source: Path, target: Path, seed: int) -> dict[str, float]:
    """Copy a dataset with wrong masks in some of its samples; again, it says the same.

    Returns:
        For each sample with a wrong mask the IoU of that with the mask that it had.
    """
    made = Store.open(source)
    samples = {
        each.key: each
        for shard in made.shards()
        if shard.path is not None
        for each in iterate(shard.path, shard.sha256)
    }
    order = sorted(samples, key=lambda key: derive_seed("planted", seed, key))
    wrong = {
        key: _with_mask_of(samples[key], _donor(samples, key, order))
        for key in order[: round(PLANTED * len(order))]
    }
    copy = Store.create(target, made.spec)
    for shard in made.shards():
        commit = shard.commit
        own = [
            wrong.get(key, sample)
            for key, sample in samples.items()
            if key.startswith(commit.slice_id) and _within(made, shard.commit, sample)
        ]
        rows = [
            row.model_copy(update=_mask_fields(wrong[row.key])) if row.key in wrong else row
            for row in made.manifest(commit)
        ]
        about = {"start": commit.start, "stop": commit.stop, "classes": commit.classes}
        payload = Payload(pack(own), encode_manifest(rows), about=about)
        copy.commit(Stage.SHARDS, commit.shard, commit.key, payload, commit.counts)
    return {
        key: fmean(class_agreements(_labels(samples[key]), _labels(sample)).values())
        for key, sample in wrong.items()
    }


def _within(store: Store, commit: object, sample: Sample) -> bool:
    start, stop = store.range_of(commit)  # type: ignore[arg-type, misc]
    return start <= sample.index < stop


def _donor(samples: dict[str, Sample], key: str, order: Sequence[str]) -> Sample:
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


def _with_mask_of(sample: Sample, donor: Sample) -> Sample:
    theirs = _labels(donor)
    labels = theirs.copy()
    for mine, other in zip(sample.class_ids, donor.class_ids, strict=True):
        labels[theirs == other + 1] = mine + 1
    return dataclasses.replace(sample, mask_bytes=encode_label_map(labels), instances=())


def _labels(sample: Sample) -> np.ndarray:
    return decode_label_map(sample.mask_bytes, name=sample.key)


def _mask_fields(sample: Sample) -> dict[str, object]:
    found, areas = np.unique(_labels(sample), return_counts=True)
    shown = [(int(k) - 1, int(n)) for k, n in zip(found, areas, strict=True) if 0 < k < 65535]
    return {
        "mask_sha256": hashlib.sha256(sample.mask_bytes).hexdigest(),
        "mask_class_ids": tuple(k for k, _ in shown),
        "mask_areas": tuple(n for _, n in shown),
        "instance_class_ids": (),
        "instance_scores": (),
        "instance_ious": (),
    }


def measure(out: Path, seed: int, console: Console) -> list[dict[str, object]]:
    """Plant, judge, train and score; a row for each share that stays and each student."""
    root = out / f"seed{seed}"
    generation = demo_generation(root / "generated", seed)
    generate_locally(generation, console)
    overlaps = plant(root / "generated", root / "planted", seed)
    rows: list[dict[str, object]] = []
    agreements = {}
    for against in ("dataset", "sample"):
        parameters = NoiseParameters(
            dataset=str(root / "planted"),
            out=str(root / "noise"),
            folds=FOLDS,
            against=against,
            training={"seed": seed},
        )
        agreements[against] = judge_all(plan_noise(parameters), LocalExecutor(console))
        for ranking in ("class", "all"):
            for keep in KEPT:
                noise = find_noise(agreements[against], NoiseRules(keep=keep, ranking=ranking))
                rows.append(_found(seed, against, ranking, keep, noise, overlaps))
    judged = agreements["dataset"]
    rules = NoiseRules(keep=KEEP)
    dropped = find_noise(judged, rules)
    for name in ("cleaned", "chance"):
        plant(root / "generated", root / name, seed)
    cleaned, chance = Store.open(root / "cleaned"), Store.open(root / "chance")
    apply_noise(cleaned, judged, rules, who="benchmark")
    drawn = sorted(judged, key=lambda key: derive_seed("chance", seed, key))[: len(dropped)]
    exclude_samples(chance, drawn, who="benchmark", why="by chance")
    return rows + [
        row
        for name in ("generated", "planted", "cleaned", "chance")
        for row in _students(out, root, name, seed, console)
    ]


def _found(
    seed: int,
    against: str,
    ranking: Ranking,
    keep: float,
    noise: set[str],
    overlaps: dict[str, float],
) -> dict[str, object]:
    far = {key for key, overlap in overlaps.items() if overlap < 0.5}
    return {
        "seed": seed,
        "against": against,
        "ranking": ranking,
        "kept": keep,
        "dropped": len(noise),
        "planted": len(overlaps),
        "planted_dropped_percent": round(100 * len(noise & overlaps.keys()) / len(overlaps), 1),
        "planted_below_half_overlap": len(far),
        "of_these_dropped_percent": round(100 * len(noise & far) / max(len(far), 1), 1),
    }


def _students(
    out: Path, root: Path, name: str, seed: int, console: Console
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
        rows.append({"seed": seed, "subject": name, "split": scores.protocol.split, "miou": miou})
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
    means = _means(found, ("against", "ranking", "kept"), "planted_dropped_percent")
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
