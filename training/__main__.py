"""`python -m training --config run.json`; several processes by `torchrun -m training`."""

import argparse
import json
import logging
import os
import sys
from pathlib import Path

from pydantic import ValidationError

from storage.documents import explain
from storage.errors import EngineError, InputError
from training.config import TrainingConfig
from training.loop import train


def main(arguments: list[str] | None = None) -> int:
    """Train as a JSON file says; returns the exit code: 0 done, 2 for anything to be changed."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="a TrainingConfig as JSON")
    path = parser.parse_args(arguments).config
    is_first = os.environ.get("RANK", "0") == "0"  # torchrun tells
    level = logging.INFO if is_first else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        checkpoint = train(read_config(path))
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if is_first:
        print(checkpoint)
    return 0


def read_config(path: Path) -> TrainingConfig:
    """Read a run's config.

    Raises:
        InputError: If the file is missing, no JSON, or holds a wrong field.
    """
    try:
        return TrainingConfig.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        message = f"{path} cannot be read ({error.strerror}); expected a TrainingConfig as JSON"
        raise InputError(message) from error
    except ValidationError as error:
        message = f"{path} is no TrainingConfig: {explain(TrainingConfig, error)}"
        raise InputError(message) from error
    except ValueError as error:
        message = f"{path} is no JSON ({error}); expected a TrainingConfig"
        raise InputError(message) from error


if __name__ == "__main__":
    sys.exit(main())
