"""Live progress of a run: bars with totals and time left on a terminal, plain lines elsewhere."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from storage.records import Stage
from tasks.progress import Step, listen

_COLUMNS = (
    TextColumn("{task.description:<10}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TextColumn("left"),
    TimeRemainingColumn(),
)

PLAIN_SECONDS = 10.0
"""Seconds between two plain lines."""


class Tally:
    """How many samples have passed each stage, cached ones included."""

    def __init__(self) -> None:
        self._steps: dict[tuple[Stage, str], Step] = {}
        self._lock = threading.Lock()

    def note(self, step: Step) -> None:
        """Take in one step."""
        with self._lock:
            self._steps[step.stage, step.shard] = step

    def done(self, stage: Stage) -> int:
        """Samples that a stage has dealt with."""
        with self._lock:
            return sum(step.done for key, step in self._steps.items() if key[0] == stage)

    def cached(self) -> int:
        """Stages of shards that were found committed."""
        with self._lock:
            return sum(step.cached for step in self._steps.values())


@contextmanager
def show_progress(totals: Mapping[Stage, int], console: Console) -> Iterator[Tally]:
    """Show what the stages do until the block ends.

    Args:
        totals: Samples planned for each stage. A sample that an earlier stage dropped does not
            arrive, so a later stage may end below its total.
        console: Bars if it is a terminal, else one line every `PLAIN_SECONDS`.
    """
    tally = Tally()
    stop = listen(tally.note)
    try:
        with (
            _bars(totals, tally, console) if console.is_terminal else _lines(totals, tally, console)
        ):
            yield tally
    finally:
        stop()


@contextmanager
def _bars(totals: Mapping[Stage, int], tally: Tally, console: Console) -> Iterator[None]:
    with Progress(*_COLUMNS, console=console) as progress:
        bars: dict[Stage, TaskID] = {
            stage: progress.add_task(stage.value, total=total) for stage, total in totals.items()
        }

        def refresh(_step: Step) -> None:
            for stage, bar in bars.items():
                progress.update(bar, completed=tally.done(stage))

        stop = listen(refresh)
        try:
            yield
        finally:
            stop()


@contextmanager
def _lines(totals: Mapping[Stage, int], tally: Tally, console: Console) -> Iterator[None]:
    started = time.monotonic()
    over = threading.Event()

    def write() -> None:
        while not over.wait(PLAIN_SECONDS):
            console.print(describe(totals, tally, time.monotonic() - started), soft_wrap=True)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()
        console.print(describe(totals, tally, time.monotonic() - started), soft_wrap=True)


@contextmanager
def show_steps(total: int, console: Console) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Show how far a training is until the block ends.

    Args:
        total: Updates.
        console: A bar if it is a terminal, else one line every `PLAIN_SECONDS`.

    Yields:
        What to call after every update with its row of metrics.
    """
    started = written = time.monotonic()
    with Progress(*_COLUMNS, TextColumn("{task.fields[loss]}"), console=console) as progress:
        progress.disable = not console.is_terminal
        bar = progress.add_task("training", total=total, loss="")

        def note(row: Mapping[str, float]) -> None:
            nonlocal written
            done = int(row["step"]) + 1
            progress.update(bar, completed=done, loss=f"loss {row['loss']:.3g}")
            now = time.monotonic()
            if not console.is_terminal and (now - written >= PLAIN_SECONDS or done == total):
                written = now
                left = (now - started) / done * (total - done)
                console.print(
                    f"training: step {done} of {total}, loss {row['loss']:.3g}, {left:.0f} s left",
                    soft_wrap=True,
                )

        yield note


def describe(totals: Mapping[Stage, int], tally: Tally, seconds: float) -> str:
    """Say in one line how far each stage is, and how long the slowest one still needs."""
    parts = [f"{stage.value} {tally.done(stage)}/{total}" for stage, total in totals.items()]
    slowest = min(totals, key=lambda stage: tally.done(stage) / max(totals[stage], 1))
    done, total = tally.done(slowest), totals[slowest]
    left = f"{seconds * (total - done) / done:.0f} s left" if done else "time left unknown"
    return f"{seconds:.0f} s: {', '.join(parts)}; {left}"
