"""What a stage is: a declaration, and one piece of work for it.

A stage is data and a plain function. Its Prefect task, its keys, its place in the order, its lines
in `status` and in the progress, and its row in the docs come from the declaration.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from models.registry import Need, Role, kind_of
from storage.commits import Commit, Counts
from storage.identity import Encoded, digest
from storage.records import PlannedShard, Record, Rejected, Stage
from storage.rows import write_rows
from storage.store import Store
from tasks.machine import Machine
from tasks.recipe import Recipe

Done = Mapping[Stage, Commit]
"""What is committed for one shard."""


@dataclass(frozen=True)
class Made:
    """What a stage made of a shard.

    Attributes:
        data: The bytes to store; empty for a shard without survivors.
        counts: Where the samples went.
        manifest: Parquet bytes of the manifest; final stage only.
    """

    data: bytes | memoryview
    counts: Counts
    manifest: bytes = b""

    @classmethod
    def of_rows(cls, rows: Sequence[Record], requested: int) -> "Made":
        """The output of a stage that stores one record a sample.

        Args:
            rows: Results and rejections.
            requested: Samples that the stage was asked for.
        """
        dropped = [row for row in rows if isinstance(row, Rejected)]
        return cls(write_rows(rows), Counts.of(requested, len(rows) - len(dropped), dropped))


class StageWork:
    """One stage of one shard, to be done.

    No dataclass and no pydantic model: Prefect walks through those in a task's parameters, sample
    by sample.

    Args:
        machine: Owns devices, calls and models.
        store: The dataset.
        recipe: How samples are made.
        shard: Which samples.
        done: The commits that the stage reads.
        key: What the output depends on.
    """

    def __init__(
        self,
        machine: Machine,
        store: Store,
        recipe: Recipe,
        shard: PlannedShard,
        *,
        done: Done,
        key: str,
    ) -> None:
        self.machine = machine
        self.store = store
        self.recipe = recipe
        self.shard = shard
        self.done = done
        self.key = key


@dataclass(frozen=True)
class Declaration:
    """A stage.

    Attributes:
        stage: Its name; the names' order is the order of the work.
        version: Raised by hand when the code changes what the stage produces.
        inputs: Whose outputs it reads.
        role: The model that works in it, or nothing.
        depends_on: Its part of the recipe: what its output depends on besides inputs and plan.
            Settings that say only how to execute (device, batch size, concurrency) are no part, so
            that changing them repeats no work.
        make: Does the work.
        about: What happens, in a sentence.
    """

    stage: Stage
    version: int
    inputs: tuple[Stage, ...]
    role: Role | None
    depends_on: Callable[[Recipe], dict[str, Any]]
    make: Callable[[StageWork], Made]
    about: str

    def need(self, recipe: Recipe) -> Need:
        """What the stage takes up, by the kind of its model."""
        return Need.DISK if self.role is None else kind_of(recipe.profile.model(self.role)).need

    def device(self, recipe: Recipe) -> str | None:
        """The device that the stage computes on, or nothing if it needs none."""
        if self.role is None or self.need(recipe) is not Need.DEVICE:
            return None
        return recipe.profile.model(self.role).device

    def config(self, recipe: Recipe) -> dict[str, Any]:
        """Its part of the recipe as JSON types; identifies its models, so it looks at files.

        Raises:
            InputError: If weights or templates are missing.
        """
        return {
            name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
            for name, value in self.depends_on(recipe).items()
        }

    def key(self, config: Mapping[str, Any], shard: PlannedShard, done: Done) -> str:
        """Identify the output for a shard.

        Args:
            config: What `config` says.
            shard: The planned samples: a shard that grew has another key than before.
            done: At least the commits that the stage reads.

        Returns:
            64 hex digits; equal keys mean equal outputs, on any machine, in any order.
        """
        inputs = [done[source].object for source in self.inputs]
        return digest(
            {
                "stage": self.stage.value,
                "version": self.version,
                "samples": Encoded(shard.samples_json),
                "config": config,
                "inputs": [ref.sha256 if ref else "" for ref in inputs],
            }
        )
