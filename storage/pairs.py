"""The output of the pairs stage: an archive of encoded images, with the rows about them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from storage.archives import Source, read_archive, write_archive
from storage.errors import DataError
from storage.picture_headers import image_format, image_size
from storage.records import Pair, Record, Rejected
from storage.rows import read_rows, split_rows, write_rows

_ROWS = "rows.jsonl"


@dataclass(frozen=True)
class EncodedPair:
    """A painted pair as encoded images.

    Attributes:
        key: Sample key.
        image_bytes: Positive image, JPEG or PNG.
        counterfactual_bytes: Counterfactual image, in the same format and size.
    """

    key: str
    image_bytes: bytes
    counterfactual_bytes: bytes


def pack_pairs(pairs: Sequence[EncodedPair], dropped: Iterable[Rejected]) -> memoryview:
    """Pack pairs and rejections: first the rows, then ``<key>.<ext>`` and ``<key>.cf.<ext>``.

    Returns:
        A tar archive whose bytes depend on the arguments alone; pairs are sorted by key.
    """
    ordered = sorted(pairs, key=lambda pair: pair.key)
    return write_archive(_members(ordered, dropped))


def read_pair_rows(data: bytes | memoryview) -> tuple[list[Pair], list[Rejected]]:
    """Read the records of the pairs and of the rejections, without the images."""
    return _rows_of(next(read_archive(data, "pairs"), ("", b"")))


def iterate_pairs(source: Source, name: str) -> Iterator[EncodedPair]:
    """Stream the pairs of an archive, in key order, one in memory at a time.

    Args:
        source: What `pack_pairs` made, in memory or as an open file.
        name: What messages call the archive.

    Raises:
        DataError: The archive is cut, or an image of a pair is missing.
    """
    members = read_archive(source, name)
    pairs, _ = _rows_of(next(members, ("", b"")))
    for pair in pairs:
        image_name, image = next(members, ("nothing", b""))
        other_name, counterfactual = next(members, ("nothing", b""))
        if not (image_name.startswith(pair.key) and other_name.startswith(f"{pair.key}.cf.")):
            message = (
                f"{name} holds {image_name}, {other_name} where {pair.key} should be; verify it"
            )
            raise DataError(message)
        yield EncodedPair(pair.key, image, counterfactual)


def _members(
    pairs: Sequence[EncodedPair], dropped: Iterable[Rejected]
) -> Iterator[tuple[str, bytes]]:
    records: list[Record] = []
    for pair in pairs:
        width, height = image_size(pair.image_bytes)
        records.append(Pair(key=pair.key, width=width, height=height))
    yield _ROWS, write_rows([*records, *dropped])
    for pair in pairs:
        extension = image_format(pair.image_bytes)
        yield f"{pair.key}.{extension}", pair.image_bytes
        yield f"{pair.key}.cf.{extension}", pair.counterfactual_bytes


def _rows_of(member: tuple[str, bytes]) -> tuple[list[Pair], list[Rejected]]:
    name, data = member
    if name != _ROWS:
        message = f"a pairs archive starts with {name!r}; expected {_ROWS!r}; verify the dataset"
        raise DataError(message)
    return split_rows(read_rows(data), Pair)
