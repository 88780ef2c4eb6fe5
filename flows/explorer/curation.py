"""What people change from the explorer's page: exclusions, flags and notes."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import Field

from flows.exclusions import who_is_here
from storage.card import write_card
from storage.errors import EngineError, InputError
from storage.exclusions import EXCLUSIONS, Exclusion
from storage.layout import EXCLUSION_FOLDER, MARK_FOLDER
from storage.marks import MARKS, MAX_NOTE, Mark
from storage.records import Record
from storage.sample_table import SampleTable
from storage.store import Store
from storage.taken_back import taken_back_exclusions, taken_back_marks

_log = logging.getLogger(__name__)

MOST_KEYS = 2000
"""Samples that are chosen one by one."""
MOST_AT_ONCE = 200_000
"""Samples of one act; a file of them is some 40 MB."""

_PATH = r"\.engine/(exclusions|marks)/\d{6,}-[0-9a-f]{16}\.jsonl"

ManyAct = Literal["exclude", "include", "flag", "unflag"]
"""What can be said of many samples at one time."""


class Change(Record, frozen=True):
    """What is to be said of a sample."""

    key: str = Field(min_length=1, max_length=200)
    """Sample key."""
    act: Literal["exclude", "include", "flag", "unflag", "note"]
    """What."""
    text: str = Field(default="", max_length=MAX_NOTE)
    """The reason of an exclusion or inclusion, or the note."""


class Choice(Record, frozen=True):
    """Samples of which something may be said at one time."""

    list: str = Field(default="", max_length=100)
    """All samples of a list that was shown; its name came with it."""
    keys: tuple[str, ...] = Field(default=(), max_length=MOST_KEYS)
    """Or these samples."""
    act: ManyAct
    """What."""


class ManyChange(Choice, frozen=True):
    """What is to be said of them."""

    text: str = Field(default="", max_length=MAX_NOTE)
    """The reason of an exclusion or inclusion."""
    count: int = Field(ge=1)
    """How many samples this changes, as the person was told who said yes to it."""


class Undo(Record, frozen=True):
    """What is to be taken back."""

    act: str = Field(pattern=f"^{_PATH}$")
    """Where the act lies, as the answer to the change said."""


@dataclass(frozen=True)
class Outlook:
    """What saying something of some samples would come to.

    Attributes:
        keys: Samples that it changes.
        already: How many are so already.
        dropped: How many cannot be left out, because they were dropped on the way.
        gone: How many are not in the dataset any more.
    """

    keys: tuple[str, ...]
    already: int = 0
    dropped: int = 0
    gone: int = 0


class Curator:
    """Writes what people say of samples.

    Args:
        store: The dataset.
        table: Its samples; told of each change.
    """

    def __init__(self, store: Store, table: SampleTable) -> None:
        self._store = store
        self._table = table
        self._who = who_is_here()
        self._writing = threading.Lock()
        self._card = threading.Lock()
        self._stale = False
        self._taken_back: dict[str, str] = {}

    def change(self, change: Change) -> str:
        """Say something of a sample. Durable; what others say meanwhile stays.

        Returns:
            Where the act lies; empty if there was nothing to say.

        Raises:
            InputError: There is no such sample, it is in no tar and cannot be left out, a reason is
                missing, or the dataset cannot be written to.
        """
        key, text = change.key, change.text.strip()
        if self._table.facts(key) is None:
            message = f"there is no sample {key!r} in the dataset any more; reload the page"
            raise InputError(message)
        if change.act not in ("exclude", "include"):
            mark = Mark(key=key, act=change.act, text=text, who=self._who, at=datetime.now(UTC))
            return self._mark([mark])
        with self._writing:
            self._table.hear()
            outlook = self.outlook([key], change.act)
            if outlook.dropped:
                message = (
                    f"sample {key} is in no tar, so there is nothing to leave out: it was "
                    "dropped on the way. Flag it, or write a note"
                )
                raise InputError(message)
            return self._exclude(outlook.keys, change.act, text)

    def outlook(self, keys: Sequence[str], act: ManyAct) -> Outlook:
        """Tell what saying something of samples would come to, as far as is known; writes nothing.

        Args:
            keys: The samples.
            act: What is to be said.
        """
        view = self._table.view
        here = [key for key in dict.fromkeys(keys) if key in view.samples.rows]
        gone = len(set(keys)) - len(here)
        if act in ("flag", "unflag"):
            new = tuple(key for key in here if view.is_flagged(key) == (act == "unflag"))
            return Outlook(new, already=len(here) - len(new), gone=gone)
        if act == "include":
            new = tuple(key for key in here if view.said.why_excluded(key))
            return Outlook(new, already=len(here) - len(new), gone=gone)
        fit = [key for key in here if key in view.samples.excludable]
        new = tuple(key for key in fit if not view.said.why_excluded(key))
        already, dropped = len(fit) - len(new), len(here) - len(fit)
        return Outlook(new, already=already, dropped=dropped, gone=gone)

    def change_many(self, keys: Sequence[str], change: ManyChange) -> tuple[str, int]:
        """Say something of samples: one act, all of it or nothing of it. Durable.

        Samples that are so already are left as they are.

        Args:
            keys: The samples.
            change: What is to be said.

        Returns:
            Where the act lies, and how many samples it changed.

        Raises:
            InputError: It changes another number of samples than the person was told, or more than
                one act may; a reason is missing, or the dataset cannot be written to.
        """
        with self._writing:
            self._table.hear()
            new = self.outlook(keys, change.act).keys
            if len(new) != change.count:
                message = (
                    f"you were asked about {change.count:,} samples, and this would change "
                    f"{len(new):,} by now: somebody else has changed some of them. Nothing was "
                    "written; press Reload, look again, and repeat it"
                )
                raise InputError(message)
            if len(new) > MOST_AT_ONCE:
                message = (
                    f"this would change {len(new):,} samples, expected at most {MOST_AT_ONCE:,} at "
                    "one time; narrow the filter, to a slice or a shard for example"
                )
                raise InputError(message)
            text = change.text.strip()
            if change.act in ("exclude", "include"):
                return self._exclude(new, change.act, text), len(new)
            at = datetime.now(UTC)
            marks = [Mark(key=key, act=change.act, who=self._who, at=at) for key in new]
            return self._mark(marks), len(new)

    def undo(self, path: str) -> int:
        """Take an act back, as far as nobody has said anything else of its samples since.

        Args:
            path: Where the act lies.

        Returns:
            How many samples are as they were before it.

        Raises:
            InputError: There is no such act, or the dataset cannot be written to.
        """
        with self._writing:
            self._table.hear()
            exclusions, marks = self._table.exclusions.files, self._table.marks.files
            known = {"who": self._who, "settled": self._taken_back}
            if path in self._taken_back:
                return 0
            if path in exclusions:
                lines = taken_back_exclusions(exclusions, path, **known)
                back = EXCLUSIONS.append(self._store.objects, lines) if lines else ""
                self._stale = self._stale or bool(lines)
            elif path in marks:
                lines = taken_back_marks(marks, path, **known)
                back = MARKS.append(self._store.objects, lines) if lines else ""
            else:
                folder = EXCLUSION_FOLDER if path.startswith(EXCLUSION_FOLDER) else MARK_FOLDER
                message = f"there is no act {path!r} to take back: it is not in {folder} any more"
                raise InputError(message)
            self._taken_back[path] = back
            self._table.hear()
            return len(lines)

    def bring_card_up_to_date(self) -> None:
        """Write the dataset's card if exclusions have changed since; it counts them.

        A card that cannot be written is told in the log; `magicseg verify --repair` writes it.
        """
        with self._card:
            if not self._stale:
                return
            self._stale = False
            try:
                write_card(self._store)
            except EngineError as error:
                _log.warning("the card was not brought up to date: %s", error)

    def _mark(self, lines: Sequence[Mark]) -> str:
        path = MARKS.append(self._store.objects, lines) if lines else ""
        self._table.hear()
        return path

    def _exclude(self, keys: Sequence[str], act: Literal["exclude", "include"], why: str) -> str:
        if not why:
            message = "no reason is given: say why in a few words, for whoever meets it later"
            raise InputError(message)
        at = datetime.now(UTC)
        lines = [
            Exclusion(key=key, act=act, by="hand", who=self._who, at=at, why=why) for key in keys
        ]
        path = EXCLUSIONS.append(self._store.objects, lines) if lines else ""
        self._stale = self._stale or bool(lines)
        self._table.hear()
        return path
