"""How busy the painter is while shards are written, painted, labelled and packed side by side.

The models sleep; the rest is the run as it is: the flow, its tasks on a temporary Prefect server,
leases, commits, tars. Those that label have a device of their own, so the painter waits for nobody
but for texts. `before` is what the engine did when it had two shards in flight, a device went to
whoever happened to look first, and the painter waited until its pictures were encoded.
"""

import argparse
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.testing.utilities import prefect_test_harness

from benchmarks.results_file import write_results
from benchmarks.sleeping_models import Pace, SleepingModels, sleeping_run
from flows.generate_dataset import _generate
from flows.generation_parameters import GenerationParameters

SHARDS = 20
SAMPLES = 128
BATCH = 16
"""Pairs that are painted at a time."""
SECONDS = 3.0
"""What painting a shard takes."""

BEFORE = {
    "fast writer": 0.9164,
    "slow writer: 2.5 times what painting takes": 0.4668,
    "a hiccup of three shards' time": 0.657,
}

_PAIR = SECONDS / SAMPLES
_LABELLING = 0.2 * _PAIR
WRITERS: dict[str, Pace] = {
    "fast writer": Pace(0.1 * _PAIR, _PAIR, _LABELLING),
    "slow writer: 2.5 times what painting takes": Pace(2.5 * _PAIR, _PAIR, _LABELLING),
    "a hiccup of three shards' time": Pace(
        0.5 * _PAIR, _PAIR, _LABELLING, 3 * SECONDS, SHARDS // 2 * SAMPLES
    ),
}


def measure(pace: Pace, shards_in_flight: int | None, shards: int = SHARDS) -> dict[str, Any]:
    """Make a dataset and say how busy the painter was between its first and its last picture."""
    models = SleepingModels(pace)
    with tempfile.TemporaryDirectory() as folder:
        parameters = GenerationParameters(
            root=str(Path(folder) / "d"),
            samples=shards * SAMPLES,
            samples_per_shard=SAMPLES,
            texts_per_class_set=8,
            batch_size=BATCH,
            detections={"counterfactual": "record"},
            masks={"max_area": 1.0},
            **({} if shards_in_flight is None else {"shards_in_flight": shards_in_flight}),
        )
        with sleeping_run(parameters, models, devices=2) as run:
            flow(name="overlap", persist_result=False)(lambda: _generate(run))()
    spans = sorted(models.painter.spans)
    busy = sum(last - first for first, last in spans)
    whole = spans[-1][1] - spans[0][0]
    return {
        "shards_in_flight": parameters.shards_in_flight,
        "busy_share": round(busy / whole, 4),
        "seconds": round(whole, 1),
        "longest_pause": round(
            max(after[0] - last[1] for last, after in itertools.pairwise(spans)), 2
        ),
    }


def main() -> None:
    """Measure every writer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--in-flight", type=int, nargs="*", default=[None])
    parser.add_argument("--keep", action=argparse.BooleanOptionalAction, default=True)
    choice = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with prefect_test_harness(server_startup_timeout=180):
        for what, pace in WRITERS.items():
            for number in choice.in_flight:
                row = {"what": what, **measure(pace, number)}
                print(json.dumps(row), flush=True)
                rows.append(row | {"before": BEFORE.get(what)})
    if choice.keep:
        write_results(
            "overlap",
            rows,
            ("magicseg-engine", "prefect"),
            setting={
                "shards": SHARDS,
                "samples": SAMPLES,
                "batch": BATCH,
                "painting_seconds": SECONDS,
            },
        )


if __name__ == "__main__":
    main()
