"""Class records, vocabularies, named slices of them, and the class sets of the benchmarks."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from pydantic import Field

from storage.errors import InputError
from storage.identity import digest
from storage.plurals import plural_forms
from storage.records import Record
from storage.tables import read_table, table_file

__all__ = ["ClassRecord", "Vocabulary", "load_vocabulary"]

VOCABULARIES = ("lvis1205", "miniature")
"""Names that `load_vocabulary` knows: the 1,203 categories of LVIS v1 with the two PASCAL VOC
classes that it lacks, which makes the 1,205 of MagicSeg (arXiv 2603.19575), and the drawn world."""

TEMPLATE_SETS = ("single", "zegclip_single", "zegclip_multi15", "imagenet80", "tcl_custom9")
"""Names that `text_templates` knows."""

_QUALIFIER = re.compile(r"\s*\(([^)]*)\)\s*")


class ClassRecord(Record, frozen=True):
    """A class of a vocabulary: its names, and what models are asked for."""

    class_id: int = Field(ge=0)
    """Index in its vocabulary."""
    name: str
    """Display name, unique in the vocabulary; a qualifier in parentheses is kept."""
    forms: tuple[str, ...] = Field(min_length=1)
    """Surface forms that count as a mention in a text, preferred singular first, then its plural,
    then synonyms and their plurals; never with a qualifier in parentheses."""
    detector_phrase: str
    """What the detector is asked for: lower case, no full stop."""
    embedding_phrases: tuple[str, ...] = Field(min_length=1)
    """What fills the text encoder's templates; several are averaged."""
    qualifier: str
    """What the parentheses held ("weapon" of "bow (weapon)"), or an empty string."""
    frequency: str
    """LVIS frequency r, c or f, or an empty string."""


@dataclass(frozen=True)
class Vocabulary:
    """All classes that a dataset may hold; a class's id is its position.

    Attributes:
        name: Name of the vocabulary.
        classes: The classes, by id.
    """

    name: str
    classes: tuple[ClassRecord, ...]

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, class_id: int) -> ClassRecord:
        return self.classes[class_id]

    def __iter__(self) -> Iterator[ClassRecord]:
        return iter(self.classes)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the class records, 64 hex digits."""
        return digest(self.classes)

    def by_name(self, name: str) -> ClassRecord:
        """Find a class by its display name.

        Case does not matter, LVIS's underscores are read as blanks, and the qualifier may be left
        out where one class alone answers to the rest ("bus" is "bus (vehicle)").

        Raises:
            InputError: If no class has the name, or several have it with different qualifiers.
        """
        wanted = _normalised(name)
        if wanted in self._by_display:
            return self._by_display[wanted]
        candidates = self._by_form.get(wanted, ())
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            names = ", ".join(f'"{record.name}"' for record in candidates)
            message = f'class name "{name}" is ambiguous in {self.name}: write one of {names}'
            raise InputError(message)
        raise InputError(self._unknown(name))

    def check_names(self, class_ids: Sequence[int], names: Sequence[str], where: str) -> None:
        """Refuse classes that another vocabulary numbered.

        Args:
            class_ids: Ids of the classes of a sample.
            names: Their names, in the same order.
            where: What they stand in, for the message.

        Raises:
            InputError: If an id stands for another name here.
        """
        for class_id, name in zip(class_ids, names, strict=True):
            known = self[class_id].name if 0 <= class_id < len(self) else "nothing"
            if known != name:
                message = (
                    f"{where} calls class {class_id} {name!r}, but the vocabulary "
                    f"{self.name!r} has {known!r} there: use the one that the dataset was made with"
                )
                raise InputError(message)

    @cached_property
    def _by_display(self) -> dict[str, ClassRecord]:
        return {_normalised(record.name): record for record in self.classes}

    @cached_property
    def _by_form(self) -> dict[str, tuple[ClassRecord, ...]]:
        """Classes by their name without the qualifier."""
        return _grouped((part, record) for record in self for part in name_parts(record.name))

    def _unknown(self, name: str) -> str:
        forms = _grouped((form, record) for record in self for form in record.forms)
        near = difflib.get_close_matches(_normalised(name), list(forms), n=5)
        names = list(dict.fromkeys(f'"{record.name}"' for form in near for record in forms[form]))
        nearest = f"the nearest are {', '.join(names[:5])}" if names else "nothing comes near"
        return (
            f'class name "{name}" is not in vocabulary {self.name}: {nearest}; '
            f"all names are in {table_file(self.name + '.csv')}"
        )


@cache
def load_vocabulary(name: str) -> Vocabulary:
    """Load a shipped vocabulary.

    Raises:
        InputError: If there is none of that name.
    """
    require_known("vocabulary", name, VOCABULARIES)
    return Vocabulary(name, tuple(read_class(row) for row in read_table(f"{name}.csv")))


def text_templates(name: str) -> tuple[str, ...]:
    """Load a set of sentences around a class phrase, which stands at ``{}``.

    Args:
        name: "single" (CLIP's "a photo of a {}."), "zegclip_single" (the same without the full
            stop), "zegclip_multi15" (15 sentences, used by the released MagicSeg code),
            "imagenet80" (CLIP's 80 for ImageNet) or "tcl_custom9" (TCL's 9).

    Raises:
        InputError: If there is none of that name.
    """
    require_known("template set", name, TEMPLATE_SETS)
    return tuple(row["template"] for row in read_table("templates.csv") if row["set"] == name)


def require_known(kind: str, name: str, known: tuple[str, ...]) -> None:
    """Raise InputError unless the name is known; says which are."""
    if name not in known:
        message = f'{kind} "{name}" does not exist, expected one of {", ".join(known)}'
        raise InputError(message)


def read_class(row: dict[str, str]) -> ClassRecord:
    """Read a class from a row of a vocabulary's table."""
    qualifier = "".join(_QUALIFIER.findall(row["name"])[:1])
    # LVIS writes one name as "monitor (computer equipment) computer monitor": the last part of a
    # name is the most telling one
    singulars = [*split_cell(row["form"]), *reversed(name_parts(row["name"]))]
    singulars += [part for synonym in split_cell(row["synonyms"]) for part in name_parts(synonym)]
    return ClassRecord(
        class_id=int(row["class_id"]),
        name=row["name"],
        forms=_forms(singulars),
        detector_phrase=singulars[0].lower(),
        embedding_phrases=split_cell(row["embedding"])
        or _embedding_phrases(singulars[0], "" if row["form"] else qualifier),
        qualifier=qualifier,
        frequency=row["frequency"],
    )


def _forms(singulars: Iterable[str]) -> tuple[str, ...]:
    """The singulars, each followed by its plurals and its spelling without hyphens."""
    forms: dict[str, str] = {}
    for singular in singulars:
        for spelling in (singular, singular.replace("-", " ")):
            for form in (spelling, *plural_forms(spelling)):
                forms.setdefault(form.casefold(), form)
    return tuple(forms.values())


def _embedding_phrases(phrase: str, qualifier: str) -> tuple[str, ...]:
    if not qualifier:
        return (phrase,)
    # "fish food" would be something else
    return phrase, f"{phrase} as food" if qualifier == "food" else f"{phrase} {qualifier}"


def name_parts(name: str) -> list[str]:
    """What stands before and after the qualifier of a name."""
    return [part for part in _QUALIFIER.split(name)[::2] if part]


def split_cell(cell: str) -> tuple[str, ...]:
    """The items of a table's cell, which stand between semicolons."""
    return tuple(cell.split(";")) if cell else ()


def _normalised(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()


def _grouped(
    pairs: Iterable[tuple[str, ClassRecord]],
) -> dict[str, tuple[ClassRecord, ...]]:
    groups: dict[str, tuple[ClassRecord, ...]] = {}
    for name, record in pairs:
        key = _normalised(name)
        groups[key] = (*groups.get(key, ()), record)
    return groups
