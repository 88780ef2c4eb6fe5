"""Spans: which positions of a slice something holds."""

import bisect


class Spans:
    """Half-open ranges of positions, joined where they touch."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def add(self, start: int, stop: int) -> None:
        """Add the positions from `start` to before `stop`."""
        if start >= stop:
            return
        first = bisect.bisect_left(self._stops, start)
        last = bisect.bisect_right(self._starts, stop)
        if first < last:
            start, stop = min(start, self._starts[first]), max(stop, self._stops[last - 1])
        self._starts[first:last], self._stops[first:last] = [start], [stop]

    def has(self, position: int) -> bool:
        """Whether a position is held."""
        return self.hold(position, position + 1)

    def hold(self, start: int, stop: int) -> bool:
        """Whether every position from `start` to before `stop` is held."""
        index = bisect.bisect_right(self._starts, start) - 1
        return index >= 0 and self._stops[index] >= stop
