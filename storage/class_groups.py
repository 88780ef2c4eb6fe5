"""Class groups: classes of a benchmark that are averaged by themselves too.

Some belong to a benchmark, as the categories of Cityscapes do. Others are a split into seen and
unseen classes, which somebody has to ask for: it means something for a student alone that was
trained without the unseen ones. `data/class_groups.csv` holds both.
"""

from collections.abc import Sequence
from functools import cache

from storage.class_sets import BenchmarkClasses, class_set_group, load_benchmark
from storage.errors import InputError
from storage.records import Record
from storage.tables import read_table
from storage.vocabulary import Vocabulary, load_vocabulary, require_known, split_cell

__all__ = ["ZeroShotSplit", "load_zero_shot"]

_CATEGORIES, _ZERO_SHOT = "categories", "zero-shot"


class ZeroShotSplit(Record, frozen=True):
    """Classes of a benchmark, some of which a student has never been trained on."""

    name: str
    """Its name, such as ``voc15_5``."""
    class_set: str
    """The class set without background that it splits, such as ``voc20``."""
    unseen: tuple[str, ...]
    """Official names of the unseen classes; all others are seen."""

    def check(self, class_set: str) -> None:
        """Refuse a class set of other classes.

        Args:
            class_set: Its name, or that of a benchmark.

        Raises:
            InputError: If it is not a split of its classes.
        """
        if class_set_group(class_set) != class_set_group(self.class_set):
            message = (
                f"split {self.name} is one of the classes of {self.class_set}, but {class_set} is "
                "scored: leave zero_shot out, or choose a split or a benchmark that go together"
            )
            raise InputError(message)

    def positions(self, classes: BenchmarkClasses) -> tuple[int, ...]:
        """Where the unseen classes stand in the names of a class set, ascending.

        Raises:
            InputError: If it is not a split of this class set.
        """
        self.check(classes.name)
        return tuple(sorted(classes.names.index(name) for name in self.unseen))


def zero_shot_names() -> tuple[str, ...]:
    """The names of all splits."""
    return tuple(row["name"] for row in _rows(_ZERO_SHOT))


@cache
def load_zero_shot(name: str) -> ZeroShotSplit:
    """Load a split into seen and unseen classes.

    Args:
        name: voc15_5 or coco_stuff156_15, those of ZegCLIP (arXiv 2212.03588) and the works before
            it, or miniature11_3, ours.

    Raises:
        InputError: If there is none of that name.
    """
    require_known("zero-shot split", name, zero_shot_names())
    [row] = [row for row in _rows(_ZERO_SHOT) if row["name"] == name]
    return ZeroShotSplit(name=name, class_set=row["benchmark"], unseen=split_cell(row["classes"]))


def trained_unseen(split: ZeroShotSplit, left_out: Sequence[str]) -> tuple[str, ...]:
    """The unseen classes of a split that a student was trained on.

    Args:
        split: The split.
        left_out: Names of the vocabulary's classes that the student was trained without.
    """
    classes = load_benchmark(split.class_set)
    vocabulary = load_vocabulary(classes.vocabulary)
    own = {classes.names[k]: classes.class_ids[k] for k in split.positions(classes)}
    return tuple(
        name
        for name, class_id in own.items()
        if class_id is not None and vocabulary[class_id].name not in left_out
    )


def category_positions(classes: BenchmarkClasses) -> dict[str, tuple[int, ...]]:
    """The categories that a benchmark reports besides its classes, and the positions of theirs."""
    group = class_set_group(classes.name)
    return {
        row["group"]: tuple(classes.names.index(name) for name in split_cell(row["classes"]))
        for row in _rows(_CATEGORIES)
        if row["benchmark"] == group
    }


def left_out_ids(vocabulary: Vocabulary, names: Sequence[str]) -> tuple[int, ...]:
    """The classes of a vocabulary that are left out of a training, ascending.

    Args:
        vocabulary: The classes.
        names: Names of classes, and of splits, which stand for their unseen classes. Those that the
            vocabulary does not have (grass of COCO-Stuff) cannot be trained on anyway.

    Raises:
        InputError: If a name is neither, a split belongs to another vocabulary, or no class is
            left.
    """
    found: set[int] = set()
    for name in names:
        if name in zero_shot_names():
            found.update(_split_ids(vocabulary, load_zero_shot(name)))
        else:
            found.add(vocabulary.by_name(name).class_id)
    if len(found) == len(vocabulary):
        message = (
            f"all {len(vocabulary)} classes of {vocabulary.name} are left out, expected some to be "
            "trained on: name fewer"
        )
        raise InputError(message)
    return tuple(sorted(found))


def _split_ids(vocabulary: Vocabulary, split: ZeroShotSplit) -> set[int]:
    """The unseen classes of a split, as far as the vocabulary has them."""
    classes = load_benchmark(split.class_set)
    if classes.vocabulary != vocabulary.name:
        message = (
            f"split {split.name} belongs to the vocabulary {classes.vocabulary}, the training has "
            f"{vocabulary.name}: name another split, or class names"
        )
        raise InputError(message)
    ids = (classes.class_ids[place] for place in split.positions(classes))
    return {class_id for class_id in ids if class_id is not None}


def _rows(kind: str) -> list[dict[str, str]]:
    return [row for row in read_table("class_groups.csv") if row["kind"] == kind]
