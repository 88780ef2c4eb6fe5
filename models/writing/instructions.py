"""Instructions: the words in which a language model is asked for scene texts.

A set of them is a YAML file; `models/data/instructions/paper.yaml` is the default one and shows
every key. Words in braces are placeholders. Other braces, such as those of the JSON that is asked
for, stay as they are.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from models.protocols import TextRequest
from models.writing.shipped_sets import ShippedSets
from storage.documents import read_yaml, validate
from storage.identity import digest
from storage.records import Record
from storage.vocabulary import ClassRecord

DEFAULT_INSTRUCTIONS = "paper"
"""The set that is used when nobody names another."""

INSTRUCTIONS_VERSION = "1"
"""Part of a request's identity: raised when the default set changes what is asked for."""

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

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_ALWAYS = ("count", "least", "most")
_MAX_FORMS = 6
_MAX_AVOIDED = 20
_MOST_WORDS = 500


class InstructionSet(Record, frozen=True):
    """Checked instructions; `messages` puts a request into their words."""

    system: str = Field(min_length=1)
    """The system message: who is asked, and in which form to answer. `{count}`: how many captions;
    `{least}` and `{most}`: how many words one has."""
    request: str = Field(min_length=1)
    """First line of the request; `{count}` must stand in it, `{least}` and `{most}` may."""
    item: str = Field(min_length=1)
    """A line for each class. `{word}`: its preferred word; `{forms}`: all words that count as
    naming it, quoted; `{sense}`: the next field, if the class has a sense to tell."""
    sense: str = ""
    """Which sense of the word is meant. `{qualifier}`: the sense."""
    heading: str = "Rules:"
    """The line above the rules."""
    rules: tuple[str, ...] = ()
    """Numbered lines below the classes, with the same placeholders and those of `one` and `two`."""
    avoid: str = Field(min_length=1)
    """The line above the captions that exist already."""
    words: tuple[int, int]
    """Fewest and most words of a caption: `{least}` and `{most}`, and what the cost is estimated
    from as long as no answer is there."""
    one: dict[str, str] = Field(default_factory=dict)
    """Placeholders of the rules for a request of one class, by name."""
    two: dict[str, str] = Field(default_factory=dict)
    """The same placeholders for a request of several classes."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if problems := list(self._faults()):
            message = "; ".join(problems)
            raise ValueError(message)
        return self

    def messages(self, request: TextRequest, count: int) -> list[dict[str, str]]:
        """Put a request into words.

        Args:
            request: The classes, and the texts that exist already.
            count: How many captions to ask for.

        Returns:
            The messages of a chat: the system's and the user's.
        """
        own = self.two if len(request.classes) > 1 else self.one
        least, most = self.words
        values = {**own, "count": str(count), "least": str(least), "most": str(most)}
        system = {"role": "system", "content": _filled(self.system, values)}
        lines = [_filled(self.request, values)]
        lines += [self._described(record) for record in request.classes]
        if self.rules:
            lines += [self.heading]
        lines += [
            f"{number}. {_filled(rule, values)}" for number, rule in enumerate(self.rules, start=1)
        ]
        if request.avoid:
            lines += [self.avoid]
            lines += [f"- {text}" for text in request.avoid[-_MAX_AVOIDED:]]
        return [system, {"role": "user", "content": "\n".join(lines)}]

    @property
    def identity(self) -> str:
        """What the texts depend on: the contents, whatever the file is called."""
        if self == load_instructions(DEFAULT_INSTRUCTIONS):
            return INSTRUCTIONS_VERSION
        return digest(self)

    def _described(self, record: ClassRecord) -> str:
        forms: Sequence[str] = record.forms[:_MAX_FORMS]
        sense = _filled(self.sense, {"qualifier": record.qualifier}) if record.qualifier else ""
        words = " or ".join(f'"{form}"' for form in forms)
        return _filled(self.item, {"word": record.forms[0], "sense": sense, "forms": words})

    def _faults(self) -> Iterator[str]:
        yield from _wrong_placeholders("system", self.system, _ALWAYS)
        yield from _wrong_placeholders("request", self.request, _ALWAYS)
        yield from _missing("request", self.request, "count")
        yield from _wrong_placeholders("item", self.item, ("word", "forms", "sense"))
        if not {"word", "forms"} & set(_PLACEHOLDER.findall(self.item)):
            yield "item names no class, expected {word} or {forms} in it"
        yield from _wrong_placeholders("sense", self.sense, ("qualifier",))
        yield from _wrong_placeholders("avoid", self.avoid, ())
        own = (*_ALWAYS, *sorted(self.one.keys() & self.two.keys()))
        for index, rule in enumerate(self.rules):
            yield from _wrong_placeholders(f"rules[{index}]", rule, own)
        yield from self._faults_of_wording()
        asked = " ".join((self.system, self.request, *self.rules))
        if '"texts"' not in asked or "JSON" not in asked:
            yield (
                "no line asks for the form of the answer, expected one, such as system, with the "
                'words JSON and {"texts": ["..."]}'
            )

    def _faults_of_wording(self) -> Iterator[str]:
        """Faults of `words`, `one` and `two`."""
        least, most = self.words
        if not 1 <= least <= most <= _MOST_WORDS:
            yield (
                f"words is [{least}, {most}], expected the fewest and the most words of a caption, "
                f"1 to {_MOST_WORDS}"
            )
        for name in sorted(self.one.keys() ^ self.two.keys()):
            there, lacking = ("one", "two") if name in self.one else ("two", "one")
            yield f"{there} has {name!r} and {lacking} does not, expected it in both"
        for name in sorted(self.one.keys() & self.two.keys()):
            if name in _ALWAYS or not _PLACEHOLDER.fullmatch(f"{{{name}}}"):
                yield f"one has {name!r}, expected letters, and not count, least or most"


def load_instructions(name: str) -> InstructionSet:
    """Read and check a set of instructions.

    Args:
        name: A set that comes with the engine (`instruction_names` lists them), or the path of a
            file that ends in .yaml or .yml.

    Raises:
        InputError: If there is no such set or file, or its contents are no instructions; the
            message names every fault.
    """
    return _SETS.load(name)


def instruction_names() -> list[str]:
    """The sets that come with the engine."""
    return _SETS.names()


def _read(file: Path) -> InstructionSet:
    document: dict[str, Any] = read_yaml(file)
    return validate(InstructionSet, document, f"instructions {str(file)!r} cannot be used")


_SETS = ShippedSets("instructions", "instructions", _read)


def whole_characters(text: str) -> str:
    """Put the replacement character for each half of a pair of UTF-16 code units.

    Models that are cut off, or that write escapes by themselves, leave such halves; no file can
    hold them.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), text)


def _wrong_placeholders(where: str, text: str, known: Sequence[str]) -> Iterator[str]:
    for name in dict.fromkeys(_PLACEHOLDER.findall(text)):
        if name not in known:
            expected = ", ".join(f"{{{each}}}" for each in known) or "no placeholder"
            yield f"{where} has {{{name}}}, expected {expected}"


def _missing(where: str, text: str, name: str) -> Iterator[str]:
    if name not in _PLACEHOLDER.findall(text):
        yield f"{where} misses {{{name}}}"
