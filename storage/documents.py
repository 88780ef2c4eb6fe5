"""Documents that people write: YAML files and values for a model, with errors in words."""

import difflib
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from storage.errors import InputError

ModelT = TypeVar("ModelT", bound=BaseModel)


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        InputError: If the file cannot be read, is no YAML, or holds something else.
    """
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"{file} cannot be read ({error.strerror}); give the path of a YAML file"
        raise InputError(message) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        message = f"{file} is no YAML: {' '.join(str(error).split())}"
        raise InputError(message) from error
    if not isinstance(document, dict):
        message = f"{file} holds a {type(document).__name__}, expected a mapping of names to values"
        raise InputError(message)
    return document


def validate(kind: type[ModelT], document: Mapping[str, Any], where: str) -> ModelT:
    """Make a model of a document.

    Args:
        kind: Which model.
        document: JSON-like values.
        where: What messages call the source.

    Raises:
        InputError: If a key is unknown or missing, or a value does not fit; says where, and what
            comes close to an unknown key.
    """
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        lines = [_explain(kind, detail["loc"], dict(detail)) for detail in error.errors()]
        message = f"{where}: {'; '.join(lines)}"
        raise InputError(message) from error


def suggest(value: str, known: Iterable[str]) -> str:
    """Name what comes close to an unknown value, and what else is known."""
    names = sorted(known)
    near = difflib.get_close_matches(value, names, n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{hint}known: {', '.join(names)}"


def _explain(kind: type[BaseModel], loc: tuple[Any, ...], detail: Mapping[str, Any]) -> str:
    path, known = _walk(kind, loc)
    name = ".".join(map(str, path))
    if detail["type"] == "extra_forbidden":
        return f"unknown key {name!r}; {suggest(str(loc[-1]), known)}"
    if detail["type"] == "missing":
        return f"{name!r} is missing"
    problem = detail["msg"].removeprefix("Value error, ")
    return f"{name!r} is {detail['input']!r}: {problem}" if name else problem


def _walk(kind: type[BaseModel], loc: tuple[Any, ...]) -> tuple[list[Any], list[str]]:
    """Follow an error's location.

    Returns:
        The keys as they stand in the document (pydantic adds the tag of a union's member), and the
        fields that are known where the last key stands.
    """
    models: list[type[BaseModel]] = [kind]
    path: list[Any] = []
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
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in {Union, types.UnionType}:
        return [model for inner in get_args(annotation) for model in _members(inner)]
    return []


def _tags(model: type[BaseModel]) -> set[Any]:
    """The values that tell a union's member from the others."""
    fields = model.model_fields.values()
    return {field.default for field in fields if isinstance(field.default, str)} | {model.__name__}
