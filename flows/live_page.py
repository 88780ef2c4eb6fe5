"""The page of a run in Prefect's user interface while it works: progress, log lines, artifacts."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext
from prefect.logging.handlers import APILogHandler

from flows.display import SampleCounts
from flows.durations import duration_text
from flows.log_files import PACKAGES

UPDATE_SECONDS = 5.0
"""Seconds between two updates of an artifact."""

_BAR_CELLS = 20

_log = logging.getLogger(__name__)


@contextmanager
def engine_log() -> Iterator[None]:
    """Send what our packages log to the page of the current flow run, until the block ends.

    Outside a flow run nothing is sent. Threads that know of no run are written down for this one.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        yield
        return
    run_id = str(context.flow_run.id)
    handler = APILogHandler(level=logging.INFO)

    def of_this_run(record: logging.LogRecord) -> bool:
        record.flow_run_id = getattr(record, "flow_run_id", None) or run_id
        return True

    handler.addFilter(of_this_run)
    loggers = [logging.getLogger(package) for package in PACKAGES]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        if logger.getEffectiveLevel() > logging.INFO:
            logger.setLevel(logging.INFO)
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


@contextmanager
def live_artifact(key: str, look: Callable[[], tuple[float, str]]) -> Iterator[None]:
    """Keep a progress artifact of the current flow run up to date until the block ends.

    A server that does not answer stops neither the artifact nor the run.

    Args:
        key: Lower-case letters, digits and dashes.
        look: Says how much is done, in percent, and what to write below, in Markdown.
    """
    artifact: UUID | None = None
    over = threading.Event()

    def update() -> None:
        nonlocal artifact
        try:
            percent, text = look()
            if artifact is None:
                artifact = cast("UUID", create_progress_artifact(percent, key, text))
            else:
                update_progress_artifact(artifact, percent, text)
        except Exception as error:  # noqa: BLE001 - a picture of the work must not end the work
            _log.debug("artifact %s was not updated", key, exc_info=error)

    def keep() -> None:
        while not over.wait(UPDATE_SECONDS):
            update()

    update()
    # the thread belongs to the run, so that the artifact does
    thread = threading.Thread(target=copy_context().run, args=(keep,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        update()


@dataclass
class Pace:
    """How fast a share of the work grows.

    Attributes:
        first: The share when work began.
        started: When that was, on the monotonic clock.
    """

    first: float
    started: float

    @classmethod
    def now(cls, share: float) -> "Pace":
        """Begin to count."""
        return cls(share, time.monotonic())

    def rate(self, share: float) -> float:
        """Share a second since the beginning."""
        return (share - self.first) / max(1e-9, time.monotonic() - self.started)


def progress_bar(share: float) -> str:
    """A bar of characters.

    Args:
        share: What is done, in [0, 1].
    """
    full = round(min(1.0, max(0.0, share)) * _BAR_CELLS)
    return "█" * full + "░" * (_BAR_CELLS - full)


def progress_text(counts: SampleCounts, pace: Pace, notes: Mapping[str, str]) -> str:
    """How far the stages of a run are, in Markdown.

    Args:
        counts: Samples by stage.
        pace: Of the run.
        notes: What else there is to say, by what it is about.
    """
    total = counts.total
    lines = ["", "| stage | samples | |", "|---|---|---|"]
    for stage in counts.stages:
        done = counts.done(stage)
        lines.append(
            f"| {stage.value} | {done} of {total} | {progress_bar(done / max(1, total))} |"
        )
    share, rate = counts.share(), pace.rate(counts.share())
    speed = f"{60 * rate * total:.1f} samples a minute" if rate else "rate not known yet"
    left = f"{duration_text((1 - share) / rate)} left" if rate else "time left not known yet"
    facts = [f"* {name}: {value}" for name, value in notes.items()]
    return "\n".join([f"{speed}, {left}", *lines, "", *facts])
