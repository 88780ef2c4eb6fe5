"""What people change from the explorer's page: exclusions, flags and notes."""

import logging
import threading
from typing import Literal

from pydantic import Field

from flows.exclusions import who_is_here
from storage.card import write_card
from storage.errors import EngineError, InputError
from storage.exclusions import exclude_samples, excluded_keys, include_samples
from storage.marks import MAX_NOTE, mark_samples
from storage.records import Record
from storage.sample_table import SampleTable
from storage.store import Store

_log = logging.getLogger(__name__)


class Change(Record, frozen=True):
    """What is to be said of a sample."""

    key: str = Field(min_length=1, max_length=200)
    """Sample key."""
    act: Literal["exclude", "include", "flag", "unflag", "note"]
    """What."""
    text: str = Field(default="", max_length=MAX_NOTE)
    """The reason of an exclusion or inclusion, or the note."""


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
        self._card = threading.Lock()
        self._stale = False

    def change(self, change: Change) -> None:
        """Say something of a sample. Durable; what others say meanwhile stays.

        Raises:
            InputError: There is no such sample, it is in no tar and cannot be left out, a reason is
                missing, or the dataset cannot be written to.
        """
        key, text = change.key, change.text.strip()
        if self._table.facts(key) is None:
            message = f"there is no sample {key!r} in the dataset any more; reload the page"
            raise InputError(message)
        if change.act == "exclude" or change.act == "include":
            self._exclude(change)
        else:
            mark_samples(self._store.objects, [key], change.act, who=self._who, text=text)
        self._table.hear()

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

    def _exclude(self, change: Change) -> None:
        words = {"who": self._who, "why": change.text.strip()}
        if change.act == "exclude":
            if change.key not in self._table.written:
                message = (
                    f"sample {change.key} is in no tar, so there is nothing to leave out: it was "
                    "dropped on the way. Flag it, or write a note"
                )
                raise InputError(message)
            exclude_samples(self._store, [change.key], known=self._table.written, **words)
        elif change.key in excluded_keys(self._store.objects):
            include_samples(self._store, [change.key], **words)
        self._stale = True
