"""Time and memory of several ways to do the same work, taken in turns in one process."""

import ctypes
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

Work = Callable[[], object]
Clock = Callable[[], float]
Row = dict[str, Any]

_ROUNDS = 2
_TURN_SECONDS = 0.02
_CLEAR_PEAK = "5"


def cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended.

    Neighbours on the machine can add nothing to it but cold caches.
    """
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def gpu_seconds() -> float:
    """Time of day once the GPU has done all that it was given."""
    torch.cuda.synchronize()
    return time.perf_counter()


def seconds_on(device: str) -> Clock:
    """The clock for work on a device."""
    return cpu_seconds if device == "cpu" else gpu_seconds


def compare(
    ways: Mapping[str, Work],
    *,
    repeats: int,
    items: int | Mapping[str, int] = 1,
    clock: Clock = cpu_seconds,
) -> list[Row]:
    """Time ways to do the same work on one thread; the first one is ours.

    The ways take turns, so that a slow minute of the machine hits them all; short work is done
    several times a turn, because its first run finds the caches of its predecessor. They should
    have run before, as comparing their results needs anyway.

    Args:
        ways: What each way is called, and the work.
        repeats: Turns of each way in each of two rounds.
        items: Times are divided by this; of each way by its own, if it does not do as many.
        clock: What is measured.

    Returns:
        A row a way: `best_ms` and `median_ms` of an item, and `times_ours`, in each round the best
        time as a multiple of ours.
    """
    torch.set_num_threads(1)
    rounds = [_round(ways, repeats, clock) for _ in range(_ROUNDS)]
    ours = next(iter(ways))
    each = items if isinstance(items, Mapping) else dict.fromkeys(ways, items)
    rounds = [
        {name: [seconds / each[name] for seconds in taken[name]] for name in ways}
        for taken in rounds
    ]
    rows: list[Row] = []
    for name in ways:
        times = [1e3 * seconds for taken in rounds for seconds in taken[name]]
        rows.append(
            {
                "what": name,
                "best_ms": _short(min(times)),
                "median_ms": _short(statistics.median(times)),
                "times_ours": [_short(min(taken[name]) / min(taken[ours]), 3) for taken in rounds],
            }
        )
    return rows


def peak_megabytes(work: Work, device: str = "cpu") -> float:
    """Run the work and say how far memory rose above what was held before, in 10^6 bytes.

    On a CPU this is the process's resident memory as Linux counts it, on a GPU what torch holds.
    """
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return round((torch.cuda.max_memory_allocated() - held) / 1e6, 1)
    # Pages that the allocator keeps for later would hide what the work takes from them.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text(_CLEAR_PEAK, encoding="ascii")
    held = _status("VmRSS")
    work()
    return round((_status("VmHWM") - held) / 1e6, 1)


def _round(ways: Mapping[str, Work], repeats: int, clock: Clock) -> dict[str, list[float]]:
    """Seconds of every run of every way."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, work in ways.items():
            taken[name] += _turn(work, clock)
    return taken


def _turn(work: Work, clock: Clock) -> list[float]:
    times: list[float] = []
    while sum(times) < _TURN_SECONDS:
        began = clock()
        work()
        times.append(clock() - began)
    return times


def _status(field: str) -> int:
    """A size of this process in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    message = f"/proc/self/status has no {field}: memory can be measured on Linux only"
    raise OSError(message)


def _short(number: float, digits: int = 4) -> float:
    return float(f"{number:.{digits}g}")
