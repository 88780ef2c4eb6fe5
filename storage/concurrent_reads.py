"""Reading many small objects side by side, in order, with a bounded number in memory."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

_LARGEST_BATCH = 16
_BATCHES_A_WORKER = 2


def read_in_order(
    read: Callable[[str], bytes], paths: Sequence[str], workers: int
) -> Iterator[tuple[str, bytes | None]]:
    """Read objects with several threads.

    At most ``32 * workers`` of them are in memory. The error of a read reaches the caller in the
    turn of its batch; then, and when the caller stops early, what has not begun is not read.

    Args:
        read: Reads one.
        paths: What to read.
        workers: Threads, at least one.

    Yields:
        Each path with its bytes, in the order given; None for one that has vanished.
    """
    # a handful for each thread, so that a few slow ones are shared out too
    batch = max(1, min(_LARGEST_BATCH, len(paths) // (workers * 4)))
    starts = iter(range(0, len(paths), batch))
    waiting: deque[Future[list[tuple[str, bytes | None]]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="read") as pool:
        try:
            for start in starts:
                waiting.append(pool.submit(_read_batch, read, paths[start : start + batch]))
                if len(waiting) >= workers * _BATCHES_A_WORKER:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _read_batch(
    read: Callable[[str], bytes], paths: Sequence[str]
) -> list[tuple[str, bytes | None]]:
    return [(path, _read_if_there(read, path)) for path in paths]


def _read_if_there(read: Callable[[str], bytes], path: str) -> bytes | None:
    try:
        return read(path)
    except FileNotFoundError:
        return None
