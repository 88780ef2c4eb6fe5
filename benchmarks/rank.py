"""How many planted masks stand among the first fifth of the order that `magicseg rank` gives.

A dataset of the demonstration is copied; in the copy one sample of five has a wrong mask. `labels`
and `places` are those of `benchmarks.noise_learning`: the mask of another image with its classes,
or under the sample's own. `halves`: the right half of each mask is missing. What was recorded of
boxes and masks goes with the image in `halves` and with the mask in the others, so that it cannot
tell a wrong mask: no sample gives itself away by missing records. A student is trained on the copy
and asked about it, and so are the students of three folds, each about what it was not trained on.
Chance puts a fifth of the planted samples into the first fifth.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Literal

import numpy as np
from rich.console import Console

from benchmarks.noise_learning import FOLDS, PLANTED, choose_donor, copy_with, read_samples
from benchmarks.results_file import write_results
from flows.demo import SAMPLES, demo_generation
from flows.local_runs import generate_locally
from flows.local_steps import LocalExecutor, train_locally
from flows.noise_learning import NoiseParameters, judge_all, plan_noise
from flows.ranking import StudentQuestion, rank_dataset
from flows.training_parameters import TrainAndEvaluateParameters
from storage.codecs import decode_label_map, encode_label_map
from storage.identity import derive_seed
from storage.shards import Sample
from tasks.doubt import SIGNALS, DoubtedSample

Way = Literal["labels", "places", "halves"]
WAYS: tuple[Way, ...] = ("labels", "places", "halves")
FIRST = 0.2


def plant_wrong(source: Path, target: Path, seed: int, way: Way) -> set[str]:
    """Copy a dataset with wrong masks in some of its samples; again, it says the same.

    Returns:
        Their keys.
    """
    samples = read_samples(source)
    order = sorted(samples, key=lambda key: derive_seed("planted", seed, key))
    wrong = {
        key: _spoilt(samples[key], choose_donor(samples, key, order), way)
        for key in order[: round(PLANTED * len(order))]
    }
    copy_with(source, target, wrong)
    return set(wrong)


def _spoilt(sample: Sample, donor: Sample, way: Way) -> Sample:
    if way == "halves":
        labels = decode_label_map(sample.mask_bytes, name=sample.key).copy()
        for class_id in sample.class_ids:
            columns = np.flatnonzero((labels == class_id + 1).any(axis=0))
            middle = int(columns[len(columns) // 2])
            labels[:, middle:][labels[:, middle:] == class_id + 1] = 0
        return dataclasses.replace(sample, mask_bytes=encode_label_map(labels))
    if way == "labels":
        return dataclasses.replace(
            sample,
            mask_bytes=donor.mask_bytes,
            instances=donor.instances,
            mentions=(),
            class_ids=donor.class_ids,
            class_names=donor.class_names,
        )
    shown = decode_label_map(donor.mask_bytes, name=donor.key)
    labels, own = shown.copy(), dict(zip(donor.class_ids, sample.class_ids, strict=True))
    for other, mine in own.items():
        labels[shown == other + 1] = mine + 1
    instances = tuple(
        each.model_copy(update={"class_id": own[each.class_id]}) for each in donor.instances
    )
    return dataclasses.replace(sample, mask_bytes=encode_label_map(labels), instances=instances)


def measure(out: Path, seed: int, ways: Sequence[Way], console: Console) -> list[dict[str, object]]:
    """Plant, train and rank; a row for each way and each signal."""
    root = out / f"seed{seed}"
    generate_locally(demo_generation(root / "generated", seed), console)
    rows: list[dict[str, object]] = []
    for way in ways:
        wrong = plant_wrong(root / "generated", root / way, seed, way)
        run, folds = root / f"{way}-run", root / f"{way}-folds"
        training = {"seed": seed}
        train_locally(
            TrainAndEvaluateParameters(
                dataset=str(root / way), out=str(run), training=training, benchmarks=()
            ),
            console,
        )
        noise = NoiseParameters(
            dataset=str(root / way), out=str(folds), folds=FOLDS, training=training
        )
        judge_all(plan_noise(noise), LocalExecutor(console))
        recorded = rank_dataset(str(root / way)).samples
        rows.append(_row(seed, way, "what was recorded", _found(recorded, wrong)))
        rows += [
            _row(seed, way, signal, _found(_by(recorded, signal), wrong))
            for signal in SIGNALS
            if signal != "student"
        ]
        for judge, folder in (("student of the run", run), ("students of folds", folds)):
            question = StudentQuestion(folder, "miniature", {})
            ranked = rank_dataset(
                str(root / way), question, out=root / f"{way}-rank-{folder.name}"
            ).samples
            rows.append(_row(seed, way, judge, _found(_by(ranked, "student"), wrong)))
            rows.append(_row(seed, way, f"all, {judge}", _found(ranked, wrong)))
            flat = _found(_flat(ranked), wrong)
            rows.append(_row(seed, way, f"mean of all places, {judge}", flat))
    return rows


def _by(ranked: Sequence[DoubtedSample], signal: str) -> list[DoubtedSample]:
    return sorted(ranked, key=lambda each: (-each.places.get(signal, 0.5), each.key))


def _flat(ranked: Sequence[DoubtedSample]) -> list[DoubtedSample]:
    return sorted(ranked, key=lambda each: (-fmean(each.places.values()), each.key))


def _found(ranked: Sequence[DoubtedSample], wrong: set[str]) -> float:
    first = ranked[: round(FIRST * len(ranked))]
    return 100 * sum(each.key in wrong for each in first) / len(wrong)


def _row(seed: int, way: Way, order: str, found: float) -> dict[str, object]:
    return {"seed": seed, "wrong": way, "order": order, "planted_found_percent": round(found, 1)}


def main() -> None:
    """Measure some seeds and write their rows and means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/rank"))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    for seed in range(arguments.seeds):
        rows += measure(arguments.out, seed, WAYS, Console())
    groups = dict.fromkeys((row["wrong"], row["order"]) for row in rows)
    means: list[dict[str, object]] = []
    for way, order in groups:
        own = [row for row in rows if (row["wrong"], row["order"]) == (way, order)]
        mean = fmean(float(str(row["planted_found_percent"])) for row in own)
        means.append(
            {"seed": "mean", "wrong": way, "order": order, "planted_found_percent": round(mean, 1)}
        )
    setting = {
        "samples": SAMPLES,
        "planted": PLANTED,
        "looked_at": FIRST,
        "chance_percent": 100 * FIRST,
        "folds": FOLDS,
    }
    packages = ("magicseg-engine", "torch", "transformers")
    write_results("rank", rows + means, packages, setting=setting)


if __name__ == "__main__":
    main()
