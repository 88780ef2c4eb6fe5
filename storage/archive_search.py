"""A sample found in a long archive by a few short reads, wherever the archive lies.

Archives of ours are sorted by key and have no index. How many keys there are is known from the
records, so where a sample begins can be estimated between two places that are known. There the next
header is looked for, which says what lies there, and the estimate begins again between closer
places. What was found is remembered. Bytes of a picture may look like a header: whoever reads holds
what is found against the digests of the manifest.
"""

import re
import tarfile
import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from storage.archives import MAX_MEMBER_BYTES
from storage.errors import DataError
from storage.objects import ObjectStore

_BLOCK = tarfile.BLOCKSIZE
_NAME = re.compile(r"([^./\\\x00-\x1f\x7f]+)\.([^/\\\x00-\x1f\x7f]+)")
_MAGIC, _MAGIC_AT = b"ustar", 257
_LOOK_BYTES = 32 * 1024
_MOST_AHEAD = 4 * 1024**2
_MOST_PROBES = 24
_NEAR = 2
"""So many samples are walked over by their headers."""


@dataclass(frozen=True)
class _Header:
    """A member: where its header is, whose it is, of which kind, and its bytes."""

    offset: int
    key: str
    kind: str
    size: int

    @property
    def start(self) -> int:
        return self.offset + _BLOCK

    @property
    def end(self) -> int:
        return self.start + -(-self.size // _BLOCK) * _BLOCK


class ArchiveSearch:
    """Finds samples in an archive of ours; may be asked from any thread.

    Args:
        objects: The dataset.
        path: Of the archive.
        size: Its bytes, as its record says.
        keys: Of all samples in it, in any order.
    """

    def __init__(self, objects: ObjectStore, path: str, size: int, keys: Sequence[str]) -> None:
        self._objects = objects
        self._path = path
        self._size = size
        self._places = {key: place for place, key in enumerate(sorted(keys))}
        # where samples begin by their place; -1 is the archive's begin, the last one its end
        self._known = {-1: 0, len(self._places): size}
        self._at, self._buffer = 0, b""
        self._lock = threading.Lock()

    def members(self, key: str, kinds: Sequence[str] = (), *, most: int = 0) -> dict[str, bytes]:
        """Read members of a sample.

        Args:
            key: Its key.
            kinds: Extensions of those that are wanted, as far as they are there; all if empty.
            most: After so many the others are not looked for; 0 for all.

        Returns:
            Bytes by extension.

        Raises:
            DataError: The sample is not there, or the archive is cut or not what was committed.
            FileNotFoundError: The archive is gone.
        """
        if key not in self._places:
            self._refuse(f"has no sample {key} by its record")
        with self._lock:
            return self._members(key, kinds, most)

    def _members(self, key: str, kinds: Sequence[str], most: int) -> dict[str, bytes]:
        begin = self._begin_of(self._places[key])
        if begin is None:
            self._refuse(f"has no sample {key}")
        found: dict[str, bytes] = {}
        ahead = 0 if kinds else min(_MOST_AHEAD, int(1.2 * self._size / len(self._places)))
        for header in self._walk(begin, ahead):
            if header.key != key:
                self._learn(header)  # the next sample is likely to be wanted next
                break
            if not kinds or header.kind in kinds:
                found[header.kind] = self._read(header)
            if len(found) == (most or len(kinds) or -1):
                break
        self._buffer = b""
        return found

    def _begin_of(self, place: int) -> int | None:
        """Where a sample begins; None if it is not there."""
        limit = 0  # no sample that is not known begins from here to the next known place
        for _ in range(_MOST_PROBES):
            if place in self._known:
                return self._known[place]
            below, above = self._between(place)
            if place - below <= _NEAR:
                break
            low, high = self._known[below], self._known[above]
            # in the sample before it, so that the next that begins is the wanted one
            each = (high - low) / (above - below)
            estimate = (low + limit) / 2 if limit else low + each * (place - below - 1)
            offset = max(low + _BLOCK, int(estimate) // _BLOCK * _BLOCK)
            limit = 0 if self._probe(offset, high) else offset
        return self._walk_to(place)

    def _walk_to(self, place: int) -> int | None:
        """Where a sample begins, by the headers from the nearest known place."""
        below, _ = self._between(place)
        for header in self._walk(self._known[below]):
            self._learn(header)
            if self._places.get(header.key, -1) >= place:
                break
        return self._known.get(place)

    def _between(self, place: int) -> tuple[int, int]:
        """The known places on both sides of one that is not known."""
        known = sorted(self._known)
        at = bisect_left(known, place)
        return known[at - 1], known[at]

    def _probe(self, offset: int, end: int) -> bool:
        """Learn which sample begins next to an offset; returns whether that is news."""
        header = self._next_header(offset, end)
        if header is None:
            return False
        for following in self._walk(header.offset):
            if following.offset >= end:
                return False
            if following.key != header.key:
                known = len(self._known)
                self._learn(following)
                return len(self._known) > known
        return False

    def _next_header(self, offset: int, end: int) -> _Header | None:
        """The first header of a member of our samples between two places."""
        for at in range(offset, end - _BLOCK + 1, _BLOCK):
            block = self._bytes(at, _BLOCK)
            if len(block) < _BLOCK:
                return None
            if block[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] == _MAGIC:
                header = self._header(block, at)
                if header is not None and header.key in self._places:
                    return header
        return None

    def _walk(self, offset: int, ahead: int = 0) -> Iterator[_Header]:
        """The members from one on, by their headers."""
        while offset + _BLOCK <= self._size:
            block = self._bytes(offset, _BLOCK, ahead)
            if block == bytes(_BLOCK):
                return
            header = self._header(block, offset)
            if header is None:
                self._refuse(f"has no header of a member at byte {offset}")
            yield header
            offset = header.end

    def _header(self, block: bytes, offset: int) -> _Header | None:
        try:
            found = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.TarError, ValueError):
            return None
        match = _NAME.fullmatch(found.name)
        fits = 0 <= found.size <= min(MAX_MEMBER_BYTES, self._size - offset - _BLOCK)
        return _Header(offset, match[1], match[2], found.size) if match and fits else None

    def _learn(self, header: _Header) -> None:
        """Note where a sample begins, from the header of its first member."""
        place = self._places.get(header.key)
        if place is not None:
            self._known.setdefault(place, header.offset)

    def _read(self, header: _Header) -> bytes:
        data = self._bytes(header.start, header.size)
        if len(data) != header.size:
            self._refuse(f"ends within {header.key}.{header.kind}")
        return data

    def _bytes(self, offset: int, size: int, ahead: int = 0) -> bytes:
        """Bytes of the archive; some more are read with them and kept until they are wanted."""
        start = offset - self._at
        if not 0 <= start <= start + size <= len(self._buffer):
            wanted = min(max(size, ahead, _LOOK_BYTES), max(size, self._size - offset))
            self._buffer = self._objects.read_range(self._path, offset, wanted)
            self._at, start = offset, 0
        return self._buffer[start : start + size]

    def _refuse(self, why: str) -> NoReturn:
        message = (
            f"{self._path} {why}: it is cut or not what was committed; run 'magicseg verify --deep'"
        )
        raise DataError(message)
