"""Reading the members of 1,000 samples of a tar, beside webdataset, tarfile and the bare bytes.

Ours reads the description of each sample, checks it against its pictures' headers and run lengths,
and gives a record; `ours, members alone` gives the bytes of each sample as the others do.
"""

import tarfile
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import BinaryIO

from webdataset.compat import WebDataset

from benchmarks.measurement import compare
from benchmarks.pictures import draw_samples
from benchmarks.results_file import write_results
from storage.shards import iterate, pack, read_index
from storage.vocabulary import load_vocabulary

SAMPLES = 1_000
_PART = 8 * 1024**2

Members = dict[str, bytes]


def by_index(path: Path) -> list[Members]:
    """Ours: the index of the tar, then each member from its place."""
    index = read_index(path)
    with path.open("rb") as file:
        return [{kind: _at(file, *place) for kind, place in own.items()} for own in index.values()]


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def by_webdataset(path: Path) -> list[Members]:
    """The library's pipeline, without decoding."""
    samples = WebDataset(str(path), shardshuffle=False)
    return [
        {kind: data for kind, data in each.items() if not kind.startswith("__")} for each in samples
    ]


def by_tarfile(path: Path) -> list[Members]:
    """Python's reader; members of a sample by the part of their names before the first dot."""
    found: defaultdict[str, Members] = defaultdict(dict)
    with tarfile.open(path) as archive:
        for member in archive:
            key, _, kind = member.name.partition(".")
            file = archive.extractfile(member)
            found[key][kind] = file.read() if file is not None else b""
    return list(found.values())


def bare(path: Path) -> int:
    """All bytes, some at a time."""
    count = 0
    buffer = bytearray(_PART)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            count += size
    return count


def main() -> None:
    """Check that all give the same members, and time them."""
    samples = draw_samples(SAMPLES, load_vocabulary("lvis1205"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard.tar"
        path.write_bytes(pack(samples))
        assert by_index(path) == by_webdataset(path) == by_tarfile(path)
        assert list(iterate(path)) == samples
        assert bare(path) == path.stat().st_size
        rows = compare(
            {
                "ours, members alone": lambda: by_index(path),
                "ours, checked samples": lambda: sum(1 for _ in iterate(path)),
                "webdataset": lambda: by_webdataset(path),
                "tarfile": lambda: by_tarfile(path),
                "limit: bare bytes": lambda: bare(path),
            },
            repeats=3,
        )
    packages = ("magicseg-engine", "webdataset")
    write_results("shard_read", rows, packages, setting={"samples": SAMPLES})


if __name__ == "__main__":
    main()
