"""Marks: flags and notes that people put on samples while they look through a dataset.

They decide nothing: what is to be left out of trainings is named in `storage.exclusions`. They are
kept as acts (`storage.acts`) in `.engine/marks`; the last line of a kind about a sample counts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime, Field

from storage.acts import ActFolder
from storage.layout import MARK_FOLDER
from storage.objects import ObjectStore
from storage.records import Record

__all__ = ["Mark", "read_marks"]

MAX_NOTE = 4000
"""Characters of a note."""

MarkAct = Literal["flag", "unflag", "note"]


class Mark(Record, frozen=True):
    """What was said of a sample at one time."""

    key: str = Field(min_length=1)
    """Sample key."""
    act: MarkAct
    """Whether it is flagged from then on, or no longer, or has another note."""
    text: str = Field(default="", max_length=MAX_NOTE)
    """The note; an empty one takes the last one back."""
    who: str
    """User and machine."""
    at: AwareDatetime
    """When."""


MARKS = ActFolder(MARK_FOLDER, Mark)
"""Where they lie."""


@dataclass(frozen=True)
class Marked:
    """The marks of a sample.

    Attributes:
        flagged: Whether it is flagged.
        note: What was noted last; empty if nothing.
    """

    flagged: bool = False
    note: str = ""


def read_marks(objects: ObjectStore) -> list[Mark]:
    """Read all marks that were ever made, in the order in which they were.

    Raises:
        DataError: A file is damaged; names it.
    """
    return MARKS.read(objects)


def current_marks(history: Iterable[Mark]) -> dict[str, Marked]:
    """The marks that hold, of each sample that was ever marked, by its key."""
    found: dict[str, Marked] = {}
    unmarked = Marked()
    for line in history:
        marked = found.get(line.key, unmarked)
        if line.act == "note":
            found[line.key] = Marked(marked.flagged, line.text)
        else:
            found[line.key] = Marked(line.act == "flag", marked.note)
    return found


def mark_samples(
    objects: ObjectStore, keys: Sequence[str], act: MarkAct, *, who: str, text: str = ""
) -> None:
    """Flag samples, take flags back, or write a note about them. Durable.

    Args:
        objects: The dataset.
        keys: At least one.
        act: Which of these.
        who: User and machine.
        text: The note.
    """
    at = datetime.now(UTC)
    MARKS.append(objects, [Mark(key=key, act=act, text=text, who=who, at=at) for key in keys])
