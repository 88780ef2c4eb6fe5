"""YAML files and settings that people write, checked against a model."""

import copy
import difflib
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError

from storage.errors import InputError
from storage.yaml_text import parse_value, parse_yaml, spelling

ModelT = TypeVar("ModelT", bound=BaseModel)

_MOST_FAULTS = 5
_LONGEST_VALUE = 200
_WANTS_TEXT = frozenset({"string_type", "path_type"})
"""Errors of pydantic that say that a text was expected."""


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping, as `storage.yaml_text` describes it.

    Raises:
        InputError: If the file cannot be read, is not YAML, or holds something else.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        message = f"{file} cannot be read ({error.strerror}); give the path of a YAML file"
        raise InputError(message) from error
    except ValueError as error:
        message = f"{file} is not YAML: {error}"
        raise InputError(message) from error
    document = parse_yaml(text, str(file))
    if not isinstance(document, dict):
        message = f"{file} holds a {type(document).__name__}, expected a mapping of names to values"
        raise InputError(message)
    return cast("dict[str, Any]", document)


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
            return kind.model_validate(document)
        except ValidationError as error:
            respelt = None
            if isinstance(document, Mapping):
                respelt = _respelt(cast("Mapping[str, Any]", document), error)
            if respelt is None:
                message = f"{where}: {explain(kind, error)}"
                raise InputError(message) from error
            document = respelt


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
    lines = [_explain(kind, detail["loc"], detail) for detail in error.errors(include_url=False)]
    more = [f"and {len(lines) - _MOST_FAULTS} more"] if len(lines) > _MOST_FAULTS else []
    return "; ".join(lines[:_MOST_FAULTS] + more)


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
    found = repr(detail["input"])
    found = found if len(found) <= _LONGEST_VALUE else f"{found[:_LONGEST_VALUE]}..."
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
    kind: type[ParametersT], file: Path | None, values: Mapping[str, Any]
) -> ParametersT:
    """Read parameters from a YAML file and from single values, which win.

    Args:
        kind: Which parameters.
        file: YAML file, or nothing.
        values: By name; dots reach into nested models (`masks.min_area`).

    Raises:
        InputError: If the file is not a YAML mapping, a key is unknown, or a value does not fit;
            says where, and what is close to an unknown key.
    """
    document = nest(values, read_yaml(file) if file else {})
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
