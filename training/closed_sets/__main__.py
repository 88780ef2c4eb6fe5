"""`python -m training.closed_sets --config run.json` trains in a process of its own."""

import sys
from collections.abc import Sequence

from storage.job_files import run_job_file
from training.closed_sets.config import ClosedSetConfig
from training.closed_sets.loop import train_closed_set


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as a JSON file says and print the run's folder; returns the exit code."""
    return run_job_file(ClosedSetConfig, _train, "python -m training.closed_sets", arguments)


def _train(config: ClosedSetConfig) -> None:
    record = train_closed_set(config)
    sys.stdout.write(f"{config.out} {record.fingerprint}\n")


if __name__ == "__main__":
    sys.exit(main())
