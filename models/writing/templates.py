"""Template grammars: scene texts for any class without a language model.

A grammar is a YAML file of three keys::

    one: ["{a} {colour1} {class1} {place}", ...]
    two: ["{a} {colour1} {class1} and {a} {colour2} {class2} {place}", ...]
    slots: {colour: [red, green], place: [in a meadow, on the beach]}

`{class1}` and `{class2}` become the classes' preferred singular, `{a}` becomes a or an by the word
after it (or nothing before a class that exists in the plural alone, such as scissors), any other
placeholder becomes a value of the slot of its name without trailing digits. A template that stands
there twice is drawn twice as often. `two` may be missing if no text with two classes is wanted.
`{subclass1}` and `{subclass2}` become a name of a kind of the class ("tabby" for cat) from lists
that the writer has; nothing if it has none.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from types import MappingProxyType

from pydantic import Field, model_validator

from models.writing.shipped_sets import ShippedSets
from storage.documents import read_yaml, validate
from storage.errors import InputError
from storage.identity import derive_seed
from storage.paths import local_path
from storage.plurals import plural_forms
from storage.records import Record
from storage.vocabulary import VOCABULARIES, ClassRecord, load_vocabulary

_DRAWS = 64  # random draws for a new text before all texts are tried in turn
_SUBCLASSES = ("subclass1", "subclass2")
_PIECES = re.compile(r"(\{[^{}]*\})")
_AN = re.compile(r"\W*(?!uni|uri|use|eu|one\b)(?:[aeiou]|hour|honest|heir)", re.IGNORECASE)


Kinds = Mapping[int, tuple[str, ...]]
Slots = Mapping[str, tuple[str, ...]]


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
        """How many texts the grammar has about one or two classes without names of kinds."""
        slots = {**self.slots, **dict.fromkeys(_SUBCLASSES, ("",))}
        return sum(
            math.prod(len(_values(slots, name)) for name in _names(template))
            for template in dict.fromkeys(self._templates(num_classes))
        )

    def texts(
        self,
        classes: Sequence[ClassRecord],
        count: int,
        seed: int,
        *,
        avoid: Collection[str] = (),
        kinds: Kinds = MappingProxyType({}),
    ) -> list[str]:
        """Write texts that name all the classes.

        The texts differ from each other and from those to avoid for as long as the grammar has
        new ones; after that they repeat.

        Args:
            classes: One or two classes, in the order of `{class1}` and `{class2}`.
            count: How many texts.
            seed: Fixes every text.
            avoid: Texts that exist already.
            kinds: By class id the names that stand for `{subclass1}` and `{subclass2}`; an empty
                one is the class alone.

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
        slots = {**self.slots, **_kind_slots(classes, kinds)}
        rest = self._all(templates, classes, slots)
        for index in range(count):
            draws = (self._draw(classes, slots, (seed, index, draw)) for draw in range(_DRAWS))
            text = next((draw for draw in draws if draw not in used), None)
            if text is None:
                text = next((new for new in rest if new not in used), None)
            texts.append(self._draw(classes, slots, (seed, index, 0)) if text is None else text)
            used.add(texts[-1])
        return texts

    def _faults(self, template: str, classes: tuple[str, ...]) -> Iterator[str]:
        names = [piece[1:-1] for piece in _PIECES.findall(template)]
        for name in classes:
            if name not in names:
                yield f"misses {{{name}}}"
        for name in names:
            known = {"a", *classes, *_SUBCLASSES[: len(classes)]}
            if name not in known and _slot(name) not in self.slots:
                yield (
                    f"has {{{name}}}, expected {{a}}, {{{'}, {'.join(classes)}}} or one of the "
                    f"slots {sorted(self.slots)}"
                )
        if set("{}") & set(_PIECES.sub("", template)):
            yield "has a single brace"

    def _templates(self, num_classes: int) -> tuple[str, ...]:
        return {1: self.one, 2: self.two}.get(num_classes, ())

    def _draw(self, classes: Sequence[ClassRecord], slots: Slots, path: tuple[int, ...]) -> str:
        templates = self._templates(len(classes))
        template = templates[derive_seed(*path) % len(templates)]
        values = {
            name: _values(slots, name)[derive_seed(*path, name) % len(_values(slots, name))]
            for name in _names(template)
        }
        return _fill(template, values, classes)

    def _all(
        self, templates: Sequence[str], classes: Sequence[ClassRecord], slots: Slots
    ) -> Iterator[str]:
        for template in dict.fromkeys(templates):
            names = _names(template)
            for values in product(*(_values(slots, name) for name in names)):
                yield _fill(template, dict(zip(names, values, strict=True)), classes)


def load_kinds(name: str) -> dict[str, tuple[str, ...]]:
    """Read a file of names of kinds: `cat: [tabby, Persian, ""]`.

    Args:
        name: Path of a YAML file: by class name a list, in which an empty text is the class alone.

    Raises:
        InputError: If there is no such file, it holds something else, or a class is in no
            vocabulary.
    """
    file = local_path(name, "the file of subclasses")
    found = validate(_KindFile, {"kinds": read_yaml(file)}, f"subclasses {str(file)!r}").kinds
    vocabularies = [load_vocabulary(each) for each in VOCABULARIES]
    for class_name, kinds in found.items():
        if not any(class_name == record.name for each in vocabularies for record in each):
            message = (
                f"{file} has subclasses of {class_name!r}, which is a class of no vocabulary: "
                f"write its name as the vocabularies {', '.join(VOCABULARIES)} have it"
            )
            raise InputError(message)
        if not kinds:
            message = f"{file} has no subclasses of {class_name!r}: leave it out"
            raise InputError(message)
    return found


class _KindFile(Record, frozen=True):
    kinds: dict[str, tuple[str, ...]]
    """By class name the names of its kinds."""


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


def _values(slots: Slots, name: str) -> tuple[str, ...]:
    return slots[name if name in _SUBCLASSES else _slot(name)]


def _kind_slots(classes: Sequence[ClassRecord], kinds: Kinds) -> dict[str, tuple[str, ...]]:
    """What stands for the kinds of the classes, in their order."""
    own = (kinds.get(record.class_id) or ("",) for record in classes)
    return dict(zip(_SUBCLASSES, own, strict=False))


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
            word = words.get(name, piece)
            text = word + text if word else text.lstrip()
        if name in nouns:
            noun = nouns[name]
        elif name == "a" or (not name and piece.strip()):
            noun = ""  # an article belongs to a class only if nothing but slots is between
    return text


def _article(following: str) -> str:
    return "an" if _AN.match(following) else "a"


def _is_plural_only(noun: str) -> bool:
    return noun.endswith("s") and plural_forms(noun)[0] == noun
