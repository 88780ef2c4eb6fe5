"""The output of the pairs stage: an archive of encoded images, with the rows about them."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from storage.archives import Source, read_archive, write_archive
from storage.errors import DataError
from storage.picture_headers import image_format, image_size, read_header
from storage.records import Pair, Rejected
from storage.rows import read_rows, split_rows, write_rows

_ROWS = "rows.jsonl"
_KINDS = ("jpg", "png")


@dataclass(frozen=True)
class EncodedPair:
    """A painted pair as encoded images.

    Attributes:
        key: Sample key.
        image_bytes: Positive image, JPEG or PNG.
        counterfactual_bytes: Counterfactual image, in the same format and size.
        source: The archive that it was read from; empty if it was made.
    """

    key: str
    image_bytes: bytes
    counterfactual_bytes: bytes
    source: str = field(default="", compare=False, repr=False, kw_only=True)


def pack_pairs(pairs: Sequence[EncodedPair], dropped: Iterable[Rejected]) -> memoryview:
    """Pack pairs and rejections: first the rows, then ``<key>.<ext>`` and ``<key>.cf.<ext>``.

    Returns:
        A tar archive whose bytes depend on the arguments alone; pairs are sorted by key.
    """
    ordered = sorted(pairs, key=lambda pair: pair.key)
    return write_archive(_members(ordered, dropped))


def read_pair_rows(
    data: bytes | memoryview, *, name: str = "a pairs archive"
) -> tuple[list[Pair], list[Rejected]]:
    """Read the records of the pairs and of the rejections, without the images."""
    return _rows_of(next(read_archive(data, name), ("", b"")), name)


def iterate_pairs(source: Source, name: str) -> Iterator[EncodedPair]:
    """Stream the pairs of an archive, in key order, one in memory at a time.

    Args:
        source: What `pack_pairs` made, in memory or as an open file.
        name: What messages call the archive.

    Raises:
        DataError: The archive is cut, an image is missing or not where it should be, or is not of
            the size that the rows say; pictures are not decoded.
    """
    members = read_archive(source, name)
    pairs, _ = _rows_of(next(members, ("", b"")), name)
    for pair in pairs:
        found = dict([next(members, ("nothing", b"")), next(members, ("nothing", b""))])
        if list(found) not in ([f"{pair.key}.{kind}", f"{pair.key}.cf.{kind}"] for kind in _KINDS):
            message = f"{name} holds {', '.join(found)} where {pair.key} should be; verify it"
            raise DataError(message)
        for member, data in found.items():
            _check_picture(data, pair, f"{name}: {member}")
        yield EncodedPair(pair.key, *found.values(), source=name)
    if left := next(members, None):
        message = f"{name} holds {left[0]}, of which its {_ROWS} says nothing; verify it"
        raise DataError(message)


def describe_pairs(pairs: Iterable[EncodedPair]) -> list[Pair]:
    """The records of painted pairs: their sizes, and how to recognise their bytes."""
    records: list[Pair] = []
    for pair in pairs:
        width, height = image_size(pair.image_bytes)
        digests = (
            hashlib.sha256(data).hexdigest()
            for data in (pair.image_bytes, pair.counterfactual_bytes)
        )
        image, counterfactual = digests
        records.append(
            Pair(
                key=pair.key,
                width=width,
                height=height,
                image_sha256=image,
                counterfactual_sha256=counterfactual,
            )
        )
    return records


def _members(
    pairs: Sequence[EncodedPair], dropped: Iterable[Rejected]
) -> Iterator[tuple[str, bytes]]:
    yield _ROWS, write_rows([*describe_pairs(pairs), *dropped])
    for pair in pairs:
        extension = image_format(pair.image_bytes)
        yield f"{pair.key}.{extension}", pair.image_bytes
        yield f"{pair.key}.cf.{extension}", pair.counterfactual_bytes


def _check_picture(data: bytes, pair: Pair, name: str) -> None:
    header = read_header(data, name)
    if not name.endswith(f".{header.format}") or header.size != (pair.width, pair.height):
        message = (
            f"{name} is a {header.format} of {header.size} pixels, expected what its name says, of "
            f"{(pair.width, pair.height)}; verify it"
        )
        raise DataError(message)


def _rows_of(member: tuple[str, bytes], archive: str) -> tuple[list[Pair], list[Rejected]]:
    name, data = member
    if name != _ROWS:
        message = f"{archive} starts with {name!r}; expected {_ROWS!r}; verify the dataset"
        raise DataError(message)
    place = f"{archive}: {name}"
    pairs, dropped = split_rows(read_rows(data, name=place), Pair, name=place)
    [(key, count)] = Counter(pair.key for pair in pairs).most_common(1) or [("", 0)]
    if count > 1:
        message = f"{place} tells of {key} {count} times, expected once; verify the dataset"
        raise DataError(message)
    return pairs, dropped
