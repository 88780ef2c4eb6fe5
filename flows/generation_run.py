"""One generation run before it starts: its slice, its shards, its recipe, its dataset.

Nothing here needs Prefect, so what is wrong or already done is known before a server is started.
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.generation_parameters import GenerationParameters
from models.profiles import require_weights
from storage.commits import Commit
from storage.errors import InputError
from storage.objects import open_objects
from storage.plan import count_shards, plan_shard
from storage.records import PlannedShard, Stage
from storage.slices import Slice, resolve_slice
from storage.store import SPEC_PATH, Store
from storage.vocabulary import load_vocabulary
from tasks.progress import tell_commit
from tasks.recipe import Recipe, find_done

MIN_FREE_BYTES = 200_000_000
"""A local run needs this much for its records, its logs and Prefect's database alone."""

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class Run:
    """What the parameters come to.

    Attributes:
        parameters: What to generate.
        recipe: How samples are made.
        classes: The slice.
        store: The dataset.
    """

    parameters: GenerationParameters
    recipe: Recipe
    classes: Slice
    store: Store

    def planned(self) -> Iterator[PlannedShard]:
        """The shards asked for, in order."""
        spec, samples = self.parameters.spec, self.parameters.samples
        for index in select_shards(self.parameters.shards, count_shards(spec, samples)):
            yield plan_shard(spec, self.classes, index, samples)

    def find_done(self, shard: PlannedShard) -> dict[Stage, Commit]:
        """The commits of a shard's stages, up to the first one that is missing."""
        return find_done(self.store, self.recipe, shard)

    def unfinished(self, planned: Iterable[PlannedShard]) -> list[PlannedShard]:
        """Those of the planned shards that are not committed; the others are told as done."""
        todo = []
        for shard in planned:
            done = self.find_done(shard)
            if Stage.SHARDS in done:
                for commit in done.values():
                    tell_commit(commit, cached=True)
            else:
                todo.append(shard)
        return todo


def prepare(parameters: GenerationParameters) -> Run:
    """Check everything that can be checked before anything is paid for, and open the dataset.

    Raises:
        InputError: The parameters mean nothing, weights are missing, or the dataset that is there
            was made with other settings.
    """
    classes, recipe = _understood(parameters)
    require_weights(recipe.profile)
    require_space(parameters.root)
    store = Store.create(parameters.root, dataset_spec(parameters))
    return Run(parameters, recipe, classes, store)


def require_space(root: str) -> int:
    """Check that a local root can be written to and has room for at least a small run.

    Returns:
        Free bytes; 0 for an object store, which has no such limit.

    Raises:
        InputError: The root cannot be written to, or its disk is nearly full.
    """
    if "://" in root:
        return 0
    place = Path(root).expanduser().absolute()
    existing = next(folder for folder in (place, *place.parents) if folder.exists())
    if not existing.is_dir():
        message = f"root {root}: {existing} is a file, expected a folder; choose another root"
        raise InputError(message)
    if not os.access(existing, os.W_OK):
        message = f"root {root} is in {existing}, which cannot be written to; choose another one"
        raise InputError(message)
    free = shutil.disk_usage(existing).free
    if free < MIN_FREE_BYTES:
        message = (
            f"no room for {root}: {free / 1e6:.0f} MB are free there, expected at least "
            f"{MIN_FREE_BYTES / 1e6:.0f} MB; free some space or choose another root"
        )
        raise InputError(message)
    return free


def open_run(parameters: GenerationParameters) -> Run | None:
    """Like `prepare`, but without writing anything; nothing if there is no dataset yet.

    Raises:
        InputError: As `prepare`.
    """
    classes, recipe = _understood(parameters)
    if open_objects(parameters.root).size(SPEC_PATH) is None:
        return None
    store = Store.open(parameters.root)
    store.refuse_drift(dataset_spec(parameters))
    return Run(parameters, recipe, classes, store)


def _understood(parameters: GenerationParameters) -> tuple[Slice, Recipe]:
    spec = parameters.spec
    classes = resolve_slice(load_vocabulary(spec.vocabulary), parameters.slice)
    select_shards(parameters.shards, count_shards(spec, parameters.samples))
    return classes, parameters.recipe


def dataset_spec(parameters: GenerationParameters) -> dict[str, Any]:
    """Everything that the samples of a dataset depend on; guards every resume."""
    vocabulary = load_vocabulary(parameters.spec.vocabulary)
    return {
        "plan": parameters.spec.model_dump(mode="json"),
        "vocabulary": vocabulary.digest,
        "stages": parameters.recipe.describe(),
        "min_yield": parameters.min_yield,
    }


def select_shards(text: str, count: int) -> list[int]:
    """Read which shards are meant.

    Args:
        text: `all`, or indices and ranges such as `0-3,7`, ends included.
        count: Shards of the slice.

    Raises:
        InputError: If the text means nothing or a shard that the slice does not have.
    """
    if text.strip() == "all":
        return list(range(count))
    chosen: set[int] = set()
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        first = int(match[1]) if match else count
        last = int(match[2] or first) if match else count
        if not match or not first <= last < count:
            message = (
                f"shards {text!r}: {part.strip()!r} is no shard of this slice, expected all, or "
                f"indices and ranges up to {count - 1} such as 0-3,7"
            )
            raise InputError(message)
        chosen.update(range(first, last + 1))
    return sorted(chosen)
