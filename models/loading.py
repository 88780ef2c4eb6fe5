"""One thread at a time loads models in a process: transformers and diffusers are not made for more.

transformers swaps methods of its own classes while it loads and puts back what it found; a second
thread finds what the first one put there, and then every network of the process lacks its tied
parameters. Its modules are imported when a name is first asked for, and two threads that ask at
once can be told that the name does not exist.
"""

import gc
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

LOADING = threading.RLock()
"""Held while a model is built or its weights are read."""


class _Collections:
    """The interpreter's search for garbage, held off while any thread wants that."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._wanting = 0
        self._is_ours = False

    @contextmanager
    def held_off(self) -> Iterator[None]:
        with self._guard:
            if not self._wanting:
                self._is_ours = gc.isenabled()  # else somebody has switched it off for good
                gc.disable()
            self._wanting += 1
        try:
            yield
        finally:
            with self._guard:
                self._wanting -= 1
                if not self._wanting and self._is_ours:
                    gc.enable()


_collections = _Collections()


def importing() -> AbstractContextManager[None]:
    """Import large libraries without a search for garbage in between, in any number of threads.

    What an import makes stays, so that to look through it again and again is in vain: with torch,
    diffusers and Prefect it takes a quarter of the time.
    """
    return _collections.held_off()
