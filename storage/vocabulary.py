"""Class records, vocabularies, named slices of them, and the class sets of the benchmarks."""

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property

from pydantic import Field

from storage.errors import InputError
from storage.identity import digest
from storage.plurals import plural_forms
from storage.records import Record
from storage.tables import read_table, table_file

VOCABULARIES = ("lvis1205", "miniature")
"""Names that `load_vocabulary` knows: the 1,203 categories of LVIS v1 with the two PASCAL VOC
classes that it lacks, which makes the 1,205 of MagicSeg (arXiv 2603.19575), and the drawn world."""

TEMPLATE_SETS = ("single", "zegclip_single", "zegclip_multi15", "imagenet80", "tcl_custom9")
"""Names that `text_templates` knows."""

_QUALIFIER = re.compile(r"\s*\(([^)]*)\)\s*")
_RANGE = re.compile(r"(\d+):(\d+)")
_FREQUENCY = re.compile(r"lvis-([rcf])")

_BENCHMARKS = {
    "voc20": ("voc", "lvis1205", False),
    "voc21": ("voc", "lvis1205", True),
    "context59": ("context", "lvis1205", False),
    "context60": ("context", "lvis1205", True),
    "coco80": ("coco", "lvis1205", False),
    "coco_object": ("coco", "lvis1205", True),
    "lvis1203": ("lvis", "lvis1205", False),
    "lvis": ("lvis", "lvis1205", True),
    "miniature": ("miniature", "miniature", True),
}
"""Name -> rows of the table, vocabulary, whether a background class is scored."""

_LVIS = "lvis"
"""Rows of the vocabulary instead: its classes with an LVIS frequency are those of LVIS v1."""

_NAMED_SLICES = ("voc20", "context59", "coco80")


class ClassRecord(Record, frozen=True):
    """A class is more than a string."""

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

    @cached_property
    def _by_display(self) -> dict[str, ClassRecord]:
        return {_normalised(record.name): record for record in self.classes}

    @cached_property
    def _by_form(self) -> dict[str, tuple[ClassRecord, ...]]:
        """Classes by their name without the qualifier."""
        return _grouped((part, record) for record in self for part in _parts(record.name))

    def _unknown(self, name: str) -> str:
        forms = _grouped((form, record) for record in self for form in record.forms)
        near = difflib.get_close_matches(_normalised(name), list(forms), n=5)
        names = list(dict.fromkeys(f'"{record.name}"' for form in near for record in forms[form]))
        nearest = f"the nearest are {', '.join(names[:5])}" if names else "nothing comes near"
        return (
            f'class name "{name}" is not in vocabulary {self.name}: {nearest}; '
            f"all names stand in {table_file(self.name + '.csv')}"
        )


class Slice(Record, frozen=True):
    """A named part of a vocabulary, which is planned, run and extended on its own."""

    slice_id: str = Field(pattern=r"^[0-9a-f]{8}$")
    """Stands for the vocabulary's contents and the classes, however they were asked for."""
    class_ids: tuple[int, ...] = Field(min_length=1)
    """Vocabulary indices, ascending."""
    label: str
    """What people call it."""


class BenchmarkClasses(Record, frozen=True):
    """The classes of a benchmark, in its own order."""

    name: str
    """Name of the class set; its number, where it has one, counts the classes that are scored."""
    names: tuple[str, ...]
    """Official names without the background (LVIS's with blanks for underscores); ground truth
    value k stands for the name k - 1."""
    phrases: tuple[tuple[str, ...], ...]
    """For each name what a text encoder should read, the preferred phrase first, then aliases."""
    vocabulary: str
    """The vocabulary of ``class_ids``."""
    class_ids: tuple[int | None, ...]
    """For each name the same class of the vocabulary, None where it has none."""
    background: bool
    """Whether ground truth value 0 is scored as a class; otherwise its pixels are ignored."""


@cache
def load_vocabulary(name: str) -> Vocabulary:
    """Load a shipped vocabulary.

    Raises:
        InputError: If there is none of that name.
    """
    _check_known("vocabulary", name, VOCABULARIES)
    return Vocabulary(name, tuple(_class_record(row) for row in read_table(f"{name}.csv")))


@cache
def load_benchmark(name: str) -> BenchmarkClasses:
    """Load the class set of a benchmark.

    Args:
        name: voc20, voc21, context59, context60, coco80, coco_object, lvis1203, lvis or miniature.
            The second of a pair scores the background too.

    Raises:
        InputError: If there is none of that name.
    """
    _check_known("benchmark class set", name, tuple(_BENCHMARKS))
    group, vocabulary, background = _BENCHMARKS[name]
    rows = _lvis_rows() if group == _LVIS else _benchmark_rows(group)
    return BenchmarkClasses(
        name=name,
        names=tuple(row["name"] for row in rows),
        phrases=tuple((row["prompt"], *_items(row["aliases"])) for row in rows),
        vocabulary=vocabulary,
        class_ids=tuple(int(row["class_id"]) if row["class_id"] else None for row in rows),
        background=background,
    )


@cache
def annotation_ids(name: str) -> tuple[int, ...]:
    """The number by which a benchmark's own annotation files know each of its classes.

    COCO's category ids (1 to 90, with gaps), LVIS's (1 to 1203), the labels of PASCAL Context's
    release (1 to 459, of which 59 are scored); elsewhere the position in the class set plus 1.

    Args:
        name: As for `load_benchmark`.

    Returns:
        One id for each name of the class set, in its order.

    Raises:
        InputError: If there is no class set of that name.
    """
    _check_known("benchmark class set", name, tuple(_BENCHMARKS))
    group, _, _ = _BENCHMARKS[name]
    rows = _lvis_rows() if group == _LVIS else _benchmark_rows(group)
    return tuple(int(row["annotation_id"]) for row in rows)


def text_templates(name: str) -> tuple[str, ...]:
    """Load a set of sentences around a class phrase, which stands at ``{}``.

    Args:
        name: "single" (CLIP's "a photo of a {}."), "zegclip_single" (the same without the full
            stop), "zegclip_multi15" (15 sentences, used by the released MagicSeg code),
            "imagenet80" (CLIP's 80 for ImageNet) or "tcl_custom9" (TCL's 9).

    Raises:
        InputError: If there is none of that name.
    """
    _check_known("template set", name, TEMPLATE_SETS)
    return tuple(row["template"] for row in read_table("templates.csv") if row["set"] == name)


def resolve_slice(vocabulary: Vocabulary, text: str) -> Slice:
    """Find the classes that a slice's text means.

    Args:
        vocabulary: Where to look.
        text: ``all``; ``lvis-r``, ``lvis-c`` or ``lvis-f`` (rare, common, frequent); ``voc20``,
            ``context59`` or ``coco80`` (the classes of the benchmark that the vocabulary has); a
            half-open range of ids such as ``0:100``; or class names between commas.

    Raises:
        InputError: If the text means no class, an unknown, an ambiguous or a doubled one, or
            classes outside the vocabulary.
    """
    wanted = text.strip()
    span, frequency = _RANGE.fullmatch(wanted), _FREQUENCY.fullmatch(wanted)
    if wanted == "all":
        ids = list(range(len(vocabulary)))
    elif span is not None:
        ids = _range_ids(vocabulary, int(span[1]), int(span[2]))
    elif frequency is not None:
        ids = [record.class_id for record in vocabulary if record.frequency == frequency[1]]
    elif wanted in _NAMED_SLICES:
        ids = _benchmark_ids(vocabulary, wanted)
    else:
        ids = _listed_ids(vocabulary, wanted)
    if not ids:
        message = f'slice "{wanted}" holds no class of {vocabulary.name}: {_ways(vocabulary)}'
        raise InputError(message)
    slice_id = digest([vocabulary.digest, ids])[:8]
    return Slice(slice_id=slice_id, class_ids=tuple(ids), label=wanted)


def _range_ids(vocabulary: Vocabulary, start: int, stop: int) -> list[int]:
    if not start < stop <= len(vocabulary):
        message = (
            f'slice "{start}:{stop}" is out of bounds or empty: expected start < stop <= '
            f"{len(vocabulary)}, the number of classes of vocabulary {vocabulary.name}"
        )
        raise InputError(message)
    return list(range(start, stop))


def _benchmark_ids(vocabulary: Vocabulary, name: str) -> list[int]:
    benchmark = load_benchmark(name)
    if benchmark.vocabulary != vocabulary.name:
        return []
    return sorted({class_id for class_id in benchmark.class_ids if class_id is not None})


def _listed_ids(vocabulary: Vocabulary, text: str) -> list[int]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        message = f'slice "{text}" holds an empty class name: {_ways(vocabulary)}'
        raise InputError(message)
    ids = [vocabulary.by_name(name).class_id for name in names]
    doubled = [vocabulary[i].name for i in sorted(set(ids)) if ids.count(i) > 1]
    if doubled:
        message = f'slice "{text}" names a class twice: {", ".join(doubled)}; name each one once'
        raise InputError(message)
    return sorted(ids)


def _ways(vocabulary: Vocabulary) -> str:
    return (
        f"write all, lvis-r, lvis-c, lvis-f, {', '.join(_NAMED_SLICES)}, a range such as "
        f"0:{len(vocabulary)}, or class names between commas"
    )


def _benchmark_rows(group: str) -> list[dict[str, str]]:
    return [row for row in read_table("benchmarks.csv") if row["benchmark"] == group]


def _lvis_rows() -> list[dict[str, str]]:
    """The classes of LVIS v1 in the order of their ids, as rows of the benchmarks' table."""
    return [_lvis_row(row) for row in read_table("lvis1205.csv") if row["frequency"]]


def _lvis_row(row: dict[str, str]) -> dict[str, str]:
    preferred, *others = _class_record(row).embedding_phrases
    others += [part for synonym in _items(row["synonyms"]) for part in _parts(synonym)]
    return {
        "name": row["name"],
        "annotation_id": str(int(row["class_id"]) + 1),
        "class_id": row["class_id"],
        "prompt": preferred,
        "aliases": ";".join(alias for alias in dict.fromkeys(others) if alias != preferred),
    }


def _check_known(kind: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        message = f'{kind} "{name}" does not exist, expected one of {", ".join(known)}'
        raise InputError(message)


def _class_record(row: dict[str, str]) -> ClassRecord:
    qualifier = "".join(_QUALIFIER.findall(row["name"])[:1])
    # LVIS writes one name as "monitor (computer equipment) computer monitor": the last part of a
    # name is the most telling one
    singulars = [*_items(row["form"]), *reversed(_parts(row["name"]))]
    singulars += [part for synonym in _items(row["synonyms"]) for part in _parts(synonym)]
    return ClassRecord(
        class_id=int(row["class_id"]),
        name=row["name"],
        forms=_forms(singulars),
        detector_phrase=singulars[0].lower(),
        embedding_phrases=_items(row["embedding"])
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


def _parts(name: str) -> list[str]:
    """What stands before and after the qualifier of a name."""
    return [part for part in _QUALIFIER.split(name)[::2] if part]


def _items(cell: str) -> tuple[str, ...]:
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
