"""The form of a language model's answer: how it is demanded, and how it is read."""

import json
import re
from typing import Any, Literal

AnswerFormat = Literal["schema", "json", "text"]
"""How an answer's form is demanded: by a strict JSON schema, as any JSON, or in words alone."""

RESPONSE_FORMATS: dict[AnswerFormat, dict[str, Any] | None] = {
    "schema": {
        "type": "json_schema",
        "json_schema": {
            "name": "captions",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {"texts": {"type": "array", "items": {"type": "string"}}},
                "required": ["texts"],
                "additionalProperties": False,
            },
        },
    },
    "json": {"type": "json_object"},
    "text": None,
}
"""The field `response_format` of each form; the words ask for ``{"texts": [...]}`` in all."""

_ARRAY = re.compile(r'"texts"\s*:\s*\[')
_STRING = re.compile(r'\s*,?\s*("(?:[^"\\]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")')


def read_texts(content: str) -> list[str] | None:
    """Read the texts out of an answer.

    A cut-off answer gives the texts that are whole; fences or words around the JSON do no harm.

    Returns:
        The texts, or None if there is no list of texts in it.
    """
    array = _ARRAY.search(content)
    if array is None:
        return None
    texts, position = [], array.end()
    while string := _STRING.match(content, position):
        texts.append(whole_characters(json.loads(string[1], strict=False)))
        position = string.end()
    return texts


def whole_characters(text: str) -> str:
    """Put the replacement character for each half of a pair of UTF-16 code units.

    Models that are cut off, or that write escapes by themselves, leave such halves; no file can
    hold them.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
