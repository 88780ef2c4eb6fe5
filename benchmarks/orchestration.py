"""What a stage of a shard costs beyond its own work: Prefect, lookup, lease, commit.

The models cost next to nothing, and one shard is made at a time. `plain` runs the same stages
without Prefect, on the same store; the difference is Prefect's.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.testing.utilities import prefect_test_harness

from benchmarks.results_file import write_results
from benchmarks.sleeping_models import Pace, SleepingModels, sleeping_run
from flows.generate_dataset import _make_shard
from flows.generation_parameters import GenerationParameters
from flows.generation_run import GenerationRun
from tasks.stage_tasks import make_stage
from tasks.stages import STAGES, stages_of

SHARDS = 20
SAMPLES = 8
"""One batch of one cell: the least that a shard can be."""

GOAL_SECONDS = 0.2


def with_prefect(run: GenerationRun) -> float:
    """Seconds for all shards, as the flow makes them."""

    @flow(name="orchestration", persist_result=False)
    def make() -> float:
        began = time.monotonic()
        for shard in run.planned:
            with run.store.claim(shard.name):
                _make_shard(run, shard, set())
        return time.monotonic() - began

    return make()


def plain(run: GenerationRun) -> float:
    """Seconds for the stages alone."""
    began = time.monotonic()
    for shard in run.planned:
        work = run.work(shard)
        for declaration in map(STAGES.__getitem__, stages_of(run.recipe)):
            make_stage(declaration, work)
    return time.monotonic() - began


def measure(what: str, folder: Path) -> dict[str, Any]:
    """Make a dataset, and find it made; seconds a stage of a shard."""
    models = SleepingModels(Pace())
    parameters = GenerationParameters(
        root=str(folder),
        samples=SHARDS * SAMPLES,
        samples_per_shard=SAMPLES,
        texts_per_class_set=8,
        batch_size=8,
        detections={"counterfactual": "record"},
        masks={"max_area": 1.0},
    )
    ways = {"with Prefect": with_prefect, "plain": plain}
    seconds: list[float] = []
    for _ in range(2):
        with sleeping_run(parameters, models) as run:
            seconds.append(ways[what](run) / (SHARDS * len(stages_of(run.recipe))))
    made, found = seconds
    return {
        "what": what,
        "seconds_a_stage": round(made, 4),
        "seconds_a_stage_found_done": round(found, 4),
    }


def main() -> None:
    """Measure both ways, twice; the better one counts."""
    rows: list[dict[str, Any]] = []
    with prefect_test_harness(server_startup_timeout=180):
        for what in ("with Prefect", "plain"):
            found: list[dict[str, Any]] = []
            for _ in range(2):
                with tempfile.TemporaryDirectory() as folder:
                    found.append(measure(what, Path(folder) / "d"))
            rows.append(min(found, key=lambda row: row["seconds_a_stage"]))
    write_results(
        "orchestration",
        rows,
        ("magicseg-engine", "prefect"),
        setting={"shards": SHARDS, "samples": SAMPLES, "goal_seconds": GOAL_SECONDS},
    )


if __name__ == "__main__":
    main()
