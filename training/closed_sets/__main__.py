"""`python -m training.closed_sets --config run.json` trains in a process of its own."""

import argparse
import logging
import sys
from pathlib import Path

from pydantic import ValidationError

from storage.documents import explain
from storage.errors import EngineError
from training.closed_sets.config import ClosedSetConfig
from training.closed_sets.loop import train


def main(arguments: list[str] | None = None) -> int:
    """Train as a JSON file says; returns the exit code: 0 done, 2 for anything to be changed."""
    parser = argparse.ArgumentParser(prog="python -m training.closed_sets", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="a ClosedSetConfig as JSON")
    path = parser.parse_args(arguments).config
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        config = ClosedSetConfig.model_validate_json(path.read_bytes())
        record = train(config)
    except ValidationError as error:
        faults = explain(ClosedSetConfig, error)
        sys.stderr.write(f"error: {path} is no ClosedSetConfig: {faults}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except EngineError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{config.out} {record.fingerprint}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
