"""Class sets: the classes of each benchmark, in its own order, and where a vocabulary has them."""

from functools import cache

from storage.records import Record
from storage.tables import read_table
from storage.vocabulary import name_parts, read_class, require_known, split_cell

__all__ = ["BenchmarkClasses", "load_benchmark"]

_BENCHMARKS = {
    "voc20": ("voc", "lvis1205", False),
    "voc21": ("voc", "lvis1205", True),
    "context59": ("context", "lvis1205", False),
    "context60": ("context", "lvis1205", True),
    "coco80": ("coco", "lvis1205", False),
    "coco_object": ("coco", "lvis1205", True),
    "coco_stuff": ("coco_stuff", "lvis1205", False),
    "cityscapes": ("cityscapes", "lvis1205", False),
    "lvis1203": ("lvis", "lvis1205", False),
    "lvis": ("lvis", "lvis1205", True),
    "miniature14": ("miniature", "miniature", False),
    "miniature": ("miniature", "miniature", True),
}
"""Name -> rows of the table, vocabulary, whether a background class is scored."""

_LVIS = "lvis"
"""Rows of the vocabulary instead: its classes with an LVIS frequency are those of LVIS v1."""


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
def load_benchmark(name: str) -> BenchmarkClasses:
    """Load the class set of a benchmark.

    Args:
        name: voc20, voc21, context59, context60, coco80, coco_object, coco_stuff, cityscapes,
            lvis1203, lvis, miniature14 or miniature. The second of a pair scores the background
            too; coco_stuff and cityscapes have none.

    Raises:
        InputError: If there is none of that name.
    """
    require_known("benchmark class set", name, tuple(_BENCHMARKS))
    group, vocabulary, background = _BENCHMARKS[name]
    rows = _lvis_rows() if group == _LVIS else _benchmark_rows(group)
    return BenchmarkClasses(
        name=name,
        names=tuple(row["name"] for row in rows),
        phrases=tuple((row["prompt"], *split_cell(row["aliases"])) for row in rows),
        vocabulary=vocabulary,
        class_ids=tuple(int(row["class_id"]) if row["class_id"] else None for row in rows),
        background=background,
    )


def class_set_group(name: str) -> str:
    """The rows that a class set is made of: ``voc`` for voc20 and voc21; others stand alone."""
    return _BENCHMARKS[name][0] if name in _BENCHMARKS else name


@cache
def annotation_ids(name: str) -> tuple[int, ...]:
    """The number by which a benchmark's own annotation files know each of its classes.

    COCO's category ids (1 to 90, with gaps; of COCO-Stuff to 182), LVIS's (1 to 1203), the labels
    of PASCAL Context's release (1 to 459, of which 59 are scored), the label ids of Cityscapes (7
    to 33, with gaps); elsewhere the position in the class set plus 1.

    Args:
        name: As for `load_benchmark`.

    Returns:
        One id for each name of the class set, in its order.

    Raises:
        InputError: If there is no class set of that name.
    """
    require_known("benchmark class set", name, tuple(_BENCHMARKS))
    group, _, _ = _BENCHMARKS[name]
    rows = _lvis_rows() if group == _LVIS else _benchmark_rows(group)
    return tuple(int(row["annotation_id"]) for row in rows)


def _benchmark_rows(group: str) -> list[dict[str, str]]:
    return [row for row in read_table("benchmarks.csv") if row["benchmark"] == group]


def _lvis_rows() -> list[dict[str, str]]:
    """The classes of LVIS v1 in the order of their ids, as rows of the benchmarks' table."""
    return [_lvis_row(row) for row in read_table("lvis1205.csv") if row["frequency"]]


def _lvis_row(row: dict[str, str]) -> dict[str, str]:
    preferred, *others = read_class(row).embedding_phrases
    others += [part for synonym in split_cell(row["synonyms"]) for part in name_parts(synonym)]
    return {
        "name": row["name"],
        "annotation_id": str(int(row["class_id"]) + 1),
        "class_id": row["class_id"],
        "prompt": preferred,
        "aliases": ";".join(alias for alias in dict.fromkeys(others) if alias != preferred),
    }
