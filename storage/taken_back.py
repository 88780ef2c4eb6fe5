"""Taking an act back: what is to be said so that its samples are as they were before it.

An act never changes (`storage.acts`), so that is a new act. Whatever was said of a sample after the
act stays: its last word is another's. Acts that were taken back themselves do not count as such, so
that one act after the other can be taken back.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TypeVar

from storage.exclusions import Exclusion
from storage.marks import Mark

_NONE: Mapping[str, str] = MappingProxyType({})
_LineT = TypeVar("_LineT", Exclusion, Mark)

UNDONE = "undone"
"""Why a sample is taken in again whose exclusion is taken back."""


def taken_back_exclusions(
    acts: Mapping[str, list[Exclusion]],
    path: str,
    *,
    who: str,
    settled: Mapping[str, str] = _NONE,
) -> list[Exclusion]:
    """What takes an act of exclusions back.

    A sample that was left out before is so again, for its old reason and by its old judge.

    Args:
        acts: All acts in their order, by where they lie.
        path: Which of them.
        who: User and machine.
        settled: Acts that were taken back before, each with the act that did so.
    """
    before, own, after = _around(acts, path, settled)
    at = datetime.now(UTC)
    known = {line.key: line for line in before}
    later = {line.key for line in after}
    said: list[Exclusion] = []
    for key, line in {line.key: line for line in own}.items():
        old = known.get(key)
        if key in later:
            continue
        if old is not None and old.act == "exclude":
            said.append(old.model_copy(update={"who": who, "at": at}))
        elif line.act == "exclude":
            said.append(Exclusion(key=key, act="include", by="hand", who=who, at=at, why=UNDONE))
    return said


def taken_back_marks(
    acts: Mapping[str, list[Mark]],
    path: str,
    *,
    who: str,
    settled: Mapping[str, str] = _NONE,
) -> list[Mark]:
    """What takes an act of flags or notes back.

    Args:
        acts: All acts in their order, by where they lie.
        path: Which of them.
        who: User and machine.
        settled: Acts that were taken back before, each with the act that did so.
    """
    before, own, after = _around(acts, path, settled)
    at = datetime.now(UTC)
    known = {_subject(line): line for line in before}
    later = {_subject(line) for line in after}
    said: list[Mark] = []
    for subject, line in {_subject(line): line for line in own}.items():
        old = known.get(subject)
        if subject in later or _holds(old) == _holds(line):
            continue
        if line.act == "note":
            text = old.text if old else ""
            said.append(Mark(key=line.key, act="note", text=text, who=who, at=at))
        else:
            act = "unflag" if line.act == "flag" else "flag"
            said.append(Mark(key=line.key, act=act, who=who, at=at))
    return said


def _subject(line: Exclusion | Mark) -> tuple[str, bool]:
    """What a line is about: a sample, and whether its note."""
    return line.key, line.act == "note"


def _holds(line: Mark | None) -> str:
    """What holds after a mark: the note, or whether there is a flag."""
    if line is None or line.act == "unflag":
        return ""
    return line.text if line.act == "note" else line.act


def _around(
    acts: Mapping[str, list[_LineT]], path: str, settled: Mapping[str, str]
) -> tuple[list[_LineT], list[_LineT], list[_LineT]]:
    """The lines before an act, its own, and those after it that still count."""
    order = list(acts)
    place = order.index(path)
    before = [line for each in order[:place] for line in acts[each]]
    # of an act and the one that took it back, what both speak of comes to nothing
    nothing: dict[str, set[tuple[str, bool]]] = {}
    for act, back in settled.items():
        subjects = {_subject(line) for line in acts.get(back, ())}
        for each in (act, back):
            nothing.setdefault(each, set()).update(subjects)
    after = [
        line
        for each in order[place + 1 :]
        for line in acts[each]
        if each not in nothing or _subject(line) not in nothing[each]
    ]
    return before, acts[path], after
