"""Work on pixels, spread over the processor's cores, because a GPU waits for it."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_ItemT = TypeVar("_ItemT")
_DoneT = TypeVar("_DoneT")


def usable_cores() -> int:
    """Cores that this process may use, which its affinity may keep below those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_threads(work: Callable[[_ItemT], _DoneT], items: Sequence[_ItemT]) -> list[_DoneT]:
    """Do the same work on each item, on as many threads as there are cores.

    Args:
        work: Must not depend on what else is worked on.
        items: What it is done on.

    Returns:
        What it gave, in the order of the items; its first error is raised.
    """
    threads = min(len(items), usable_cores())
    if threads <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads, "pixels") as pool:
        return list(pool.map(work, items))
