"""What a sample consists of in a tar: its members, what its JSON says, and how both are checked.

Members belong together by the name before the first dot, and lie side by side. Members of other
kinds may lie between them; they are left alone.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, Field, Json, ValidationError, model_validator

from storage.documents import explain
from storage.errors import DataError
from storage.picture_headers import PictureHeader, read_header
from storage.records import IGNORE_LABEL, Box, Instance, Mention
from storage.run_lengths import check_rle

PartT = TypeVar("PartT")

Place = tuple[int, int]
"""Offset and size of a member in its tar, in bytes."""

_FORMATS = ("png", "jpg")
_MASK, _JSON = "mask.png", "json"

ClassId = Annotated[int, Field(ge=0, lt=IGNORE_LABEL - 1)]
"""A vocabulary index whose label has room in a label map."""


class SampleFields(BaseModel, frozen=True, strict=True, use_attribute_docstrings=True):
    """What the JSON of a sample says; fields that it has besides are left alone."""

    key: str
    """Sample key."""
    index: int = Field(ge=0, lt=2**63)
    """Position in the slice."""
    text: str
    """What the image shows."""
    counterfactual_text: str
    """The same with the class mentions replaced."""
    class_ids: tuple[ClassId, ...] = Field(min_length=1)
    """Classes in the mask."""
    class_names: tuple[str, ...]
    """Their display names."""
    mentions: Json[tuple[Mention, ...]]
    """Where the text names them."""
    seed: int = Field(ge=0, lt=2**63)
    """Seed of the sample's random choices."""
    instances: Json[tuple[Instance, ...]]
    """Masks of single objects."""
    writer: str
    """What wrote the text."""
    counterfactual_boxes: Json[tuple[Box, ...]]
    """What the detector still sees in the counterfactual."""
    width: int | None = Field(default=None, gt=0)
    """Pixels of all three pictures; they are held against it where it is said."""
    height: int | None = Field(default=None, gt=0)
    """Pixels."""

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if len(self.class_names) != len(self.class_ids):
            message = (
                f"{len(self.class_ids)} class_ids have {len(self.class_names)} class_names; "
                "expected a name for each"
            )
            raise ValueError(message)
        return self


def group_members(
    members: Iterable[tuple[str, PartT]], where: str
) -> Iterator[tuple[str, dict[str, PartT]]]:
    """Put the members of each sample together.

    Args:
        members: Name of each member and anything about it, in file order; no name occurs twice.
        where: What messages call the tar.

    Yields:
        Key of each sample, and what was said about its members, by extension.

    Raises:
        DataError: A member is none of a sample; a sample misses a member, has its image in two
            formats, or its members do not lie side by side.
    """
    seen: set[str] = set()
    key, group = "", dict[str, PartT]()
    for name, part in members:
        owner, _, extension = name.partition(".")
        if not owner or not extension:
            raise _wrong(where, f"holds {name!r}, expected members named <key>.<kind>")
        if owner != key:
            if group:
                yield key, _whole(group, key, where)
            if owner in seen:
                raise _broken(where, owner, "its members do not lie side by side")
            seen.add(owner)
            key, group = owner, {}
        group[extension] = part
    if group:
        yield key, _whole(group, key, where)


def sample_extensions(members: Iterable[str]) -> tuple[str, str, str, str]:
    """Extensions of image, counterfactual, label map and JSON among those of a whole sample."""
    present = set(members)
    kind = next(kind for kind in _FORMATS if kind in present)
    return kind, f"cf.{kind}", _MASK, _JSON


def check_sample(parts: Mapping[str, bytes], key: str, where: str) -> SampleFields:
    """Check what can be checked without decoding a picture.

    Args:
        parts: The bytes of each member, by extension, whole as `group_members` has it.
        key: The sample's key by the names of its members.
        where: What messages call the tar.

    Returns:
        What the JSON says.

    Raises:
        DataError: The JSON does not say what it should or is about another sample, the pictures are
            not of one size and of the format in their names, or an instance's mask is not of it.
    """
    fields = _read_fields(parts[_JSON], f"{where}: {key}.{_JSON}")
    if fields.key != key:
        raise _broken(where, key, f"its JSON is about sample {fields.key!r}")
    width, height = _check_pictures(parts, key, where)
    said = (fields.width or width, fields.height or height)
    if said != (width, height):
        raise _broken(where, key, f"its JSON says {said} pixels, but it has {(width, height)}")
    for number, each in enumerate(fields.instances):
        name = f"{where}: {key}.{_JSON}: instance {number}"
        check_rle(each.rle, height, width, name=name)
    return fields


def _read_fields(data: bytes, name: str) -> SampleFields:
    try:
        return SampleFields.model_validate_json(data)
    except ValidationError as error:
        why = f"does not describe a sample ({explain(SampleFields, error)})"
        raise _wrong(name, why) from error


def _check_pictures(parts: Mapping[str, bytes], key: str, where: str) -> tuple[int, int]:
    """Compare the three headers; returns width and height."""
    image, *others, _ = sample_extensions(parts)
    size = _checked_header(parts[image], f"{where}: {key}.{image}").size
    for extension in others:
        name = f"{where}: {key}.{extension}"
        found = _checked_header(parts[extension], name).size
        if found != size:
            raise _wrong(name, f"has {found} pixels, expected {size} as {key}.{image}")
    return size


def _checked_header(data: bytes, name: str) -> PictureHeader:
    header = read_header(data, name)
    expected = name.rpartition(".")[2]
    if header.format != expected:
        raise _wrong(name, f"is a {header.format} file, expected {expected} as its name says")
    return header


def _whole(group: dict[str, PartT], key: str, where: str) -> dict[str, PartT]:
    present = [kind for kind in _FORMATS if kind in group or f"cf.{kind}" in group]
    if len(present) > 1:
        raise _broken(where, key, f"it has images in {' and '.join(present)}, expected one format")
    kind = present[0] if present else _FORMATS[0]
    missing = [name for name in (kind, f"cf.{kind}", _MASK, _JSON) if name not in group]
    if missing:
        raise _broken(where, key, f"it has no {', '.join(map(repr, missing))}")
    return group


def _broken(where: str, key: str, why: str) -> DataError:
    return _wrong(f"{where}: sample {key}", f"is not whole: {why}")


def _wrong(what: str, why: str) -> DataError:
    return DataError(f"{what} {why}; verify the dataset")
