"""A dataset's specification: what every sample of it depends on, written once and never changed."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from pydantic import BaseModel, Field, StrictFloat, StrictInt, StrictStr, ValidationError

from storage.documents import explain
from storage.errors import DataError, InputError
from storage.identity import SCHEME, canonical_json, refuse_drift
from storage.layout import CARD_PATH, SPEC_COPY_PATH, SPEC_PATH
from storage.objects import ObjectStore
from storage.specification_copies import keep_copy, require_whole, seal


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


def write_specification(objects: ObjectStore, spec: Mapping[str, Any]) -> dict[str, Any]:
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
    contents = seal(SCHEME, spec)
    if objects.write_new(SPEC_PATH, contents):
        keep_copy(objects)
        return json.loads(contents)["spec"]
    found = read_specification(objects)
    check_specification(objects.url, found, spec)
    keep_copy(objects)
    return found


def read_specification(objects: ObjectStore) -> dict[str, Any]:
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
    if scheme != SCHEME:
        message = (
            f"{objects.url} was made with identity scheme {scheme}, this engine has {SCHEME}; "
            "use the engine version that made it, or another root"
        )
        raise InputError(message)
    _read(_Specification, text, place)
    return json.loads(text)["spec"]


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
