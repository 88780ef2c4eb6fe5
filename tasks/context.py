"""What all the work of one generation run has in common."""

from dataclasses import dataclass, field

from storage.plan import DatasetSpec
from storage.slices import Slice
from storage.store import Store
from tasks.breaker import Breaker
from tasks.machine import Machine
from tasks.recipe import Recipe


@dataclass(frozen=True)
class RunContext:
    """What all the work of one generation run has in common.

    Attributes:
        machine: Owns devices, calls and models.
        store: The dataset.
        recipe: How samples are made.
        spec: What fixes the plan.
        classes: The slice.
        accept_failed: Whether shards are packed without the samples that no service delivered.
        breaker: Stops the run when nearly all samples are dropped for one reason.
    """

    machine: Machine
    store: Store
    recipe: Recipe
    spec: DatasetSpec
    classes: Slice
    accept_failed: bool = False
    breaker: Breaker = field(default_factory=Breaker)
