"""What a language model is told to write."""

from collections.abc import Sequence
from typing import Any, Literal

from models.protocols import TextRequest
from storage.vocabulary import ClassRecord

INSTRUCTIONS_VERSION = "1"
"""Part of a request's identity: raised when the words below change what is asked for."""

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

_SYSTEM = (
    "You write captions for a text-to-image model. Each caption describes one picture that could "
    'be a photograph. Answer with JSON of the form {"texts": ["..."]} and nothing else.'
)
_RULES = (
    "Every caption names {each} literally, with one of the words given for it, singular or plural. "
    "A synonym or a mere hint is not enough.",
    "12 to 45 words in one or two plain English sentences; no numbering, no headings.",
    "Give {the} visible attributes: colour, material, size, shape, age, posture or action.",
    "Never use an empty or uniform background. Describe a rich one: the place, what else can be "
    "seen there, weather, light, time of day.",
    "Make the captions as different from each other as you can: other places, other compositions, "
    "other viewpoints, other moods, other beginnings of the sentence.",
    "A sense given below explains which thing is meant; do not write it down, and write no "
    "parentheses.",
)
_MAX_FORMS = 6
_MAX_AVOIDED = 20


def chat_messages(request: TextRequest, count: int) -> list[dict[str, str]]:
    """Put a request into words.

    The substance is that of MagicSeg (arXiv 2603.19575): complex backgrounds, diverse
    scenes, attributes of each object. That the words must be literal is for the masks' sake: a
    class that is not named cannot be taken out of the counterfactual text.

    Args:
        request: The classes, and the texts that exist already.
        count: How many captions to ask for.
    """
    several = len(request.classes) > 1
    words = {"each": "each object" if several else "the object"}
    words["the"] = "the objects" if several else "the object"
    lines = [f"Write {count} captions. Each of them shows all of this in one picture:"]
    lines += [f"- {_described(record)}" for record in request.classes]
    lines += ["Rules:"]
    lines += [f"{number}. {rule.format(**words)}" for number, rule in enumerate(_RULES, start=1)]
    if request.avoid:
        lines += ["These captions exist already; write none that resembles them:"]
        lines += [f"- {text}" for text in request.avoid[-_MAX_AVOIDED:]]
    user = "\n".join(lines)
    return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": user}]


def whole_characters(text: str) -> str:
    """Put the replacement character for each half of a pair of UTF-16 code units.

    Models that are cut off, or that write escapes by themselves, leave such halves; no file can
    hold them.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _described(record: ClassRecord) -> str:
    forms: Sequence[str] = record.forms[:_MAX_FORMS]
    words = " or ".join(f'"{form}"' for form in forms)
    sense = f", in the sense of: {record.qualifier}" if record.qualifier else ""
    return f"{record.forms[0]}{sense} (write {words})"
