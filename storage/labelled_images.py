"""Images with label maps: what a network can be trained on, whether there is a twin or not.

Real images come from the folders of a data set and have no counterfactual. They lie in tars like
generated samples, with three members each: the image, its label map, and `<key>.real.json`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from storage.archives import write_archive
from storage.checked_tars import open_tar
from storage.errors import DataError, InputError
from storage.picture_headers import image_format, image_size
from storage.sample_members import check_real, check_sample, sample_parts
from storage.shards import read_index, read_parts


@dataclass(frozen=True)
class LabelledImage:
    """An image with its label map.

    Attributes:
        key: Sample key.
        class_ids: Vocabulary indices of the classes in the mask.
        class_names: Their display names, in the same order.
        image_bytes: JPEG or PNG.
        mask_bytes: Label map, 16-bit grayscale PNG: ``class_id + 1``, 0 background, 65535 ignored.
        judged_class_ids: Classes that its annotators looked for: where the mask says background
            there is none of these. None for a generated image, whose background is taken for none
            of all classes.
        source: The tar that it was read from; empty if it was made.
    """

    key: str
    class_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    image_bytes: bytes
    mask_bytes: bytes
    judged_class_ids: tuple[int, ...] | None = None
    source: str = field(default="", compare=False, repr=False, kw_only=True)

    def part(self, kind: str) -> str:
        """Name a member for messages: where it was read, key and extension.

        Args:
            kind: ``image`` or ``mask``.
        """
        where = f"{self.source}: " if self.source else ""
        extension = "mask.png" if kind == "mask" else image_format(self.image_bytes)
        return f"{where}{self.key}.{extension}"


@dataclass(frozen=True)
class RealImage:
    """A real image that is to be packed.

    Attributes:
        labelled: The image, with the classes that were looked for.
        index: Position in its split.
        name: What its data set calls it.
    """

    labelled: LabelledImage
    index: int
    name: str


def pack_real_images(images: Sequence[RealImage]) -> memoryview:
    """Pack real images into a tar archive.

    Returns:
        The archive; its bytes depend on the images alone.

    Raises:
        InputError: Two have the same key, or one could not be read again: its pictures differ in
            size, or a class in its mask is none that was looked for.
    """
    ordered = sorted(images, key=lambda image: image.labelled.key)
    for before, after in pairwise(ordered):
        if before.labelled.key == after.labelled.key:
            message = f"sample key {after.labelled.key} occurs twice in a tar; keys must be unique"
            raise InputError(message)
    return write_archive(member for image in ordered for member in _members(image))


def iterate_labelled(path: str | Path, identity: str = "") -> Iterator[LabelledImage]:
    """Stream the images of a tar, generated and real ones, one in memory at a time.

    Args:
        path: Path or URL of the tar (an object store's tar is fetched whole).
        identity: SHA-256 that its record gives; the tar is checked against it.

    Raises:
        DataError: As `storage.shards.iterate`.
    """
    members = read_index(path, identity, real=True)
    with open_tar(path, identity) as file:
        for key, places in members.items():
            which = sample_parts(places)
            parts = read_parts(file, key, places, str(path))
            judged: tuple[int, ...] | None = None
            if which.twin is None:
                fields = check_real(parts, key, str(path))
                judged = fields.judged_class_ids
            else:
                fields = check_sample(parts, key, str(path))
            yield LabelledImage(
                key=key,
                class_ids=fields.class_ids,
                class_names=fields.class_names,
                image_bytes=parts[which.image],
                mask_bytes=parts[which.mask],
                judged_class_ids=judged,
                source=str(path),
            )


def _members(image: RealImage) -> Iterator[tuple[str, bytes]]:
    own = image.labelled
    width, height = image_size(own.image_bytes)
    fields = {
        "key": own.key,
        "index": image.index,
        "name": image.name,
        "width": width,
        "height": height,
        "class_ids": list(own.class_ids),
        "class_names": list(own.class_names),
        "judged_class_ids": list(own.judged_class_ids or ()),
    }
    parts = {
        image_format(own.image_bytes): own.image_bytes,
        "mask.png": own.mask_bytes,
        "real.json": json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode(),
    }
    if "." in own.key:
        message = f"sample key {own.key!r} has a dot, which ends the key in the names of members"
        raise InputError(message)
    try:
        check_real(parts, own.key, "a new tar")
    except DataError as error:
        raise InputError(str(error)) from error
    for kind, data in parts.items():
        yield f"{own.key}.{kind}", data
