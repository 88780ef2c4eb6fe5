"""How busy one device is with networks that take 0.2 s a pair, and what processors do meanwhile.

The networks sleep; pictures are real ones of 512 pixels, and everything around the networks is the
run as it is: the flow, its tasks on a temporary Prefect server, pictures that are checked, encoded,
decoded, masks, label maps, tars, commits. `idle at 115 ms` is what the device would do if it waited
for all processors' work of a pair, as it once did (36 ms here and 79 before the networks).
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from prefect import flow
from prefect.testing.utilities import prefect_test_harness

from benchmarks.pictures import discs, draw_samples, picture
from benchmarks.results_file import write_results
from benchmarks.sleeping_models import Pace, SleepingModels, sleeping_run
from flows.generate_dataset import _generate
from flows.generation_parameters import GenerationParameters
from storage.codecs import decode_image, decode_label_map, encode_image, encode_label_map
from storage.run_lengths import decode_rle, encode_rle
from storage.shards import pack
from storage.vocabulary import load_vocabulary
from tasks.stage_tasks import make_stage
from tasks.stages import STAGES, stages_of

SHARDS = 6
SAMPLES = 128
BATCH = 8
PAINTING, LABELLING = 0.16, 0.02
"""Seconds a pair; the detector and the segmenter take the latter each."""
DIFFERENT = 16

GOAL_SHARE = 0.97
GOAL_MS = 12.0
BEFORE_MS = {"pairs": 22.2, "detections": 3.4, "masks": 4.8, "shards": 6.0}
"""CPU time of a pair in version 0.1, by the same measurement."""


def _models(pace: Pace) -> SleepingModels:
    rng = np.random.default_rng(0)
    return SleepingModels(pace, [picture(rng, discs(rng, 2)) for _ in range(DIFFERENT)])


def _parameters(folder: str, shards: int, samples: int) -> GenerationParameters:
    return GenerationParameters(
        root=str(Path(folder) / "d"),
        samples=shards * samples,
        samples_per_shard=samples,
        texts_per_class_set=8,
        batch_size=BATCH,
        detections={"counterfactual": "record"},
        masks={"max_area": 1.0},
    )


def share(shards: int = SHARDS, samples: int = SAMPLES) -> dict[str, Any]:
    """Make a dataset; the share of the time from first to last call in which a network computes."""
    models = _models(Pace(painting=PAINTING, labelling=LABELLING))
    with tempfile.TemporaryDirectory() as folder:
        parameters = _parameters(folder, shards, samples)
        with sleeping_run(parameters, models, image_format="jpg") as run:
            flow(name="busy", persist_result=False)(lambda: _generate(run))()
    spans = models.spans
    whole = spans[-1][1] - spans[0][0]
    busy = sum(last - first for first, last in spans)
    return {"what": "the run", "busy_share": round(busy / whole, 4), "seconds": round(whole, 1)}


def parts(samples: int = SAMPLES) -> list[dict[str, Any]]:
    """CPU time of each stage of a shard around networks that take none, a pair."""
    rows: list[dict[str, Any]] = []
    models = _models(Pace())
    with (
        tempfile.TemporaryDirectory() as folder,
        sleeping_run(_parameters(folder, 2, samples), models, image_format="jpg") as run,
    ):
        for shard in run.planned:  # the first one warms up
            work, rows = run.work(shard), []
            for declaration in map(STAGES.__getitem__, stages_of(run.recipe)):
                began = time.process_time()
                make_stage(declaration, work)
                spent = 1e3 * (time.process_time() - began) / samples
                name = declaration.stage.value
                row = {"what": name, "cpu_ms": round(spent, 2), "before": BEFORE_MS.get(name)}
                rows.append(row)
    total = round(sum(row["cpu_ms"] for row in rows), 2)
    rows.append({"what": "all stages", "cpu_ms": total, "before": 36.4})
    return [*rows, {"what": "limit: what is written, encoded once", "cpu_ms": limit(samples)}]


def limit(samples: int) -> float:
    """CPU time of a pair of what cannot be left out: its files encoded, and put into a tar."""
    written = draw_samples(samples, load_vocabulary("lvis1205"))
    images = [decode_image(sample.image_bytes) for sample in written]
    labels = [decode_label_map(sample.mask_bytes) for sample in written]
    masks = [
        [decode_rle(each.rle, *own.shape) for each in sample.instances]
        for sample, own in zip(written, labels, strict=True)
    ]
    began = time.process_time()
    for image, own, cut in zip(images, labels, masks, strict=True):
        for _ in range(2):
            encode_image(image, "jpg")
        encode_label_map(own)
        for mask in cut:
            encode_rle(mask)
    pack(written)
    return round(1e3 * (time.process_time() - began) / samples, 2)


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action=argparse.BooleanOptionalAction, default=True)
    choice = parser.parse_args()
    rows = parts()
    for row in rows:
        print(json.dumps(row), flush=True)
    with prefect_test_harness(server_startup_timeout=180):
        rows.append(share())
    print(json.dumps(rows[-1]), flush=True)
    if choice.keep:
        write_results(
            "busy",
            rows,
            ("magicseg-engine", "prefect"),
            setting={
                "shards": SHARDS,
                "samples": SAMPLES,
                "batch": BATCH,
                "seconds_a_pair": PAINTING + 2 * LABELLING,
                "goal_share": GOAL_SHARE,
                "goal_cpu_ms": GOAL_MS,
            },
        )


if __name__ == "__main__":
    main()
