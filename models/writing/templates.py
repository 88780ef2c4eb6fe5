"""Template grammars: scene texts for any class without a language model.

A grammar is a YAML file of three keys::

    one: ["{a} {colour1} {class1} {place}", ...]
    two: ["{a} {colour1} {class1} and {a} {colour2} {class2} {place}", ...]
    slots: {colour: [red, green], place: [in a meadow, on the beach]}

`{class1}` and `{class2}` become the classes' preferred singular, `{a}` becomes a or an by the word
after it (or nothing before a class that exists in the plural alone, such as scissors), any other
placeholder becomes a value of the slot of its name without trailing digits. A template that stands
there twice is drawn twice as often. `two` may be missing if no text with two classes is wanted.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

from pydantic import Field, model_validator

from models.writing.shipped_sets import ShippedSets
from storage.documents import read_yaml, validate
from storage.errors import InputError
from storage.identity import derive_seed
from storage.plurals import plural_forms
from storage.records import Record
from storage.vocabulary import ClassRecord

_DRAWS = 64  # random draws for a new text before all texts are tried in turn
_PIECES = re.compile(r"(\{[^{}]*\})")
_AN = re.compile(r"\W*(?!uni|uri|use|eu|one\b)(?:[aeiou]|hour|honest|heir)", re.IGNORECASE)


class TemplateSet(Record, frozen=True):
    """A checked grammar."""

    one: tuple[str, ...] = Field(min_length=1)
    """Templates that name one class."""
    two: tuple[str, ...] = ()
    """Templates that name two classes."""
    slots: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Values of each slot."""

    @model_validator(mode="after")
    def _check(self) -> "TemplateSet":
        problems = [f"slot {name!r} is empty" for name, values in self.slots.items() if not values]
        for key, templates in {"one": self.one, "two": self.two}.items():
            classes = ("class1", "class2")[: 1 if key == "one" else 2]
            for index, template in enumerate(templates):
                where = f"{key}[{index}] ({template!r})"
                problems += [f"{where} {fault}" for fault in self._faults(template, classes)]
        if problems:
            message = "; ".join(problems)
            raise ValueError(message)
        return self

    def capacity(self, num_classes: int) -> int:
        """How many texts the grammar has about one or two classes."""
        return sum(
            math.prod(len(self._values(name)) for name in _names(template))
            for template in dict.fromkeys(self._templates(num_classes))
        )

    def texts(
        self,
        classes: Sequence[ClassRecord],
        count: int,
        seed: int,
        *,
        avoid: Collection[str] = (),
    ) -> list[str]:
        """Write texts that name all the classes.

        The texts differ from each other and from those to avoid for as long as the grammar has
        new ones; after that they repeat.

        Args:
            classes: One or two classes, in the order of `{class1}` and `{class2}`.
            count: How many texts.
            seed: Fixes every text.
            avoid: Texts that exist already.

        Raises:
            InputError: If the grammar has no templates for that many classes.
        """
        templates = self._templates(len(classes))
        if not templates:
            message = (
                f"the template set has no texts with {len(classes)} classes, expected 1, or 2 with "
                "templates under the key 'two'; add some or plan samples of one class"
            )
            raise InputError(message)
        used, texts = set(avoid), []
        rest = self._all(templates, classes)
        for index in range(count):
            draws = (self._draw(classes, (seed, index, draw)) for draw in range(_DRAWS))
            text = next((draw for draw in draws if draw not in used), None)
            if text is None:
                text = next((new for new in rest if new not in used), None)
            texts.append(self._draw(classes, (seed, index, 0)) if text is None else text)
            used.add(texts[-1])
        return texts

    def _faults(self, template: str, classes: tuple[str, ...]) -> Iterator[str]:
        names = [piece[1:-1] for piece in _PIECES.findall(template)]
        for name in classes:
            if name not in names:
                yield f"misses {{{name}}}"
        for name in names:
            if name != "a" and name not in classes and _slot(name) not in self.slots:
                yield (
                    f"has {{{name}}}, expected {{a}}, {{{'}, {'.join(classes)}}} or one of the "
                    f"slots {sorted(self.slots)}"
                )
        if set("{}") & set(_PIECES.sub("", template)):
            yield "has a single brace"

    def _templates(self, num_classes: int) -> tuple[str, ...]:
        return {1: self.one, 2: self.two}.get(num_classes, ())

    def _values(self, name: str) -> tuple[str, ...]:
        return self.slots[_slot(name)]

    def _draw(self, classes: Sequence[ClassRecord], path: tuple[int, ...]) -> str:
        templates = self._templates(len(classes))
        template = templates[derive_seed(*path) % len(templates)]
        values = {
            name: self._values(name)[derive_seed(*path, name) % len(self._values(name))]
            for name in _names(template)
        }
        return _fill(template, values, classes)

    def _all(self, templates: Sequence[str], classes: Sequence[ClassRecord]) -> Iterator[str]:
        for template in dict.fromkeys(templates):
            names = _names(template)
            for values in product(*map(self._values, names)):
                yield _fill(template, dict(zip(names, values, strict=True)), classes)


def load_templates(name: str) -> TemplateSet:
    """Read and check a grammar.

    Args:
        name: A set that comes with the engine (`template_names` lists them), or the path of a
            file that ends in .yaml or .yml.

    Raises:
        InputError: If there is no such set or file, or its contents are not a grammar; the message
            names every fault.
    """
    return _SETS.load(name)


def template_names() -> list[str]:
    """The sets that come with the engine."""
    return _SETS.names()


def _read_templates(file: Path) -> TemplateSet:
    where = f"template set {str(file)!r} is not a grammar (keys one, two and slots)"
    return validate(TemplateSet, read_yaml(file), where)


_SETS = ShippedSets("templates", "template set", _read_templates)


def _slot(name: str) -> str:
    return name.rstrip("0123456789")


def _names(template: str) -> list[str]:
    """The placeholders of slots, each once."""
    names = (piece[1:-1] for piece in _PIECES.findall(template))
    return [name for name in dict.fromkeys(names) if name not in {"a", "class1", "class2"}]


def _fill(template: str, values: Mapping[str, str], classes: Sequence[ClassRecord]) -> str:
    nouns = {f"class{index}": record.forms[0] for index, record in enumerate(classes, start=1)}
    words = {**values, **nouns}
    text, noun = "", ""  # written from the end, since an article depends on what follows it
    for piece in reversed(_PIECES.split(template)):
        name = piece[1:-1] if piece.startswith("{") else ""
        if name == "a":
            text = text.lstrip() if _is_plural_only(noun) else _article(text) + text
        else:
            text = words.get(name, piece) + text
        if name in nouns:
            noun = nouns[name]
        elif name == "a" or (not name and piece.strip()):
            noun = ""  # an article belongs to a class only if nothing but slots is between
    return text


def _article(following: str) -> str:
    return "an" if _AN.match(following) else "a"


def _is_plural_only(noun: str) -> bool:
    return noun.endswith("s") and plural_forms(noun)[0] == noun
