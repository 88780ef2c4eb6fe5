"""YAML files and settings that people write, checked against a model."""

import copy
import difflib
import math
import os
import select
import stat
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError

from storage.errors import DataError, InputError
from storage.paths import local_path
from storage.texts import decode_text
from storage.yaml_text import parse_value, parse_yaml, spelling

ModelT = TypeVar("ModelT", bound=BaseModel)

MAX_BYTES = 4_000_000
"""A larger file is refused: nobody has written it, and `/dev/zero` has no end."""
_WRITER_SECONDS = 2
_MOST_FAULTS = 5
_LONGEST_VALUE = 200
_WANTS_TEXT = frozenset({"string_type", "path_type"})
"""Errors of pydantic that say that a text was expected."""


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping, as `storage.yaml_text` describes it.

    Raises:
        InputError: If the file cannot be read, is not YAML, or holds something else.
    """
    document = parse_yaml(_read_text(local_path(file, "the YAML file")), str(file))
    if not isinstance(document, dict):
        message = f"{file} holds a {type(document).__name__}, expected a mapping of names to values"
        raise InputError(message)
    return cast("dict[str, Any]", document)


def _read_text(file: Path) -> str:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb") as opened:  # noqa: PTH123 - of a descriptor
            _await_writer(descriptor, file)
            os.set_blocking(descriptor, True)
            contents = opened.read(MAX_BYTES + 1)
    except OSError as error:
        message = f"{file} cannot be read ({error.strerror}); give the path of a YAML file"
        raise InputError(message) from error
    if len(contents) > MAX_BYTES:
        message = (
            f"{file} is not YAML for people: it has more than {MAX_BYTES} bytes; give the path of "
            "another file"
        )
        raise InputError(message)
    try:
        return decode_text(contents, "the text")
    except DataError as error:
        message = f"{file} is not YAML: {error}"
        raise InputError(message) from error


def _await_writer(descriptor: int, file: Path) -> None:
    """Wait a moment until somebody writes into a pipe; a plain open would wait without end."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    if stat.S_ISFIFO(os.fstat(descriptor).st_mode) and not waiting.poll(_WRITER_SECONDS * 1000):
        message = f"{file} is a pipe into which nobody writes; give the path of a YAML file"
        raise InputError(message)


def validate(kind: type[ModelT], document: object, where: str) -> ModelT:
    """Make a model of a document.

    Where the model wants text, a number or a truth value counts as the text that was written.

    Args:
        kind: Which model.
        document: JSON-like values.
        where: What messages call the source.

    Raises:
        InputError: If a key is unknown or missing, or a value does not fit; says where, and what
            comes close to an unknown key.
    """
    while True:
        try:
            model = kind.model_validate(document)
            break
        except ValidationError as error:
            respelt = None
            if isinstance(document, Mapping):
                respelt = _respelt(cast("Mapping[str, Any]", document), error)
            if respelt is None:
                message = f"{where}: {explain(kind, error)}"
                raise InputError(message) from error
            document = respelt
    if faults := list(_odd_values(document, model, "")):
        message = f"{where}: {_listed(faults)}"
        raise InputError(message)
    return model


def _odd_values(written: Any, read: Any, name: str) -> Iterator[str]:
    """What pydantic takes and nobody means: truth as a number, NaN, NUL in a text.

    Args:
        written: The document, or a part of it.
        read: What the model made of that; anything where the model does not look inside.
        name: Its dotted name.
    """
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(written, Mapping):
        inner = cast("Mapping[Any, Any]", written).items()
    elif isinstance(written, list):
        inner = enumerate(cast("list[Any]", written))
    elif expected := _expected(written, read):
        found = repr(written) if isinstance(written, str) else spelling(written)
        yield f"{name!r} is {_shortened(found)}, expected {expected}"
    for key, value in inner:
        yield from _odd_values(value, _part(read, key), f"{name}.{key}".lstrip("."))


def _expected(written: Any, read: Any) -> str:
    """What was expected instead of a single value; nothing if it can be meant."""
    is_number = isinstance(read, int | float) and not isinstance(read, bool)
    if isinstance(written, bool):
        return "a number" if is_number else ""
    if isinstance(written, float):
        return "" if math.isfinite(written) else "a finite number"
    if isinstance(written, int):
        return "" if abs(written) < 2**63 else "a number below 2**63"
    return (
        "a text without the character NUL" if isinstance(written, str) and "\0" in written else ""
    )


def _part(read: Any, key: Any) -> Any:
    if isinstance(read, BaseModel):
        return getattr(read, str(key), None)
    if isinstance(read, Mapping):
        return cast("Mapping[Any, Any]", read).get(key)
    if isinstance(read, list | tuple):
        return dict(enumerate(cast("Iterable[Any]", read))).get(key)
    return None


def _respelt(document: Mapping[str, Any], error: ValidationError) -> dict[str, Any] | None:
    """The document with text where text is wanted; nothing if that changes nothing."""
    places = [
        _place(document, detail["loc"])
        for detail in error.errors()
        if detail["type"] in _WANTS_TEXT and isinstance(detail["input"], bool | int | float)
    ]
    if not any(places):
        return None
    respelt = copy.deepcopy(dict(document))
    for path in filter(None, places):
        holder: Any = respelt
        for part in path[:-1]:
            holder = holder[part]
        if not isinstance(holder[path[-1]], str):  # a union may have said it twice
            holder[path[-1]] = spelling(holder[path[-1]])
    return respelt


def _place(document: Any, loc: tuple[Any, ...]) -> tuple[Any, ...]:
    """Where an error's location is in the document; empty if no single value is there."""
    path: list[Any] = []
    inner: Any = document
    for part in loc:  # a union adds the names of its members, which the document does not have
        inside = isinstance(inner, Mapping) and part in inner
        if inside or (isinstance(inner, list) and isinstance(part, int)):
            inner = cast("Any", inner)[part]
            path.append(part)
    return tuple(path) if isinstance(inner, bool | int | float) else ()


def explain(kind: type[BaseModel] | None, error: ValidationError) -> str:
    """Explain what does not fit a model.

    Args:
        kind: The model, from which close names are suggested; nothing for a union of models.
        error: What pydantic found.

    Returns:
        At most five faults between semicolons, and how many more there are.
    """
    return _listed([_explain(kind, each["loc"], each) for each in error.errors(include_url=False)])


def _listed(faults: list[str]) -> str:
    more = [f"and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
    return "; ".join(faults[:_MOST_FAULTS] + more)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def suggest(value: str, known: Iterable[str]) -> str:
    """Name what comes close to an unknown value, and what else is known."""
    names = sorted(known)
    near = difflib.get_close_matches(value, names, n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{hint}known: {', '.join(names)}"


def _explain(
    kind: type[BaseModel] | None, loc: tuple[int | str, ...], detail: Mapping[str, Any]
) -> str:
    path, known = (list(loc), []) if kind is None else _walk(kind, loc)
    name = ".".join(map(str, path))
    if detail["type"] == "extra_forbidden":
        return f"unknown key {name!r}" + (f"; {suggest(str(loc[-1]), known)}" if known else "")
    if detail["type"] == "missing":
        return f"{name!r} is missing"
    problem = detail["msg"].removeprefix("Value error, ")
    found = _shortened(repr(detail["input"]))
    return f"{name!r} is {found}: {problem}" if name else problem


def _walk(kind: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[list[int | str], list[str]]:
    """Follow an error's location.

    Returns:
        The keys as they stand in the document (pydantic adds the tag of a union's member), and the
        fields that are known where the last key stands.
    """
    models: list[type[BaseModel]] = [kind]
    path: list[int | str] = []
    known: list[str] = []
    for part in loc:
        tagged = [model for model in models if part in _tags(model)]
        if len(models) > 1 and tagged:
            models = tagged
            continue
        path.append(part)
        known = list(dict.fromkeys(name for model in models for name in model.model_fields))
        fields = [model.model_fields.get(str(part)) for model in models]
        models = [inner for field in fields if field for inner in _members(field.annotation)]
    return path, known


def _members(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation may hold."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in {Union, types.UnionType}:
        return [model for inner in get_args(annotation) for model in _members(inner)]
    return []


def _tags(model: type[BaseModel]) -> set[Any]:
    """The values that tell a union's member from the others."""
    fields = model.model_fields.values()
    return {field.default for field in fields if isinstance(field.default, str)} | {model.__name__}


ParametersT = TypeVar("ParametersT", bound=BaseModel)


def read_parameters(
    kind: type[ParametersT],
    file: Path | None,
    values: Mapping[str, Any],
    usual: Mapping[str, Any] | None = None,
) -> ParametersT:
    """Read parameters from a YAML file and from single values, which win.

    Args:
        kind: Which parameters.
        file: YAML file, or nothing.
        values: By name; dots reach into nested models (`masks.min_area`).
        usual: What neither of them needs to say.

    Raises:
        InputError: If the file is not a YAML mapping, a key is unknown, or a value does not fit;
            says where, and what is close to an unknown key.
    """
    written = read_yaml(file) if file else {}
    document = nest(values, {**(usual or {}), **written})
    return validate(kind, document, str(file) if file else "parameters")


def nest(values: Mapping[str, Any], document: dict[str, Any] | None = None) -> dict[str, Any]:
    """Put values under dotted names into nested mappings.

    Args:
        values: By name, such as `optimiser.steps`.
        document: Where to put them; an empty one if none is given.

    Raises:
        InputError: If a name reaches into a value that holds nothing.
    """
    document = {} if document is None else document
    for name, value in values.items():
        _put(document, name.split("."), value, name)
    return document


def merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two nested mappings; where both have a value the second wins."""
    merged = dict(low)
    for name, value in high.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = merge(merged[name], cast("Mapping[str, Any]", value)) if nested else value
    return merged


def read_assignments(texts: Iterable[str]) -> dict[str, Any]:
    """Read settings `a.b=value`, each by `split_assignment`.

    Raises:
        InputError: As `split_assignment`; and if a name is set twice.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, value = split_assignment(text)
        if name in values:
            message = f"{name!r} is set twice, the second time by {text!r}; keep one of them"
            raise InputError(message)
        values[name] = value
    return values


def split_assignment(text: str) -> tuple[str, Any]:
    """Split `a.b=value`; the value is read as `storage.yaml_text.parse_value` says.

    Raises:
        InputError: If there is no `=`, or a value that begins as a list, a mapping or a quoted text
            is none.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        message = f"{text!r} sets nothing, expected name=value such as masks.min_area=0.01"
        raise InputError(message)
    return name.strip(), parse_value(value, f"the value of {text!r}")


def _put(document: dict[str, Any], path: list[str], value: Any, name: str) -> None:
    for part in path[:-1]:
        inner: Any = document.setdefault(part, {})
        if not isinstance(inner, dict):
            message = f"{name} cannot be set: {part} holds a single value"
            raise InputError(message)
        document = cast("dict[str, Any]", inner)
    document[path[-1]] = value
