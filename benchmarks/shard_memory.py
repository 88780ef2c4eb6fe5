"""Memory that each stage takes of a shard of 64 to 1,024 samples, with networks that take no time.

Pictures are real ones of 512 pixels, and everything around the networks is the run as it is. What
is measured is how far the process's memory rises above what it held before the stage. A stage works
on pieces and should not know how large a shard is; packing holds the shard's files, and the tar.
"""

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measurement import peak_megabytes
from benchmarks.pictures import discs, picture
from benchmarks.results_file import write_results
from benchmarks.sleeping_models import Pace, SleepingModels, sleeping_run
from flows.generation_parameters import GenerationParameters
from tasks.stage_tasks import make_stage
from tasks.stages import STAGES, stages_of

SIZES = (64, 256, 1024)
BATCH = 8
DIFFERENT = 16


def measure(samples: int) -> list[dict[str, Any]]:
    """Make two shards; the peak of every stage of the second one."""
    rng = np.random.default_rng(0)
    models = SleepingModels(Pace(), [picture(rng, discs(rng, 2)) for _ in range(DIFFERENT)])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "d"
        parameters = GenerationParameters(
            root=str(root),
            samples=2 * samples,
            samples_per_shard=samples,
            texts_per_class_set=8,
            batch_size=BATCH,
            detections={"counterfactual": "record"},
            masks={"max_area": 1.0},
        )
        with sleeping_run(parameters, models, image_format="jpg") as run:
            for shard in run.planned:  # the first one warms up
                work = run.work(shard)
                rows = [
                    {
                        "what": declaration.stage.value,
                        "samples": samples,
                        "peak_mb": peak_megabytes(partial(make_stage, declaration, work)),
                    }
                    for declaration in map(STAGES.__getitem__, stages_of(run.recipe))
                ]
        tars = [path.stat().st_size for path in root.rglob("*.tar")]
    return [*rows, {"what": "limit: the tar", "samples": samples, "peak_mb": max(tars) / 1e6}]


def main() -> None:
    """Measure all sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action=argparse.BooleanOptionalAction, default=True)
    choice = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for samples in SIZES:
        rows += measure(samples)
        print(json.dumps(rows[-6:]), flush=True)
    if choice.keep:
        write_results("shard_memory", rows, ("magicseg-engine",), setting={"batch": BATCH})


if __name__ == "__main__":
    main()
