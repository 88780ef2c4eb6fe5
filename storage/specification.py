"""A dataset's specification: what every sample of it depends on, written once and never changed.

Its scheme says how samples are named. Scheme 1 names them by their classes alone, so that two
datasets of one slice have the same names; scheme 2 by the dataset too. New datasets have scheme 2,
those of scheme 1 are gone on with as they are.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from pydantic import BaseModel, Field, StrictFloat, StrictInt, StrictStr, ValidationError

from storage.documents import explain
from storage.errors import DataError, InputError
from storage.identity import canonical_json, digest, refuse_drift
from storage.layout import CARD_PATH, SPEC_COPY_PATH, SPEC_PATH
from storage.objects import ObjectStore
from storage.records import Stage
from storage.slices import Slice
from storage.specification_copies import keep_copy, require_whole, seal

MERGED = "merged"
"""Of a merge: the specifications of the datasets that it was made from, by their ids."""

_BY_CLASSES, _BY_DATASET = 1, 2
_SCHEMES = (_BY_CLASSES, _BY_DATASET)


@dataclass(frozen=True)
class Specification:
    """What a dataset is made of.

    Attributes:
        contents: JSON-like; what every sample depends on.
        scheme: How samples are named.
    """

    contents: dict[str, Any]
    scheme: int = _BY_DATASET

    @property
    def dataset_id(self) -> str:
        """Stands for everything that the samples depend on, 64 hex digits."""
        return digest(_without_packing(self.contents))

    @property
    def stages(self) -> list[Stage]:
        """The stages that its samples pass, in order; of a merge, those of any of its datasets."""
        merged: dict[str, dict[str, Any]] = self.contents.get(MERGED) or {}
        named: set[str] = set()
        for spec in (self.contents, *merged.values()):
            named.update(spec.get("stages") or {})
        return [stage for stage in Stage if not stage.is_optional or stage in named]

    @property
    def by_dataset(self) -> bool:
        """Whether the dataset has a part in the names of its samples."""
        return self.scheme != _BY_CLASSES

    def named(self, classes: Slice) -> Slice:
        """A slice under the names that it has in this dataset."""
        return classes.of_dataset(self.dataset_id) if self.by_dataset else classes


class _Versioned(BaseModel, frozen=True):
    """What every scheme has."""

    scheme: StrictInt
    """Which rules make keys and seeds."""


class _Plan(BaseModel, frozen=True):
    """Of the plan, what readers of a dataset use."""

    vocabulary: StrictStr
    """What the samples' classes are of."""


class _Contents(BaseModel, frozen=True):
    """Of what every sample depends on, what readers of a dataset use."""

    plan: _Plan | None = None
    """What fixes the plan."""
    min_yield: StrictFloat = Field(default=0.0, ge=0, le=1)
    """Smallest share of written samples of a good shard."""


class _Specification(_Versioned, frozen=True):
    """The file as this scheme has it."""

    spec: _Contents
    """What every sample depends on."""


def write_specification(objects: ObjectStore, spec: Mapping[str, Any]) -> Specification:
    """Create the specification, or check that the same one is there.

    Args:
        objects: The root.
        spec: JSON-like; what every sample depends on.

    Returns:
        The specification as it is read back.

    Raises:
        InputError: The root holds a dataset with another specification (the message says what
            differs), or a README.md of somebody else.
    """
    if objects.size(SPEC_COPY_PATH) is not None:
        require_whole(objects)
    if objects.size(SPEC_PATH) is None and objects.size(CARD_PATH) is not None:
        message = (
            f"{objects.url} has a {CARD_PATH} but no dataset of this engine; the card would "
            "replace it: choose an empty folder as root"
        )
        raise InputError(message)
    contents = seal(_BY_DATASET, spec)
    if objects.write_new(SPEC_PATH, contents):
        keep_copy(objects)
        return Specification(json.loads(contents)["spec"])
    found = read_specification(objects)
    check_specification(objects.url, found.contents, spec)
    keep_copy(objects)
    return found


def read_specification(objects: ObjectStore) -> Specification:
    """Read the specification of the dataset in a root.

    Raises:
        DataError: It cannot be read, or is not as it was written.
        InputError: There is no dataset, or one of another identity scheme.
    """
    require_whole(objects)
    try:
        text = objects.read(SPEC_PATH)
    except FileNotFoundError as error:
        message = f"there is no dataset in {objects.url}; make one with 'magicseg generate'"
        raise InputError(message) from error
    place = f"{objects.url}/{SPEC_PATH}"
    scheme = _read(_Versioned, text, place).scheme
    if scheme not in _SCHEMES:
        message = (
            f"{objects.url} was made with identity scheme {scheme}, this engine knows "
            f"{' and '.join(map(str, _SCHEMES))}; use the engine version that made it, or another "
            "root"
        )
        raise InputError(message)
    _read(_Specification, text, place)
    return Specification(json.loads(text)["spec"], scheme)


FileT = TypeVar("FileT", bound=BaseModel)


def _read(kind: type[FileT], text: bytes, place: str) -> FileT:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        message = f"{place} cannot be read ({explain(kind, error)}); restore it from a copy"
        raise DataError(message) from error


def check_specification(url: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse to go on with a dataset that was made with other settings.

    Args:
        url: Where the dataset is.
        old: What it was made with.
        new: What is asked for, JSON-like.

    Raises:
        InputError: They differ; says in what.
    """
    if MERGED in old and MERGED not in new:
        message = (
            f"{url} is a merge of datasets, into which nothing is generated: generate into one of "
            "them, and merge again"
        )
        raise InputError(message)
    if MERGED in new and old.get(MERGED) != new[MERGED]:
        kind = "a merge of other datasets" if MERGED in old else "a dataset of its own"
        message = f"{url} holds {kind}: choose another folder for the merge"
        raise InputError(message)
    refuse_drift(
        f"{url} holds a dataset made with other settings",
        _without_packing(old),
        _without_packing(json.loads(canonical_json(new))),
        way_out="Go back to the old values to resume it, or choose another root for the new ones",
    )


def _without_packing(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The specification without the size of its tars, which no sample depends on."""
    plan = spec.get("plan")
    if not isinstance(plan, Mapping):
        return dict(spec)
    fields = cast("Mapping[str, Any]", plan)
    kept = {name: value for name, value in fields.items() if name != "samples_per_shard"}
    return {**spec, "plan": kept}
