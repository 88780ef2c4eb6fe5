"""Kept parameters: with what each slice of a dataset was generated last, and how to type that."""

import json
import shlex
from pathlib import Path
from typing import Any

from flows.generation_parameters import GenerationParameters
from storage.documents import validate
from storage.errors import InputError
from storage.identity import canonical_json
from storage.layout import PARAMETER_FOLDER
from storage.slices import resolve_slice
from storage.store import Store
from storage.vocabulary import load_vocabulary

_OPTIONS = ("slice", "samples", "profile", "shards")
"""The options of `magicseg generate`, `--root` apart; everything else goes through `--set`."""


def keep_parameters(store: Store, slice_id: str, parameters: GenerationParameters) -> None:
    """Keep the parameters of a run for the next one on the same slice.

    Where the dataset lies is left out, for it may move; keys of services are never in them.

    Args:
        store: The dataset.
        slice_id: 8 hex digits.
        parameters: Those of the run.
    """
    document = parameters.model_dump(mode="json", exclude={"root"})
    if Path(parameters.profile).suffix in {".yaml", ".yml"}:
        document["profile"] = str(Path(parameters.profile).expanduser().absolute())
    path, data = _path(slice_id), canonical_json(document)
    try:
        if store.objects.read(path) == data:
            return
    except FileNotFoundError:
        pass
    store.objects.replace(path, data)


def kept_parameters(store: Store, root: str, slice_id: str) -> GenerationParameters | None:
    """The parameters of the last run on a slice; nothing if none were kept.

    Args:
        store: The dataset.
        root: What to call it.
        slice_id: 8 hex digits.

    Raises:
        InputError: They cannot be read.
    """
    path = _path(slice_id)
    try:
        text = store.objects.read(path)
    except FileNotFoundError:
        return None
    where = f"{store.root}/{path}"
    try:
        document = json.loads(text)
        if not isinstance(document, dict):
            document = {"parameters": document}
        return validate(GenerationParameters, {**document, "root": root}, where)
    except (ValueError, InputError) as error:
        message = (
            f"{where} cannot be used ({error}); run 'magicseg generate' with the parameters of "
            "the slice, which writes it anew"
        )
        raise InputError(message) from error


def known_slices(store: Store) -> dict[str, str]:
    """The slices of a dataset, by id, each with what it was called last (or nothing)."""
    prefix = f"{PARAMETER_FOLDER}/"
    kept = [path for path in store.objects.paths(PARAMETER_FOLDER) if path.endswith(".json")]
    labels = dict.fromkeys((status.slice_id for status in store.status()), "")
    for path in kept:
        slice_id = path.removeprefix(prefix).removesuffix(".json")
        found = kept_parameters(store, store.root, slice_id)
        labels[slice_id] = found.slice if found else ""
    return labels


def find_slice(store: Store, text: str) -> str:
    """Find a slice of a dataset by its id, or by what `--slice` of generate would be.

    Returns:
        Its id.

    Raises:
        InputError: The dataset has no such slice; says which there are.
    """
    known = known_slices(store)
    if text in known:
        return text
    try:
        classes = resolve_slice(load_vocabulary(store.vocabulary), text)
        slice_id = store.specification.named(classes).slice_id
    except InputError as error:
        message = f"{store.root} has no slice {text!r}, it has {_named(known)} ({error})"
        raise InputError(message) from error
    if slice_id not in known:
        message = f"{store.root} has no slice {text!r} ({slice_id}), it has {_named(known)}"
        raise InputError(message)
    return slice_id


def only_slice(store: Store) -> str:
    """The id of the only slice of a dataset.

    Raises:
        InputError: There are none, or several.
    """
    known = known_slices(store)
    if len(known) != 1:
        message = (
            f"{store.root} has {len(known)} slices, expected one: name it by --slice, one of "
            f"{_named(known)}"
            if known
            else f"{store.root} has no slice yet; make one with 'magicseg generate'"
        )
        raise InputError(message)
    return next(iter(known))


def command_line(parameters: GenerationParameters) -> str:
    """The command line that generates with these parameters; every shell reads it as it stands."""
    whole: dict[str, Any] = parameters.model_dump(mode="json")
    given: dict[str, Any] = parameters.model_dump(mode="json", exclude_defaults=True)
    for name in given:
        if isinstance(whole[name], dict) and "kind" in whole[name]:
            given[name] = whole[name]  # the kind tells which fields there are, default or not
    words = ["magicseg", "generate", "--root", parameters.root]
    for name in _OPTIONS:
        if name in given:
            words += [f"--{name}", str(given[name])]
    settings = {name: value for name, value in given.items() if name not in {"root", *_OPTIONS}}
    for name, value in settings.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        words += ["--set", f"{name}={text}"]
    return shlex.join(words)


def _path(slice_id: str) -> str:
    return f"{PARAMETER_FOLDER}/{slice_id}.json"


def _named(known: dict[str, str]) -> str:
    named = [f"{slice_id} ({label})" if label else slice_id for slice_id, label in known.items()]
    return ", ".join(named) or "none"
