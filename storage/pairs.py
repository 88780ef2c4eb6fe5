"""The output of a stage that paints: an archive of encoded images, with the rows about them."""

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
_IMAGE, _TWIN = "", ".cf"
"""What stands between a sample's key and the extension of a picture."""
_MAPS = ".attention.safetensors"
"""What stands behind a sample's key where its attention maps are."""


@dataclass(frozen=True)
class EncodedPair:
    """A painted pair as encoded images, or one of the two where they are painted one by one.

    Attributes:
        key: Sample key.
        image_bytes: Positive image, JPEG or PNG; empty if it is elsewhere.
        counterfactual_bytes: Counterfactual image, in the same format and size; empty if it is
            elsewhere.
        maps_bytes: The painter's attention maps; empty if none were recorded.
        source: The archive that it was read from; empty if it was made.
    """

    key: str
    image_bytes: bytes
    counterfactual_bytes: bytes
    maps_bytes: bytes = b""
    source: str = field(default="", compare=False, repr=False, kw_only=True)


def pack_pairs(pairs: Sequence[EncodedPair], dropped: Iterable[Rejected]) -> memoryview:
    """Pack pairs and rejections: first the rows, then the pictures and maps of each pair.

    They are ``<key>.<ext>``, ``<key>.cf.<ext>`` and ``<key>.attention.safetensors``.

    Args:
        pairs: What was painted; each has at least one of its pictures.
        dropped: Why there is nothing.

    Returns:
        A tar archive whose bytes depend on the arguments alone; pairs are sorted by key.
    """
    ordered = sorted(pairs, key=lambda pair: pair.key)
    return write_archive(_members(ordered, dropped))


def read_pair_rows(
    data: Source, *, name: str = "a pairs archive"
) -> tuple[list[Pair], list[Rejected]]:
    """Read the records of the pairs and of the rejections, without the images."""
    return _rows_of(next(read_archive(data, name), ("", b"")), name)


def iterate_pairs(source: Source, name: str) -> Iterator[EncodedPair]:
    """Stream the pairs of an archive, in key order, one in memory at a time.

    Args:
        source: What `pack_pairs` made, in memory or as an open file.
        name: What messages call the archive.

    Raises:
        DataError: The archive is cut, an image or maps are missing or not where they should be, or
            are not what the rows say; pictures are not decoded.
    """
    members = read_archive(source, name)
    pairs, _ = _rows_of(next(members, ("", b"")), name)
    for pair in pairs:
        parts = _parts_of(pair)
        found = [next(members, ("nothing", b"")) for _ in parts]
        names = [member for member, _ in found]
        if names not in ([_member(pair.key, part, kind) for part in parts] for kind in _KINDS):
            message = f"{name} holds {', '.join(names)} where {pair.key} should be; verify it"
            raise DataError(message)
        data_of = dict(zip(parts, (data for _, data in found), strict=True))
        for (part, data), member in zip(data_of.items(), names, strict=True):
            _check_part(part, data, pair, f"{name}: {member}")
        pictures = data_of.get(_IMAGE, b""), data_of.get(_TWIN, b"")
        yield EncodedPair(pair.key, *pictures, data_of.get(_MAPS, b""), source=name)
    if left := next(members, None):
        message = f"{name} holds {left[0]}, of which its {_ROWS} says nothing; verify it"
        raise DataError(message)


def describe_pairs(pairs: Iterable[EncodedPair]) -> list[Pair]:
    """The records of painted pairs: their sizes, and how to recognise their bytes."""
    records: list[Pair] = []
    for pair in pairs:
        width, height = image_size(pair.image_bytes or pair.counterfactual_bytes)
        records.append(
            Pair(
                key=pair.key,
                width=width,
                height=height,
                image_sha256=_digest(pair.image_bytes),
                counterfactual_sha256=_digest(pair.counterfactual_bytes),
                maps_sha256=_digest(pair.maps_bytes),
            )
        )
    return records


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest() if data else ""


def _members(
    pairs: Sequence[EncodedPair], dropped: Iterable[Rejected]
) -> Iterator[tuple[str, bytes]]:
    yield _ROWS, write_rows([*describe_pairs(pairs), *dropped])
    for pair in pairs:
        extension = image_format(pair.image_bytes or pair.counterfactual_bytes)
        parts = {
            _IMAGE: pair.image_bytes,
            _TWIN: pair.counterfactual_bytes,
            _MAPS: pair.maps_bytes,
        }
        for part, data in parts.items():
            if data:
                yield _member(pair.key, part, extension), data


def _member(key: str, part: str, extension: str) -> str:
    return f"{key}{part}" if part == _MAPS else f"{key}{part}.{extension}"


def _parts_of(pair: Pair) -> list[str]:
    """What an archive holds of a pair, by its record."""
    parts = {
        _IMAGE: pair.has_image,
        _TWIN: pair.has_counterfactual,
        _MAPS: bool(pair.maps_sha256),
    }
    return [part for part, is_here in parts.items() if is_here]


def _check_part(part: str, data: bytes, pair: Pair, name: str) -> None:
    if part != _MAPS:
        _check_picture(data, pair, name)
    elif _digest(data) != pair.maps_sha256:
        message = f"{name} is not what was recorded (its digest is another); verify it"
        raise DataError(message)


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
