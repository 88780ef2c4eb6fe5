"""Shards: finished samples in WebDataset tar archives."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from pydantic import TypeAdapter

from storage.archives import Source, index_archive, read_member, write_archive
from storage.checked_tars import open_tar
from storage.errors import DataError, InputError
from storage.picture_headers import image_format, image_size
from storage.records import Box, Instance, Mention
from storage.sample_members import Extent, check_sample, group_members, sample_parts

__all__ = ["Sample", "iterate", "pack", "read_index"]

_MENTIONS = TypeAdapter(tuple[Mention, ...])
_INSTANCES = TypeAdapter(tuple[Instance, ...])
_BOXES = TypeAdapter(tuple[Box, ...])


@dataclass(frozen=True)
class Sample:
    """A finished quadruplet: text, image, counterfactual image, masks.

    Attributes:
        key: Sample key.
        index: Position in the slice.
        text: What the positive image shows.
        counterfactual_text: The text of the counterfactual image.
        class_ids: Vocabulary indices of the classes in the mask.
        class_names: Their display names, in the same order.
        mentions: Where the text names them.
        seed: Seed of every random choice for this sample.
        instances: Masks of single objects, before overlaps are resolved.
        image_bytes: Positive image, JPEG or PNG.
        counterfactual_bytes: Counterfactual image, same format and size.
        mask_bytes: Label map, 16-bit grayscale PNG: ``class_id + 1``, 0 background, 65535 ignored.
        writer: What wrote the text.
        counterfactual_boxes: Objects of the same classes found in the counterfactual.
        others: Objects in the image of classes that nobody asked for; None if nobody looked.
        source: The tar that it was read from; empty if it was made.
    """

    key: str
    index: int
    text: str
    counterfactual_text: str
    class_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    mentions: tuple[Mention, ...]
    seed: int
    instances: tuple[Instance, ...]
    image_bytes: bytes
    counterfactual_bytes: bytes
    mask_bytes: bytes
    writer: str = ""
    counterfactual_boxes: tuple[Box, ...] = ()
    others: tuple[Instance, ...] | None = None
    source: str = field(default="", compare=False, repr=False, kw_only=True)

    def member(self, kind: str) -> str:
        """Name a member for messages: where it was read, key and extension.

        Args:
            kind: ``image``, ``counterfactual`` or ``mask``.
        """
        where = f"{self.source}: " if self.source else ""
        extension = "mask.png" if kind == "mask" else image_format(self.image_bytes)
        return f"{where}{self.key}.{'cf.' if kind == 'counterfactual' else ''}{extension}"


def pack(samples: Sequence[Sample]) -> memoryview:
    """Pack samples into a tar archive.

    Every sample has the members ``<key>.jpg|png``, ``<key>.cf.jpg|png``, ``<key>.mask.png`` and
    ``<key>.json``, in this order, samples sorted by key.

    Returns:
        The archive; its bytes depend on the samples alone, not on their order or the time.

    Raises:
        InputError: Two samples have the same key, a sample has no class, its images differ in
            format or size, or `iterate` would not take it.
    """
    ordered = sorted(samples, key=lambda sample: sample.key)
    for before, after in pairwise(ordered):
        if before.key == after.key:
            message = f"sample key {after.key} occurs twice in a shard; keys must be unique"
            raise InputError(message)
    return write_archive(member for sample in ordered for member in _members(sample))


def iterate(path: str | Path, identity: str = "") -> Iterator[Sample]:
    """Stream the samples of a shard, one in memory at a time.

    Args:
        path: Path or URL of the tar (an object store's tar is fetched whole).
        identity: SHA-256 that its record gives; the tar is checked against it.

    Raises:
        DataError: Before the first sample if `read_index` refuses the tar, or it is not what was
            committed; else where a sample's JSON, the headers of its pictures or its run lengths
            do not fit each other. Pictures are not decoded: that is for `storage.codecs`.
    """
    with open_tar(path, identity) as file:
        for key, members in _index(file, str(path)).items():
            yield _read_sample(file, key, members, str(path))


def read_index(
    path: str | Path, identity: str = "", *, real: bool = False
) -> dict[str, dict[str, tuple[int, int]]]:
    """Index a shard for random access.

    Args:
        path: Path or URL of the tar.
        identity: SHA-256 that its record gives; the tar is checked against it.
        real: Whether real images may be in it, which have no counterfactual.

    Returns:
        By sample key, in file order: offset and size in bytes of each member, by extension
        (``jpg`` or ``png``, ``cf.jpg`` or ``cf.png``, ``mask.png``, ``json``; of a real image
        ``jpg`` or ``png``, ``mask.png``, ``real.json``).

    Raises:
        DataError: The tar is cut, not what was committed, or holds something else than whole
            samples.
    """
    with open_tar(path, identity) as file:
        return _index(file, str(path), real=real)


def count_samples(data: bytes | memoryview) -> int:
    """Count the samples of a packed shard by walking its headers."""
    return len(_index(data, "shard"))


def _index(source: Source, where: str, *, real: bool = False) -> dict[str, dict[str, Extent]]:
    found = index_archive(source, where)
    return dict(group_members(((name, (at, size)) for name, at, size in found), where, real=real))


def _members(sample: Sample) -> Iterator[tuple[str, bytes]]:
    extension = image_format(sample.image_bytes)
    shapes = {
        (image_format(data), image_size(data))
        for data in (sample.image_bytes, sample.counterfactual_bytes)
    }
    sizes = {size for _, size in shapes} | {image_size(sample.mask_bytes)}
    if len(shapes) != 1 or len(sizes) != 1:
        message = f"sample {sample.key}: image, counterfactual and mask differ: {shapes}, {sizes}"
        raise InputError(message)
    if not sample.class_ids or len(sample.class_ids) != len(sample.class_names):
        message = (
            f"sample {sample.key}: {len(sample.class_ids)} class ids; expected one or more, named"
        )
        raise InputError(message)
    parts = {
        extension: sample.image_bytes,
        f"cf.{extension}": sample.counterfactual_bytes,
        "mask.png": sample.mask_bytes,
        "json": _describe(sample, *sizes.pop()),
    }
    _check_readable(parts, sample.key)
    for kind, data in parts.items():
        yield f"{sample.key}.{kind}", data


def _check_readable(parts: Mapping[str, bytes], key: str) -> None:
    """Refuse what could be written but not read again."""
    if "." in key:
        message = f"sample key {key!r} has a dot, which ends the key in the names of members"
        raise InputError(message)
    try:
        check_sample(parts, key, "a new shard")
    except DataError as error:
        raise InputError(str(error)) from error


def _describe(sample: Sample, width: int, height: int) -> bytes:
    """Write the fixed JSON: no nulls, no empty lists; what varies in shape is a JSON string."""
    fields = {
        "key": sample.key,
        "index": sample.index,
        "seed": sample.seed,
        "width": width,
        "height": height,
        "text": sample.text,
        "counterfactual_text": sample.counterfactual_text,
        "class_ids": list(sample.class_ids),
        "class_names": list(sample.class_names),
        "writer": sample.writer,
        "mentions": _MENTIONS.dump_json(sample.mentions).decode(),
        "instances": _INSTANCES.dump_json(sample.instances).decode(),
        "counterfactual_boxes": _BOXES.dump_json(sample.counterfactual_boxes).decode(),
    }
    if sample.others is not None:
        fields["others"] = _INSTANCES.dump_json(sample.others).decode()
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def read_parts(
    source: io.BufferedIOBase, key: str, members: Mapping[str, Extent], where: str
) -> dict[str, bytes]:
    """Read the members of a whole sample, by extension.

    Args:
        source: The open tar.
        key: The sample's key.
        members: Where its members are, as `read_index` says it.
        where: What messages call the tar.
    """
    return {
        extension: read_member(source, *members[extension], f"{where}: {key}.{extension}")
        for extension in sample_parts(members).every
    }


def _read_sample(
    source: io.BufferedIOBase, key: str, members: Mapping[str, Extent], where: str
) -> Sample:
    which = sample_parts(members)
    parts = read_parts(source, key, members, where)
    fields = check_sample(parts, key, where)
    return Sample(
        key=fields.key,
        index=fields.index,
        text=fields.text,
        counterfactual_text=fields.counterfactual_text,
        class_ids=fields.class_ids,
        class_names=fields.class_names,
        mentions=fields.mentions,
        seed=fields.seed,
        instances=fields.instances,
        image_bytes=parts[which.image],
        counterfactual_bytes=parts[f"cf.{which.image}"],
        mask_bytes=parts[which.mask],
        writer=fields.writer,
        counterfactual_boxes=fields.counterfactual_boxes,
        others=fields.others,
        source=where,
    )
