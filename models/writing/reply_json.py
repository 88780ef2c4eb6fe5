"""The JSON of replies, as files can hold it: every reply was paid, whatever stands in it."""

import json
import math
from typing import Any

from models.writing.instructions import whole_characters

_MOST_DEPTH = 64
"""Values that may lie in one another; what reads the ledger takes no more than some hundred."""


def read_reply_json(text: str | bytes) -> Any:
    """Parse the JSON of a reply.

    What no file can hold is replaced: halves of characters, numbers without end, and values that
    lie too deep in one another, which become a text.

    Raises:
        ValueError: It is no JSON.
    """
    try:
        return _storable(json.loads(text, parse_constant=str), _MOST_DEPTH)
    except RecursionError as error:
        message = "the values lie in one another without end"
        raise ValueError(message) from error


def _storable(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return whole_characters(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if not isinstance(value, list | dict):
        return value
    if not depth:
        return "(too deep)"
    if isinstance(value, list):
        return [_storable(item, depth - 1) for item in value]
    return {whole_characters(name): _storable(item, depth - 1) for name, item in value.items()}
