"""Live progress of a run: bars with totals and time left on a terminal, plain lines elsewhere."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from tasks.progress import Progress as RunProgress
from tasks.progress import Step

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


class SampleCounts:
    """How many planned samples have passed each stage, dropped and cached ones included.

    Args:
        sizes: Planned samples of each shard, by name; shards may be added while it counts.
        stages: Those that the samples pass, in order.
    """

    def __init__(self, sizes: Mapping[str, int], stages: Sequence[Stage]) -> None:
        self.stages = stages
        self._sizes = sizes
        self._steps: dict[tuple[Stage, str], Step] = {}
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        """Planned samples of all shards."""
        # a list first: the run may add a shard at any time
        return sum(list(self._sizes.values()))

    def note(self, step: Step) -> None:
        """Take in one step."""
        with self._lock:
            self._steps[step.stage, step.shard] = step

    def done(self, stage: Stage) -> int:
        """Planned samples that a stage has dealt with.

        Samples that an earlier stage dropped never arrive; they count with the rest of their shard.
        """
        with self._lock:
            steps = [step for (of, _), step in self._steps.items() if of == stage]
        return round(sum(self._sizes.get(step.shard, 0) * _share(step) for step in steps))

    def share_of(self, stage: Stage) -> float:
        """How much of a stage is done, in [0, 1]."""
        return self.done(stage) / max(1, self.total)

    def share(self) -> float:
        """How much of all stages is done, in [0, 1]."""
        done = sum(map(self.done, self.stages))
        return done / max(1, self.total * len(self.stages))

    def cached(self) -> int:
        """Stages of shards that were found committed."""
        with self._lock:
            return sum(step.cached for step in self._steps.values())


@contextmanager
def show_progress(
    progress: RunProgress, counts: SampleCounts, console: Console, note: Callable[[], str]
) -> Iterator[None]:
    """Show what the stages do until the block ends.

    Args:
        progress: Of the run.
        counts: Takes in what they do.
        console: Bars if it is a terminal, else one line every `PLAIN_SECONDS`.
        note: What else there is to say; asked every `PLAIN_SECONDS`, and may take its time.
    """
    stop = progress.listen(counts.note)
    shown = (
        _bars(progress, counts, console, note)
        if console.is_terminal
        else _lines(counts, console, note)
    )
    try:
        with shown:
            yield
    finally:
        stop()


@contextmanager
def _bars(
    progress: RunProgress, counts: SampleCounts, console: Console, note: Callable[[], str]
) -> Iterator[None]:
    noted = TextColumn("{task.fields[note]}", markup=False)
    with Progress(*_COLUMNS, noted, console=console) as shown:
        bars: dict[Stage, TaskID] = {
            stage: shown.add_task(stage.value, total=counts.total, note="")
            for stage in counts.stages
        }

        def refresh(_step: Step) -> None:
            for stage, bar in bars.items():
                shown.update(bar, completed=counts.done(stage), total=counts.total)

        stop = progress.listen(refresh)
        try:
            with _repeated(lambda: shown.update(bars[Stage.PROMPTS], note=note()), note):
                yield
        finally:
            stop()


@contextmanager
def _lines(counts: SampleCounts, console: Console, note: Callable[[], str]) -> Iterator[None]:
    started = time.monotonic()

    def write(more: str = "") -> None:
        line = describe(counts, time.monotonic() - started)
        console.print("; ".join(filter(None, (line, more))), soft_wrap=True)

    try:
        with _repeated(lambda: write(note()), note):
            yield
    finally:
        write()


@contextmanager
def _repeated(do: Callable[[], object], first: Callable[[], object]) -> Iterator[None]:
    """Do something every `PLAIN_SECONDS` in a thread, until the block ends.

    Args:
        do: What to do.
        first: What to ask at once, so that what follows can be compared with it.
    """
    over = threading.Event()

    def keep() -> None:
        first()
        while not over.wait(PLAIN_SECONDS):
            do()

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


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


def describe(counts: SampleCounts, seconds: float) -> str:
    """Say in one line how far each stage is, and how long the rest will take at this pace."""
    total = counts.total
    parts = ", ".join(f"{stage.value} {counts.done(stage)}/{total}" for stage in counts.stages)
    share = counts.share()
    left = f"{seconds * (1 - share) / share:.0f} s left" if share else "time left unknown"
    return f"{seconds:.0f} s: {parts}; {left}"


def _share(step: Step) -> float:
    return step.done / step.total if step.total else 1.0
