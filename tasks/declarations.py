"""What a stage is: a declaration, and the work on one piece.

A stage is data and a plain function. Its Prefect task, its keys, its place in the order, its lines
in `status` and in the progress, and its row in the docs come from the declaration.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from models.registry import Need, Role, kind_of
from storage.pairs import EncodedPair, describe_pairs, pack_pairs
from storage.records import PlannedSample, Record, Rejected, Stage
from storage.rows import write_rows
from storage.store import Store
from tasks.cells import CellState
from tasks.context import RunContext
from tasks.pipeline import Pipeline
from tasks.recipe import Recipe

BATCHES_A_STEP = 2
"""Batches of a quick network between two looks at whether the run is to stop."""


@dataclass(frozen=True)
class Made:
    """What a stage made of a piece.

    Attributes:
        rows: For each sample a result, or why there is none. Samples that were not begun, because
            the run was asked to stop, have none.
        data: The bytes to store.
    """

    rows: Sequence[Record]
    data: bytes | memoryview

    @classmethod
    def of_rows(cls, rows: Sequence[Record]) -> "Made":
        """The output of a stage that stores nothing but its rows."""
        return cls(rows, write_rows(rows))

    @classmethod
    def of_steps(cls, steps: Iterable[Sequence[Record]]) -> "Made":
        """The output of a stage that made its rows some at a time."""
        return cls.of_rows([row for step in steps for row in step])

    @classmethod
    def of_pairs(cls, pairs: Sequence[EncodedPair], dropped: Sequence[Rejected]) -> "Made":
        """The output of a stage that stores images.

        Args:
            pairs: What was painted.
            dropped: Why there is no pair.
        """
        return cls([*describe_pairs(pairs), *dropped], pack_pairs(pairs, dropped))


class PieceWork:
    """One stage of some samples of a cell, to be done.

    Args:
        context: What the work of the run has in common.
        stage: The stage.
        state: What is committed of the cell.
        samples: The samples to be made, in plan order.
        pipeline: Does them step by step, and holds the device.
    """

    def __init__(
        self,
        context: RunContext,
        stage: Stage,
        state: CellState,
        samples: Sequence[PlannedSample],
        pipeline: Pipeline,
    ) -> None:
        self.machine = context.machine
        self.store = context.store
        self.recipe = context.recipe
        self.spec = context.spec
        self.stage = stage
        self.state = state
        self.samples = samples
        self.pipeline = pipeline
        self._rows: dict[Stage, dict[str, Record]] = {}

    def rows(self, stage: Stage) -> dict[str, Record]:
        """What an earlier stage made of the samples, by sample key.

        Raises:
            DamagedError: The bytes are not those that were committed.
        """
        if stage not in self._rows:
            self._rows[stage] = read_rows_of(self.store, self.state, stage, self._keys())
        return self._rows[stage]

    def known_rows(self) -> dict[str, Record]:
        """What this stage has made of other samples of the cell's class sets before."""
        keys = [sample.key for sample in self.state.reached(self.stage)]
        return read_rows_of(self.store, self.state, self.stage, keys)

    def pictures(self, stage: Stage) -> Iterator[EncodedPair]:
        """The samples' pictures that a stage stored: what readers of the dataset will see.

        Raises:
            DamagedError: The bytes are not those that were committed.
        """
        return read_pictures_of(self.store, self.state, stage, self._keys())

    def _keys(self) -> list[str]:
        return [sample.key for sample in self.samples]


def read_rows_of(
    store: Store, state: CellState, stage: Stage, keys: Sequence[str]
) -> dict[str, Record]:
    """Read what a stage made of some samples, by sample key; samples not decided are left out."""
    found: dict[str, Record] = {}
    for piece in state.pieces(stage, keys):
        for row in store.rows(piece):
            key: str = row.key  # type: ignore[attr-defined]
            if key in state.found[stage] and state.found[stage][key].piece.key == piece.key:
                found[key] = row
    return {key: found[key] for key in keys if key in found}


def read_pictures_of(
    store: Store, state: CellState, stage: Stage, keys: Sequence[str]
) -> Iterator[EncodedPair]:
    """Read the pictures of some samples that a stage stored, piece by piece."""
    wanted, found = set(keys), state.found[stage]
    for piece in state.pieces(stage, keys):
        for pair in store.pairs(piece):
            if pair.key in wanted and found[pair.key].piece.key == piece.key:
                yield pair


@dataclass(frozen=True)
class Declaration:
    """A stage.

    Attributes:
        stage: Its name; the names' order is the order of the work.
        version: Raised by hand when the code changes what the stage produces.
        inputs: Whose outputs it reads.
        role: Whose work it is, in the docs; nothing for plain work on files.
        model: The configuration of the model that works in it, by the recipe; None if there is
            none.
        depends_on: Its part of the recipe: what its output depends on besides inputs and plan.
            Settings that say only how to execute (device, batch size, concurrency) are no part, so
            that changing them repeats no work.
        make: Does the work on a piece; nothing for the last stage, which packs shards.
        about: What happens, in a sentence.
        is_part: Whether the samples of a recipe pass it.
        unread: Inputs that a sample must have passed, but of which the output is not looked at: it
            is no part of the key, so that another one repeats no work.
    """

    stage: Stage
    version: int
    inputs: tuple[Stage, ...]
    role: Role | None
    model: Callable[[Recipe], Any]
    depends_on: Callable[[Recipe], dict[str, Any]]
    make: Callable[[PieceWork], Made] | None
    about: str
    is_part: Callable[[Recipe], bool] = lambda _recipe: True
    unread: Callable[[Recipe], Collection[Stage]] = lambda _recipe: ()

    def need(self, recipe: Recipe) -> Need:
        """What the stage takes up, by the kind of its model."""
        config = self.model(recipe)
        return Need.DISK if config is None else kind_of(config).need

    def device(self, recipe: Recipe) -> str | None:
        """The device that the stage computes on, or nothing if it needs none."""
        return self.model(recipe).device if self.need(recipe) is Need.DEVICE else None

    def config(self, recipe: Recipe) -> dict[str, Any]:
        """Its part of the recipe as JSON types; identifies its models, so it looks at files.

        Raises:
            InputError: If weights or templates are missing.
        """
        return {
            name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
            for name, value in self.depends_on(recipe).items()
        }


def dropped_of(rows: Iterable[Record]) -> list[Rejected]:
    """The rows that say why there is no result."""
    return [row for row in rows if isinstance(row, Rejected)]
