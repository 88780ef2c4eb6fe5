"""Shards: finished samples in WebDataset tar archives."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from storage.archives import index_archive, read_archive, write_archive
from storage.checked_tars import open_tar
from storage.codecs import image_format, image_size
from storage.errors import DataError, InputError
from storage.records import Box, Instance, Mention

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


def pack(samples: Sequence[Sample]) -> memoryview:
    """Pack samples into a tar archive.

    Every sample has the members ``<key>.jpg|png``, ``<key>.cf.jpg|png``, ``<key>.mask.png`` and
    ``<key>.json``, in this order, samples sorted by key.

    Returns:
        The archive; its bytes depend on the samples alone, not on their order or the time.

    Raises:
        InputError: Two samples have the same key, a sample has no class, or its images differ in
            format or size.
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
        DataError: The tar is cut, not what was committed, or a sample misses a member or a field.
    """
    with open_tar(path, identity) as file:
        yield from _samples(read_archive(file, str(path)), str(path))


def read_index(path: str | Path, identity: str = "") -> dict[str, dict[str, tuple[int, int]]]:
    """Index a shard for random access.

    Args:
        path: Path or URL of the tar.
        identity: SHA-256 that its record gives; the tar is checked against it.

    Returns:
        By sample key, in file order: offset and size in bytes of each member, by extension
        (``jpg`` or ``png``, ``cf.jpg`` or ``cf.png``, ``mask.png``, ``json``).

    Raises:
        DataError: The tar is cut, or not what was committed.
    """
    index: dict[str, dict[str, tuple[int, int]]] = {}
    with open_tar(path, identity) as file:
        for member, offset, size in index_archive(file, str(path)):
            key, _, extension = member.partition(".")
            index.setdefault(key, {})[extension] = (offset, size)
    return index


def count_samples(data: bytes | memoryview) -> int:
    """Count the samples of a packed shard by walking its headers."""
    return sum(name.endswith(".json") for name, _, _ in index_archive(data, "shard"))


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
    yield f"{sample.key}.{extension}", sample.image_bytes
    yield f"{sample.key}.cf.{extension}", sample.counterfactual_bytes
    yield f"{sample.key}.mask.png", sample.mask_bytes
    yield f"{sample.key}.json", _describe(sample, *sizes.pop())


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
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def _samples(members: Iterator[tuple[str, bytes]], where: str) -> Iterator[Sample]:
    group: dict[str, bytes] = {}
    key = ""
    for name, data in members:
        key, _, extension = name.partition(".")
        group[extension] = data
        if extension == "json":
            yield _sample(key, group, where)
            group = {}
    if group:
        raise _broken(where, key, f"it ends after {', '.join(group)}")


def _sample(key: str, group: dict[str, bytes], where: str) -> Sample:
    extension = "png" if "png" in group else "jpg"
    try:
        fields: dict[str, Any] = json.loads(group["json"])
        return Sample(
            key=fields["key"],
            index=fields["index"],
            text=fields["text"],
            counterfactual_text=fields["counterfactual_text"],
            class_ids=tuple(fields["class_ids"]),
            class_names=tuple(fields["class_names"]),
            mentions=_MENTIONS.validate_json(fields["mentions"]),
            seed=fields["seed"],
            instances=_INSTANCES.validate_json(fields["instances"]),
            image_bytes=group[extension],
            counterfactual_bytes=group[f"cf.{extension}"],
            mask_bytes=group["mask.png"],
            writer=fields["writer"],
            counterfactual_boxes=_BOXES.validate_json(fields["counterfactual_boxes"]),
        )
    except KeyError as error:
        raise _broken(where, key, f"it has no {error}") from error
    except (ValueError, ValidationError) as error:
        raise _broken(where, key, str(error)) from error


def _broken(where: str, key: str, why: str) -> DataError:
    return DataError(f"{where}: sample {key} is not whole: {why}; verify the dataset")
