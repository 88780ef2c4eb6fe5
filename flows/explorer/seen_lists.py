"""The lists that the explorer's page has shown: what is done to all of a list is done to these.

A list says which samples a person saw. The same filter may find others by now: a shard was finished
since, or somebody excluded a sample.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from storage.errors import InputError
from storage.sample_queries import FoundSamples

MOST_LISTS = 32
"""Lists that are remembered."""


@dataclass(frozen=True)
class _Seen:
    keys: list[str]
    rows: Int[np.ndarray, " found"]


class SeenLists:
    """Remembers the latest lists; may be asked from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lists: OrderedDict[str, _Seen] = OrderedDict()

    def keep(self, found: FoundSamples) -> None:
        """Remember a list, of which a page is shown now."""
        with self._lock:
            if found.name not in self._lists:
                rows = found.rows.astype(np.int32)
                self._lists[found.name] = _Seen(found.view.samples.columns.keys, rows)
            self._lists.move_to_end(found.name)
            if len(self._lists) > MOST_LISTS:
                self._lists.popitem(last=False)

    def keys(self, name: str) -> list[str]:
        """The keys of the samples of a list, in its order.

        Raises:
            InputError: It is not remembered.
        """
        with self._lock:
            seen = self._lists.get(name)
            if seen is None:
                message = (
                    f"the list {name!r} is not known here, expected one of the {MOST_LISTS} that "
                    "were shown last since the explorer was started; press Reload, look at what "
                    "is listed, and do it again"
                )
                raise InputError(message)
            self._lists.move_to_end(name)
        return [seen.keys[row] for row in seen.rows.tolist()]
