"""`python -m training --config run.json`; several processes by `torchrun -m training`."""

import sys
from collections.abc import Sequence

from storage.job_files import is_first_process, run_job_file
from training.config import TrainingConfig
from training.loop import train_student


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as a JSON file says and print the last checkpoint; returns the exit code."""
    return run_job_file(TrainingConfig, _train, "python -m training", arguments)


def _train(config: TrainingConfig) -> None:
    checkpoint = train_student(config)
    if is_first_process():
        print(checkpoint)


if __name__ == "__main__":
    sys.exit(main())
