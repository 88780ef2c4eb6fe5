"""Run the quick benchmarks one after the other, and write one table of what they left behind.

Those that take longer, or a GPU, are in the table with the figures of their last run.
"""

import subprocess
import sys
import time

from benchmarks.results_file import RESULTS
from benchmarks.results_table import TABLE, results_table

QUICK = (
    "train_loss",
    "train_sampling",
    "train_step",
    "augment",
    "loader",
    "confusion",
    "argmax",
    "plan",
    "flops",
    "shard_write",
    "shard_read",
    "training_start",
    "resume_scan",
    "explore",
    "preparation",
    "segment",
    "startup",
    "orchestration",
    "busy",
)


def run() -> list[str]:
    """Run each in a process of its own; gives those that failed."""
    failed: list[str] = []
    for name in QUICK:
        began = time.monotonic()
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        ended = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        print(f"{name}: {time.monotonic() - began:.0f} s, exit code {ended.returncode}", flush=True)
        if ended.returncode:
            failed.append(name)
    return failed


failures = run()
TABLE.write_text(results_table(), encoding="utf-8")
print(f"written: {TABLE.relative_to(RESULTS.parent.parent)}")
if failures:
    sys.exit(f"failed: {', '.join(failures)}")
