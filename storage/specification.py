"""A dataset's specification: what every sample of it depends on, written once and never changed."""

import json
from collections.abc import Mapping
from typing import Any, cast

from storage.errors import DataError, InputError
from storage.identity import SCHEME, canonical_json, refuse_drift
from storage.layout import CARD_PATH, SPEC_COPY_PATH, SPEC_PATH
from storage.objects import ObjectStore
from storage.specification_copies import keep_copy, require_whole, seal


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
    try:
        contents = json.loads(text)
        scheme, spec = contents["scheme"], contents["spec"]
    except (ValueError, KeyError, TypeError) as error:
        message = f"{objects.url}/{SPEC_PATH} cannot be read ({error}); restore it from a copy"
        raise DataError(message) from error
    if scheme != SCHEME:
        message = (
            f"{objects.url} was made with identity scheme {scheme}, this engine has {SCHEME}; "
            "use the engine version that made it, or another root"
        )
        raise InputError(message)
    return spec


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
