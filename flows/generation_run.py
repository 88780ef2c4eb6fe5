"""One generation run before it starts: its slice, its shards, its recipe, its dataset.

Nothing here needs Prefect, so what is wrong or already done is known before a server is started.
"""

import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from typing import Any

from flows.generation_parameters import GenerationParameters
from flows.kept_parameters import keep_parameters
from flows.older_profiles import telling_of_older_profile
from models.devices import pick_device
from models.profiles import require_weights
from storage.card import write_card
from storage.commits import Commit
from storage.errors import EngineError, InputError
from storage.layout import SPEC_PATH
from storage.objects import open_objects
from storage.paths import local_path
from storage.plan import DatasetSpec, ShardRange, count_shards, shard_range
from storage.slices import Slice, resolve_slice
from storage.specification import Specification
from storage.store import Store
from storage.tallies import Tallies
from storage.vocabulary import load_vocabulary
from tasks.breaker import Breaker
from tasks.context import RunContext
from tasks.machine import Machine
from tasks.recipe import Recipe
from tasks.resident import ResidentModels
from tasks.reuse import Reuse
from tasks.stages import StageKeys
from tasks.work import ShardWork

MIN_FREE_BYTES = 200_000_000
"""A local run needs this much for its records, its logs and Prefect's database alone."""

_log = logging.getLogger(__name__)

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


class GenerationRun:
    """A run worked out from its parameters; made once, and passed on to the flow.

    Args:
        parameters: What to generate.
        recipe: How samples are made.
        classes: The slice.
        store: The dataset.
        keys: The keys of the stages' outputs.
        machine: Owns devices, models, progress and the stop of this run.

    Attributes:
        sizes: Planned samples of the shards that it makes, by name, as far as they are known.
        tallies: Counts what became of samples.
    """

    def __init__(
        self,
        parameters: GenerationParameters,
        recipe: Recipe,
        classes: Slice,
        *,
        store: Store,
        keys: StageKeys,
        machine: Machine,
    ) -> None:
        self.parameters = parameters
        self.recipe = recipe
        self.classes = classes
        self.store = store
        self.keys = keys
        self.machine = machine
        self.sizes: dict[str, int] = {}
        self.tallies = Tallies(store)

    @cached_property
    def spec(self) -> DatasetSpec:
        """What fixes the plan."""
        return self.parameters.spec

    @cached_property
    def planned(self) -> list[ShardRange]:
        """The shards asked for, in order; their samples are planned when they are made."""
        spec, samples = self.spec, self.parameters.samples
        chosen = select_shards(self.parameters.shards, count_shards(spec, samples))
        return [shard_range(spec, self.classes, index, samples) for index in chosen]

    @cached_property
    def finished(self) -> dict[str, Commit]:
        """The planned shards that were finished when this was first asked, by name."""
        return self.look()

    @property
    def todo(self) -> list[ShardRange]:
        """The other planned shards, in order."""
        return [shard for shard in self.planned if shard.name not in self.finished]

    def look(self, commits: Mapping[str, Commit] | None = None) -> dict[str, Commit]:
        """The planned shards that are finished now, by name.

        Args:
            commits: Records of finished shards by name; read now if they are not given.
        """
        if commits is None:
            commits = self.store.log.shards(self.classes.slice_id)
        return {
            shard.name: commits[shard.name]
            for shard in self.planned
            if shard.name in commits and self.store.covers(commits[shard.name], shard)
        }

    def whole(self) -> "GenerationRun":
        """The same run with all shards of the slice."""
        if self.parameters.shards.strip() == "all":
            return self
        return self._other(self.parameters.model_copy(update={"shards": "all"}), self.classes)

    def of_class(self, class_id: int, samples: int) -> "GenerationRun":
        """A run of the slice of one class alone, on the same machine and without a breaker.

        Args:
            class_id: Vocabulary index.
            samples: Samples of that slice.
        """
        vocabulary = load_vocabulary(self.spec.vocabulary)
        text = f"{class_id}:{class_id + 1}"
        classes = self.store.specification.named(resolve_slice(vocabulary, text))
        named = classes.model_copy(update={"label": vocabulary[class_id].name})
        # a class that yields little is no sign of trouble: that is why it gets extra samples
        changes = {"slice": text, "samples": samples, "shards": "all", "breaker_samples": 0}
        return self._other(self.parameters.model_copy(update=changes), named)

    def _other(self, parameters: GenerationParameters, classes: Slice) -> "GenerationRun":
        shared = {"store": self.store, "keys": self.keys, "machine": self.machine}
        other = GenerationRun(parameters, self.recipe, classes, **shared)
        other.spec = self.spec  # to find it anew would read the profile for each of many classes
        return other

    def work(self, shard: ShardRange) -> ShardWork:
        """One shard, to be made."""
        return ShardWork(self.context, self.keys, shard, self._reuse)

    def bring_card_up_to_date(self) -> None:
        """Write the dataset's card from what is committed, unless it says that already.

        At the end of every run, also of one that found nothing to do: a run that was killed after
        its last commit has left the card behind. A card that cannot be made stops nothing.
        """
        try:
            write_card(self.store)
        except EngineError as error:  # a full disk, or one that is read-only
            _log.warning("the card of %s was not written: %s", self.store.root, error)

    def keep_up_to_date(self) -> None:
        """Do what a run does at its beginning and end, where there is nothing to do between."""
        self.bring_card_up_to_date()
        try:
            self.keep_parameters()
        except EngineError as error:
            _log.warning("the parameters of %s were not kept: %s", self.store.root, error)

    @cached_property
    def context(self) -> RunContext:
        """What the work on all of its shards has in common."""
        return RunContext(
            self.machine,
            self.store,
            self.recipe,
            self.spec,
            self.classes,
            self.parameters.accept_failed,
            Breaker(self.parameters.breaker_samples, self.parameters.breaker_share),
        )

    @cached_property
    def _reuse(self) -> Reuse | None:
        place = self.parameters.reuse
        return Reuse(Store.open(place), self.spec, self.classes) if place else None

    def keep_parameters(self) -> None:
        """Let the dataset remember how its slice is made."""
        keep_parameters(self.store, self.classes.slice_id, self.parameters)

    @contextmanager
    def handed_on(self) -> Iterator[None]:
        """Let the flow that is called in this block work on this run instead of a new one."""
        token = _handed_on.set(self)
        try:
            yield
        finally:
            _handed_on.reset(token)


_handed_on: ContextVar[GenerationRun | None] = ContextVar("handed_on", default=None)


@contextmanager
def current_run(parameters: GenerationParameters) -> Iterator[GenerationRun]:
    """The run that was handed on with these parameters, or one that ends with the block.

    Raises:
        InputError: As `prepare`.
    """
    run = _handed_on.get()
    if run is not None and run.parameters == parameters:
        yield run
        return
    with prepare(parameters) as run:
        yield run


@contextmanager
def prepare(
    parameters: GenerationParameters, models: ResidentModels | None = None
) -> Iterator[GenerationRun]:
    """Check everything that can be checked before anything is paid for, and open the dataset.

    The run's machine ends with the block.

    Args:
        parameters: What to generate.
        models: Models of an earlier run to go on with.

    Raises:
        InputError: The parameters mean nothing, weights are missing, or the dataset that is there
            was made with other settings.
    """
    classes, recipe = _understood(parameters)
    recipe.profile.writer.check()
    require_weights(recipe.models())
    recipe.check_recording()
    require_space(parameters.root)
    if parameters.device not in {"auto", "cpu"}:  # these are always there
        pick_device(parameters.device)
    if parameters.reuse:
        Store.open(parameters.reuse)  # one that is not there is told before anything is made
    keys = StageKeys(recipe)
    with telling_of_older_profile(parameters, described):
        store = Store.create(parameters.root, _dataset_spec(parameters, keys))
    classes = store.specification.named(classes)
    with Machine(models, service_limit=parameters.writer_limit) as machine:
        yield GenerationRun(parameters, recipe, classes, store=store, keys=keys, machine=machine)


def require_space(root: str) -> int:
    """Check that a local root can be written to and has room for at least a small run.

    Returns:
        Free bytes; 0 for an object store, which has no such limit.

    Raises:
        InputError: The root cannot be written to, or its disk is nearly full.
    """
    if "://" in root:
        return 0
    existing = _nearest_folder(root)
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


def _nearest_folder(root: str) -> Path:
    """The folder that is there, of a local root and those above it."""
    place = local_path(root, "the root").absolute()
    existing = next(
        folder for folder in (place, *place.parents) if folder.exists() or folder.is_symlink()
    )
    if existing.is_symlink() and not existing.exists():
        message = f"root {root}: {existing} is a link to nothing; choose another root"
        raise InputError(message)
    if not existing.is_dir():
        message = f"root {root}: {existing} is a file, expected a folder; choose another root"
        raise InputError(message)
    return existing


def open_run(parameters: GenerationParameters) -> GenerationRun | None:
    """Like `prepare`, but without writing anything; nothing if there is no dataset yet.

    Raises:
        InputError: As `prepare`.
    """
    classes, recipe = _understood(parameters)
    if "://" not in parameters.root:
        _nearest_folder(parameters.root)
    if open_objects(parameters.root).size(SPEC_PATH) is None:
        return None
    store, keys = Store.open(parameters.root), StageKeys(recipe)
    with telling_of_older_profile(parameters, described):
        store.refuse_drift(_dataset_spec(parameters, keys))
    classes = store.specification.named(classes)
    return GenerationRun(parameters, recipe, classes, store=store, keys=keys, machine=Machine())


def named_slice(parameters: GenerationParameters) -> Slice:
    """The slice under the names that it would have in a new dataset.

    Raises:
        InputError: As `prepare`.
    """
    classes, _ = _understood(parameters)
    return Specification(described(parameters)).named(classes)


def _understood(parameters: GenerationParameters) -> tuple[Slice, Recipe]:
    spec = parameters.spec
    classes = resolve_slice(load_vocabulary(spec.vocabulary), parameters.slice)
    select_shards(parameters.shards, count_shards(spec, parameters.samples))
    return classes, parameters.recipe


def described(parameters: GenerationParameters) -> dict[str, Any]:
    """Everything that the samples of a dataset depend on, as its specification has it.

    Raises:
        InputError: If weights are missing.
    """
    return _dataset_spec(parameters, StageKeys(parameters.recipe))


def _dataset_spec(parameters: GenerationParameters, keys: StageKeys) -> dict[str, Any]:
    """Everything that the samples of a dataset depend on; guards every resume."""
    vocabulary = load_vocabulary(parameters.spec.vocabulary)
    return {
        "plan": parameters.spec.model_dump(mode="json"),
        "vocabulary": vocabulary.digest,
        "stages": keys.describe(),
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
                f"shards {text!r}: {part.strip()!r} is not a shard of this slice, expected all, or "
                f"indices and ranges up to {count - 1} such as 0-3,7"
            )
            raise InputError(message)
        chosen.update(range(first, last + 1))
    return sorted(chosen)
