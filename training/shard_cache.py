"""Shards of a remote dataset on the local disk: fetched whole, checked, and kept for a while.

<folder>/<sha256>.tar    a shard; appears whole
         <sha256>.lock   held by the process that fetches it
         <sha256>.tmp    what has come so far
"""

import contextlib
import fcntl
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Self

from storage.corrections import Correction, content_digest
from storage.disk_errors import explained
from storage.errors import DataError, EngineError, InputError
from storage.objects import open_objects
from training.disk import explain_no_room

_log = logging.getLogger(__name__)

_PART = 64 * 1024**2
_THREADS = 4


@dataclass(frozen=True)
class ShardFile:
    """A tar to train on.

    Attributes:
        path: Absolute path or URL.
        identity: SHA-256 of its contents; name and size where nobody has committed it.
        num_bytes: Size of the tar.
        num_samples: Samples in it, if a commit record says so.
        excluded: Keys of samples in it that are left out.
        corrected: Masks of samples in it that were corrected.
        series: What the keys of all its samples begin with, and those of no other shard of its
            folder that names another series; nothing if that is not known.
        classes: Reads which classes its samples have, by key, if a manifest says so.
    """

    path: str
    identity: str
    num_bytes: int
    num_samples: int | None = None
    excluded: frozenset[str] = frozenset()
    corrected: tuple[Correction, ...] = ()
    series: str = ""
    classes: Callable[[], Mapping[str, tuple[int, ...]]] | None = field(
        default=None, compare=False, repr=False
    )

    @property
    def fingerprint(self) -> str:
        """Stands for the samples that are trained on, with their masks."""
        return content_digest(self.identity, self.excluded, self.corrected)

    @property
    def folder(self) -> str:
        """Path or URL of the folder that it is in."""
        return self.path.rpartition("/")[0]

    @property
    def is_remote(self) -> bool:
        """Whether it lies in an object store."""
        return "://" in self.path


class ShardCache:
    """A bounded folder of shards that all processes of a machine may share, runs apart too.

    What was wanted longest ago is removed first. A process that still reads a removed shard goes on
    reading: its mapping outlives the name, until the window after next begins.

    Args:
        folder: Where shards are kept; made when the first one is fetched.
        capacity: Bytes that the shards may take. A shard larger than that is fetched all the same.
    """

    def __init__(self, folder: Path, capacity: int) -> None:
        self.folder = folder
        self.capacity = capacity
        self._pool = ThreadPoolExecutor(_THREADS)
        self._ahead: dict[str, Future[Path | None]] = {}
        self._maps: dict[str, mmap] = {}
        self._wanted: frozenset[str] = frozenset()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def require_room(
        self, sources: Sequence[Sequence[ShardFile]], mixed_shards: int | None
    ) -> None:
        """Check that the windows of an epoch fit: the one in use, and the next one.

        Args:
            sources: All shards of each dataset, each of which has windows of its own.
            mixed_shards: Shards in a window; None means all.

        Raises:
            InputError: If shards would be removed while they are needed.
        """
        sizes = [sorted((each.num_bytes for each in own), reverse=True) for own in sources]
        longest = max(map(len, sizes))

        def needed(windows: int) -> int:
            return sum(sum(own[: 2 * windows]) for own in sizes)

        wanted = needed(longest if mixed_shards is None else mixed_shards)
        if wanted > self.capacity:
            fitting = sum(needed(n) <= self.capacity for n in range(1, longest + 1))
            way = f"set mixed_shards to at most {fitting}, or " if fitting else ""
            message = (
                f"{wanted} bytes of shards are needed at a time, but shard_cache_bytes is "
                f"{self.capacity}: {way}let it be {wanted}"
            )
            raise InputError(message)

    def prefetch(self, shards: Iterable[ShardFile]) -> None:
        """Begin to fetch shards that are going to be needed, the first one first.

        Shards that neither this call nor the one before has named are let go.
        """
        shards = list(shards)
        wanted = frozenset(shard.identity for shard in shards)
        kept = wanted | self._wanted
        self._maps = {name: found for name, found in list(self._maps.items()) if name in kept}
        self._wanted = wanted
        for shard in shards:
            try:
                os.utime(self._target(shard))
            except FileNotFoundError:
                if shard.identity not in self._ahead or self._ahead[shard.identity].done():
                    self._ahead[shard.identity] = self._pool.submit(self._try_fetch, shard)

    def fetch(self, shard: ShardFile) -> Path:
        """Give the local file of a shard; fetch it if it is not there.

        Raises:
            DataError: If what comes is not what was committed.
            InputError: If access is refused, there or to the folder, or the disk is full.
            TransientError: If the object store does not answer.
        """
        target = self._target(shard)
        if os.path.exists(target):  # noqa: PTH110 - says False where it may not look
            return target
        with (
            explained(self.folder, "write", place="shard_cache"),
            explain_no_room(self.folder),
        ):
            self.folder.mkdir(parents=True, exist_ok=True)
            with target.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not target.exists():
                    temporary = target.with_suffix(".tmp")
                    self._reserve(shard.num_bytes, temporary)
                    _download(shard, temporary, target)
        return target

    def read_range(self, shard: ShardFile, offset: int, size: int) -> bytes:
        """Read a part of a shard, see `fetch`."""
        found = self._maps.get(shard.identity)
        if found is None:
            found = self._maps[shard.identity] = self._map(shard)
        return found[offset : offset + size]

    def _map(self, shard: ShardFile) -> mmap:
        while True:
            try:
                with self.fetch(shard).open("rb") as file:
                    return mmap(file.fileno(), 0, access=ACCESS_READ)
            except FileNotFoundError:
                _log.debug("%s was removed before it was opened", shard.path)
            except ValueError as error:
                raise _not_committed(shard, "it is empty") from error

    def _target(self, shard: ShardFile) -> Path:
        return self.folder / f"{shard.identity}.tar"

    def _try_fetch(self, shard: ShardFile) -> Path | None:
        """Fetch ahead; who needs the shard tries again and meets the error."""
        try:
            return self.fetch(shard)
        except EngineError as error:
            _log.warning("%s could not be fetched ahead: %s", shard.path, error)
            return None

    def _reserve(self, size: int, temporary: Path) -> None:
        """Make an empty file of a shard's size, after removing others until it fits."""
        with (self.folder / "room.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            temporary.unlink(missing_ok=True)
            arriving = sum(self._arriving())
            present = [(path.stat(), path) for path in self.folder.glob("*.tar")]
            used = size + arriving + sum(stat.st_size for stat, _ in present)
            for stat, path in sorted(present, key=lambda entry: entry[0].st_mtime_ns):
                if used > self.capacity:
                    path.unlink(missing_ok=True)
                    used -= stat.st_size
            with temporary.open("wb") as file:
                file.truncate(size)

    def _arriving(self) -> Iterator[int]:
        """Sizes of shards that somebody is fetching; what dead processes left is removed."""
        for path in self.folder.glob("*.tmp"):
            with path.with_suffix(".lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    # It may get its name at this moment, and is then counted as present.
                    with contextlib.suppress(FileNotFoundError):
                        yield path.stat().st_size
                else:
                    path.unlink(missing_ok=True)


def _download(shard: ShardFile, temporary: Path, target: Path) -> None:
    """Fetch a shard in parts, so that memory holds one of them, and give it its name."""
    folder, _, name = shard.path.rpartition("/")
    objects = open_objects(folder)
    sha256 = hashlib.sha256()
    try:
        with temporary.open("r+b") as file:
            for offset in range(0, shard.num_bytes, _PART):
                wanted = min(_PART, shard.num_bytes - offset)
                part = objects.read_range(name, offset, wanted)
                if len(part) != wanted:
                    raise _not_committed(shard, f"it ends after {offset + len(part)} bytes")
                sha256.update(part)
                file.write(part)
        if sha256.hexdigest() != shard.identity:
            raise _not_committed(shard, f"its sha256 is {sha256.hexdigest()}")
        temporary.rename(target)
    except FileNotFoundError as error:
        raise _not_committed(shard, "it is gone") from error
    finally:
        temporary.unlink(missing_ok=True)


def _not_committed(shard: ShardFile, why: str) -> DataError:
    return DataError(
        f"{shard.path} is not the committed shard of {shard.num_bytes} bytes with the sha256 "
        f"{shard.identity}: {why}; verify the dataset"
    )
