"""Work on one shard: its cells, how far they are, and the pieces that are made of them."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property

from models.devices import describe_device
from storage.commits import Commit, Counts, Verdict
from storage.errors import AwaitedError
from storage.identity import digest
from storage.payloads import Payload
from storage.plan import CellPart, ShardRange, cell_parts
from storage.records import PlannedSample, Record, Rejected, Stage
from storage.rows import write_rows
from storage.store import Store
from tasks.cells import CellState, look_up, short_digest
from tasks.context import RunContext
from tasks.declarations import Declaration, Made, PieceWork, dropped_of
from tasks.pipeline import Pipeline
from tasks.progress import Step
from tasks.reuse import Reuse
from tasks.stages import StageKeys

_LONGEST_LABEL = 40
"""Characters of a slice's label in the names of task runs; lists of class names can be long."""

Needed = Callable[[], AbstractContextManager[None]]
"""Holds what a piece needs beside a device, such as a slot of a paid service."""


class ShardWork:
    """One shard, to be made.

    No dataclass and no pydantic model: Prefect walks through those in a task's parameters.

    Args:
        context: What the work of the run has in common.
        keys: The keys of the stages' outputs.
        shard: Which samples.
        reuse: Another dataset, of which what fits is taken over instead of made again.
    """

    def __init__(
        self,
        context: RunContext,
        keys: StageKeys,
        shard: ShardRange,
        reuse: Reuse | None = None,
    ) -> None:
        self._reuse = reuse
        self.context = context
        self.machine = context.machine
        self.store = context.store
        self.recipe = context.recipe
        self.keys = keys
        self.shard = shard
        self._states: dict[str, CellState] = {}

    @cached_property
    def parts(self) -> list[CellPart]:
        """The shard's samples, cell by cell."""
        spec, classes = self.context.spec, self.context.classes
        return list(cell_parts(spec, classes, self.shard.start, self.shard.stop))

    @property
    def samples(self) -> tuple[PlannedSample, ...]:
        """The shard's samples, in plan order."""
        return tuple(sample for part in self.parts for sample in part.samples)

    @property
    def title(self) -> str:
        """What people call the shard: its slice and its number."""
        label = self.context.classes.label
        if len(label) > _LONGEST_LABEL:
            label = f"{label[: _LONGEST_LABEL - 1].rstrip(', ')}…"
        return f"{label} · {self.shard.index:06d}"

    @property
    def key(self) -> str:
        """The key of the finished shard."""
        return self.keys.shard_key(self.context.spec, self.shard)

    def state(self, part: CellPart) -> CellState:
        """How far a cell is, as far as this object knows."""
        if part.name not in self._states:
            self._states[part.name] = look_up(self.keys, self.store, part)
        return self._states[part.name]

    def states(self) -> list[CellState]:
        """How far all cells are."""
        return [self.state(part) for part in self.parts]

    def forget(self) -> None:
        """Look at the store again from now on."""
        self._states.clear()

    @contextmanager
    def held(self, stage: Stage, part: CellPart) -> Iterator[CellState]:
        """Wait for the lease on a cell, mend what is broken there, and look at it again."""
        what = f"{stage} of {self.shard.name}"
        with self.store.lease(stage, part.name, lambda: self.machine.progress.check(what)):
            self.store.heal_unit(stage, part.name)
            self._states.pop(part.name, None)
            yield self.state(part)
            self._states.pop(part.name, None)

    def make_missing(self, declaration: Declaration, needed: Needed) -> int:
        """Make what a stage has not decided yet of the shard's samples, piece by piece.

        Args:
            declaration: The stage.
            needed: Holds what a piece needs while it is made, beside its turns on a device.

        Returns:
            Pieces that were made.

        Raises:
            AwaitedError: Answers that samples need come hours later; the others are committed.
            BreakerError: Nearly all samples are dropped for one reason.
            StoppedError: The run was asked to stop; what was finished until then is committed.
        """
        stage, made, before, awaited = declaration.stage, 0, 0, 0
        progress, name = self.machine.progress, self.shard.name
        total = sum(len(state.reached(stage)) for state in self.states())

        for part in self.parts:
            if self.state(part).missing(stage):
                self.context.breaker.check()
                progress.check(f"{stage} of {name} after {before} samples")
                with self.held(stage, part) as state:
                    # whoever held the lease before may have made them
                    now = self._with_reused(stage, state)
                    if samples := now.missing(stage):
                        pipeline = self._pipeline(declaration, before, total)
                        piece = PieceWork(self.context, stage, now, samples, pipeline)
                        awaited += self._make_piece(declaration, piece, needed)
                        made += 1
            before += len(self.state(part).reached(stage))
            progress.tell(Step(stage, name, before, total))
        if awaited:
            message = f"{awaited} of {total} samples of {name} wait for answers of a batch"
            raise AwaitedError(message)
        progress.tell(Step(stage, name, total, total, cached=not made))
        return made

    def _pipeline(self, declaration: Declaration, before: int, total: int) -> Pipeline:
        """The pipeline of a piece.

        Args:
            declaration: The stage.
            before: Samples of the shard that the stage has dealt with before.
            total: Those that reached it.
        """
        stage, name, machine = declaration.stage, self.shard.name, self.machine
        device = declaration.device(self.recipe)

        def tell(done: int) -> None:
            machine.progress.tell(Step(stage, name, before + done, total))

        hold = (lambda: machine.turns.turn(device, of=name)) if device else None
        return Pipeline(machine.progress, f"{stage} of {name}", hold, tell)

    def _with_reused(self, stage: Stage, state: CellState) -> CellState:
        """How far a cell is, with what another dataset has of the samples that are missing."""
        reuse = self._reuse
        taken = reuse.made(stage, self.keys, state) if reuse is not None else None
        if taken is None:
            return state
        commit_piece(self.store, state, stage, taken, Spent(0.0))
        return look_up(self.keys, self.store, state.part)

    def _make_piece(self, declaration: Declaration, piece: PieceWork, needed: Needed) -> int:
        """Make and commit a piece; gives the samples that answers are awaited for."""
        if declaration.make is None:
            message = f"stage {declaration.stage} makes no pieces"
            raise TypeError(message)
        progress, what = self.machine.progress, f"{piece.stage} of {self.shard.name}"
        device = declaration.device(self.recipe)
        with needed():
            progress.check(what)  # the wait for a slot may have been long
            started = time.monotonic()
            made = declaration.make(piece)
            seconds = time.monotonic() - started
        if made.rows:
            spent = (
                Spent(piece.pipeline.held_seconds, describe_device(device))
                if device
                else Spent(seconds)
            )
            commit_piece(self.store, piece.state, piece.stage, made, spent)
            self.context.breaker.note(piece.stage, made.rows)
        left = len(piece.samples) - len(made.rows)
        if left:
            progress.check(f"{what} after {len(made.rows)} of {len(piece.samples)} samples")
        return left


@dataclass(frozen=True)
class Spent:
    """What the making of a piece took.

    Attributes:
        seconds: How long the device was held, or wall time of the work where it needs none.
        device: What computed; empty if no device was needed.
    """

    seconds: float
    device: str = ""


def commit_piece(store: Store, state: CellState, stage: Stage, made: Made, spent: Spent) -> Commit:
    """Commit what a stage made of some samples of a cell; needs the lease.

    Args:
        store: The dataset.
        state: What was committed of the cell before; knows the samples' keys.
        stage: The stage.
        made: What was made.
        spent: What that took.
    """
    dropped = dropped_of(made.rows)
    counts = Counts.of(len(made.rows), len(made.rows) - len(dropped), dropped)
    undelivered = {row.key: row.reason for row in dropped if row.reason.is_failure}
    verdicts = {
        key: Verdict(key=state.keys[stage][key], output=output)
        for key, output in map(_outcome, made.rows)
        if key not in undelivered
    }
    key = digest(
        {
            "stage": stage.value,
            "verdicts": {name: verdict.key for name, verdict in verdicts.items()},
            "undelivered": {name: state.attempts[name] for name in undelivered},
        }
    )
    about = {"verdicts": verdicts, "undelivered": undelivered, "device": spent.device}
    payload = Payload(made.data, seconds=spent.seconds, about=about)
    return store.commit(stage, state.part.name, key, payload, counts)


def _outcome(row: Record) -> tuple[str, str]:
    """Key of a sample, and the digest of what was made of it."""
    key: str = row.key  # type: ignore[attr-defined]
    return key, "" if isinstance(row, Rejected) else short_digest(write_rows([row]))
