"""Log files of runs: what our packages say, whatever the terminal shows."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from storage.locks import LOG_FOLDER

PACKAGES = ("flows", "tasks", "models", "storage", "training", "evaluation")
"""Our packages, by whose names their loggers are called."""


@contextmanager
def log_file(folder: Path) -> Iterator[Path]:
    """Write what our packages log into a file of the store, until the block ends."""
    path = folder / LOG_FOLDER / f"{datetime.now(UTC):%Y%m%dT%H%M%S}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(package) for package in PACKAGES]
    for logger in loggers:
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
    try:
        yield path
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()
