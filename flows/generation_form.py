"""The form of generation: the parameters of its flows, as Prefect's user interface shows them.

Prefect merges the parameters of a deployment with those of a run at the top level alone. So what
people change from run to run lies there, one value each, and a run that names a slice alone keeps
everything else as it was deployed; the rest is in one group, `advanced`.
"""

from typing import Annotated, Any

from pydantic import Field

from flows.generation_parameters import AdvancedSettings, GenerationParameters
from storage.slices import SLICE_NAMES
from storage.vocabulary import VOCABULARIES, load_vocabulary

__all__ = ["form_values"]

SliceName = Annotated[str, Field(json_schema_extra={"enum": list(SLICE_NAMES)})]
"""A named slice: a drop-down, and refused by the server if it is another one.

Callers in Python may give any slice: pydantic takes every text.
"""

SliceNames = Annotated[
    tuple[str, ...],
    Field(json_schema_extra={"items": {"type": "string", "enum": list(SLICE_NAMES)}}),
]
"""Named slices."""

# inside anyOf a wrong name is told alone, not followed by more than a thousand right ones
_CLASS_NAME: Any = {
    "type": "string",
    "anyOf": [{"enum": [each.name for each in load_vocabulary(name)]} for name in VOCABULARIES],
}

ClassNames = Annotated[
    tuple[str, ...],
    Field(json_schema_extra={"items": _CLASS_NAME}),
]
"""Class names of the vocabularies; others are refused by the server."""

Shards = Annotated[str, Field(pattern=r"^\s*(all|\d+(-\d+)?(\s*,\s*\d+(-\d+)?)*)\s*$")]
"""`all`, or indices and ranges such as `0-3,7`."""


def read_form(
    *,
    slice: str,  # noqa: A002 - what users call it
    classes: tuple[str, ...],
    advanced: AdvancedSettings,
    **values: Any,
) -> GenerationParameters:
    """The parameters that a filled-in form means.

    Args:
        slice: A slice.
        classes: Classes to take instead of it, if any are given.
        advanced: The settings of the group.
        **values: The other fields, as `GenerationParameters` names them.
    """
    text = ", ".join(classes) if classes else slice
    settings = {name: getattr(advanced, name) for name in AdvancedSettings.model_fields}
    return GenerationParameters(slice=text, **values, **settings)


def form_values(parameters: GenerationParameters) -> dict[str, Any]:
    """The form that means these parameters: what the flow `generate-dataset` is called with."""
    rare = AdvancedSettings.model_fields.keys()
    values = {name: getattr(parameters, name) for name in type(parameters).model_fields}
    advanced = AdvancedSettings.model_validate({name: values[name] for name in rare})
    return {name: value for name, value in values.items() if name not in rare} | {
        "advanced": advanced
    }
