"""The pictures that the page keeps scores of, within a bound: the one not used for longest goes."""

import secrets
import threading
from collections import OrderedDict

from flows.student_page.looking import Kept
from storage.errors import InputError

MOST_KEPT_BYTES = 2**30
"""Memory for the pictures of all who look at the page."""


class Keeping:
    """Scores by a token that nobody can guess; threads may share it.

    Args:
        most_bytes: Memory for all of them; the newest is kept whatever its size.
    """

    def __init__(self, most_bytes: int = MOST_KEPT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def num_bytes(self) -> int:
        """What all that is kept takes."""
        with self._lock:
            return sum(each.num_bytes for each in self._kept.values())

    def put(self, kept: Kept, instead_of: str | None) -> str:
        """Keep something in the place of what the same person had; returns its token."""
        token = secrets.token_urlsafe()
        with self._lock:
            self._kept.pop(instead_of or "", None)
            self._kept[token] = kept
            size = sum(each.num_bytes for each in self._kept.values())
            while size > self._most_bytes and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                size -= oldest.num_bytes
        return token

    def get(self, token: str) -> Kept:
        """What was kept.

        Raises:
            InputError: If it has made room for others.
        """
        with self._lock:
            if token not in self._kept:
                message = "the scores of this picture have made room for others: press Find again"
                raise InputError(message)
            self._kept.move_to_end(token)
            return self._kept[token]

    def drop(self, token: str | None) -> None:
        """Forget what somebody had."""
        with self._lock:
            self._kept.pop(token or "", None)
