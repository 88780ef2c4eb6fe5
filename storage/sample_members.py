"""What a sample consists of in a tar: its members, what its JSON says, and how both are checked.

Members belong together by the name before the first dot, and lie side by side. Members of other
kinds may lie between them; they are left alone.

A sample that was generated has a counterfactual, its twin. A real image with labels has none, and
its JSON another name (`real.json`), so that a twin that is gone is never taken for one that there
never was.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, Field, Json, ValidationError, model_validator

from storage.documents import explain
from storage.errors import DataError
from storage.picture_headers import PictureHeader, read_header
from storage.records import IGNORE_LABEL, Box, Instance, Mention
from storage.run_lengths import check_rle

PartT = TypeVar("PartT")
FieldsT = TypeVar("FieldsT", bound=BaseModel)

Extent = tuple[int, int]
"""Offset and size of a member in its tar, in bytes."""

_FORMATS = ("png", "jpg")
_MASK, _JSON, _REAL_JSON = "mask.png", "json", "real.json"

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
    others: Json[tuple[Instance, ...]] | None = None
    """Objects in the image of classes that nobody asked for, where they were looked for."""
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


class RealFields(BaseModel, frozen=True, strict=True, use_attribute_docstrings=True):
    """What the JSON of a real image says."""

    key: str
    """Sample key."""
    index: int = Field(ge=0, lt=2**63)
    """Position in its split."""
    name: str
    """What its data set calls it."""
    class_ids: tuple[ClassId, ...]
    """Classes in the mask; none if it shows background alone."""
    class_names: tuple[str, ...]
    """Their display names."""
    judged_class_ids: tuple[ClassId, ...] = Field(min_length=1)
    """Classes that its annotators looked for; of others nobody knows whether it shows them."""
    width: int = Field(gt=0)
    """Pixels of both pictures."""
    height: int = Field(gt=0)
    """Pixels."""

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        if len(self.class_names) != len(self.class_ids):
            message = (
                f"{len(self.class_ids)} class_ids have {len(self.class_names)} class_names; "
                "expected a name for each"
            )
            raise ValueError(message)
        if strange := set(self.class_ids).difference(self.judged_class_ids):
            message = f"class {min(strange)} is in the mask, expected it among judged_class_ids"
            raise ValueError(message)
        return self


@dataclass(frozen=True)
class SampleParts:
    """Which of a whole sample's members is what, by their extensions.

    Attributes:
        image: The image.
        twin: Its counterfactual; None for a real image.
        mask: The label map.
        about: The JSON.
    """

    image: str
    twin: str | None
    mask: str
    about: str

    @property
    def pictures(self) -> tuple[str, ...]:
        """The members that are pictures, the image first."""
        return (self.image, *((self.twin,) if self.twin else ()), self.mask)

    @property
    def every(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.pictures, self.about)


def group_members(
    members: Iterable[tuple[str, PartT]], where: str, *, real: bool = False
) -> Iterator[tuple[str, dict[str, PartT]]]:
    """Put the members of each sample together.

    Args:
        members: Name of each member and anything about it, in file order; no name occurs twice.
        where: What messages call the tar.
        real: Whether real images, which have no twin, may be among them.

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
                yield key, _whole(group, key, where, real=real)
            if owner in seen:
                raise _broken(where, owner, "its members do not lie side by side")
            seen.add(owner)
            key, group = owner, {}
        group[extension] = part
    if group:
        yield key, _whole(group, key, where, real=real)


def sample_parts(members: Iterable[str]) -> SampleParts:
    """Tell the members of a whole sample apart, by their extensions."""
    present = set(members)
    kind = next(kind for kind in _FORMATS if kind in present)
    if _REAL_JSON in present:
        return SampleParts(kind, None, _MASK, _REAL_JSON)
    return SampleParts(kind, f"cf.{kind}", _MASK, _JSON)


def read_about(data: bytes, extension: str, key: str, where: str) -> SampleFields | RealFields:
    """Read what the JSON of a sample says, without its pictures.

    Args:
        data: The JSON.
        extension: Its extension, which tells real images from generated ones.
        key: The sample's key by the names of its members.
        where: What messages call the tar.

    Raises:
        DataError: The JSON does not say what it should.
    """
    kind = RealFields if extension == _REAL_JSON else SampleFields
    return _read_fields(kind, data, f"{where}: {key}.{extension}")


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
    fields = _read_fields(SampleFields, parts[_JSON], f"{where}: {key}.{_JSON}")
    height, width = _check_parts(parts, fields, key, where)
    for kind, found in (("instance", fields.instances), ("other", fields.others or ())):
        for number, each in enumerate(found):
            name = f"{where}: {key}.{_JSON}: {kind} {number}"
            check_rle(each.rle, height, width, name=name)
    return fields


def check_real(parts: Mapping[str, bytes], key: str, where: str) -> RealFields:
    """Check of a real image what can be checked without decoding a picture.

    Args:
        parts: The bytes of each member, by extension, whole as `group_members` has it.
        key: The sample's key by the names of its members.
        where: What messages call the tar.

    Returns:
        What the JSON says.

    Raises:
        DataError: The JSON does not say what it should or is about another sample, or the pictures
            are not of one size and of the format in their names.
    """
    fields = _read_fields(RealFields, parts[_REAL_JSON], f"{where}: {key}.{_REAL_JSON}")
    _check_parts(parts, fields, key, where)
    return fields


def _read_fields(kind: type[FieldsT], data: bytes, name: str) -> FieldsT:
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        why = f"does not describe a sample ({explain(kind, error)})"
        raise _wrong(name, why) from error


def _check_parts(
    parts: Mapping[str, bytes], fields: SampleFields | RealFields, key: str, where: str
) -> tuple[int, int]:
    """Hold the JSON against the members beside it; returns their height and width."""
    if fields.key != key:
        raise _broken(where, key, f"its JSON is about sample {fields.key!r}")
    width, height = _check_pictures(parts, key, where)
    said = (fields.width or width, fields.height or height)
    if said != (width, height):
        raise _broken(where, key, f"its JSON says {said} pixels, but it has {(width, height)}")
    return height, width


def _check_pictures(parts: Mapping[str, bytes], key: str, where: str) -> tuple[int, int]:
    """Compare the headers of its pictures; returns width and height."""
    image, *others = sample_parts(parts).pictures
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


def _whole(group: dict[str, PartT], key: str, where: str, *, real: bool) -> dict[str, PartT]:
    present = [kind for kind in _FORMATS if kind in group or f"cf.{kind}" in group]
    if len(present) > 1:
        raise _broken(where, key, f"it has images in {' and '.join(present)}, expected one format")
    kind = present[0] if present else _FORMATS[0]
    wanted = sample_parts((*group, kind)).every
    missing = [name for name in wanted if name not in group]
    if missing:
        raise _broken(where, key, f"it has no {', '.join(map(repr, missing))}")
    if _REAL_JSON in group:
        _check_real_members(group, key, where, allowed=real)
    return group


def _check_real_members(
    group: Mapping[str, object], key: str, where: str, *, allowed: bool
) -> None:
    """Refuse a real image where none may be, and one that is a generated sample too."""
    if not allowed:
        message = (
            f"{where}: sample {key} is a real image without a counterfactual, expected samples "
            "that were generated: train on it, or export it"
        )
        raise DataError(message)
    both = sorted(name for name in group if name == _JSON or name.startswith("cf."))
    if both:
        raise _broken(where, key, f"it has both {_REAL_JSON!r} and {both[0]!r}")


def _broken(where: str, key: str, why: str) -> DataError:
    return _wrong(f"{where}: sample {key}", f"is not whole: {why}")


def _wrong(what: str, why: str) -> DataError:
    return DataError(f"{what} {why}; verify the dataset")
