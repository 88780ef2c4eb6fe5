"""Label maps in PNG files, read as the numbers that are stored.

What a file holds is said by its header, not by the way in which a decoder shows it: grey of 1, 2,
4, 8 or 16 bits is the label itself. An index into a palette is the label if the palette has the
colours of the benchmark at the same places; programs that rebuild palettes move them, and then the
colour says the label. Pictures in these colours are read as well.
"""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from evaluation.benchmarks.colour_tables import (
    LabelColours,
    Palette,
    as_stored,
    by_colour,
    codes,
    is_ambiguous_grey,
)
from evaluation.benchmarks.split_files import PICTURE, decoding, read_file
from storage.codecs import decode_picture
from storage.errors import DataError
from storage.picture_headers import PictureHeader, read_header
from storage.records import IGNORE_LABEL

Labels = UInt16[np.ndarray, "height width"]

_GREY, _RGB, _PALETTE, _RGBA = 0, 2, 3, 6
_HIGHEST = 65534
_WAY_OUT = "save the labels as a grey PNG of 8 bits (one label a pixel), or fetch the original file"


def read_indices(path: Path, where_to_get: str, known: LabelColours | None = None) -> Labels:
    """Read the labels that a PNG stores.

    Args:
        path: The file.
        where_to_get: Where to get it, as part of a sentence.
        known: Labels and colours of the benchmark; without them palettes are not looked at.

    Raises:
        InputError: If the file is missing.
        DataError: If it cannot be decoded, is no PNG, or its colours do not say the labels.
    """
    data = read_file(path, where_to_get, "an image")
    with decoding(path, data):
        header = read_header(data, PICTURE, way_out="")
    read = _READERS.get((header.colours, header.depth)) if header.format == "png" else None
    if read is None:
        message = f"{path} is {header.described}, expected one label a pixel: {_WAY_OUT}"
        raise DataError(message)
    with decoding(path, data):
        image = decode_picture(data, PICTURE, way_out="")
    return read(image, path, header, known or LabelColours(_HIGHEST, shows=False))


def checked_labels(stored: Labels, path: Path, *, highest: int, void: int | None) -> Labels:
    """Put `IGNORE_LABEL` where a label map says void, and refuse labels that are no class.

    Args:
        stored: The label map as its file has it.
        path: The file, for the message.
        highest: The last class's label.
        void: The label of ignored pixels, if there are any.

    Raises:
        DataError: If a label is neither background, nor a class, nor void.
    """
    ignored = stored == void if void is not None else np.zeros(stored.shape, dtype=bool)
    wrong = (stored > highest) & ~ignored
    if wrong.any():
        allowed = f"0 to {highest}" if void is None else f"0 to {highest} or {void}"
        message = (
            f"{path} holds the label {stored[wrong].max()}, expected {allowed}: is this the "
            f"right benchmark for this folder?"
        )
        raise DataError(message)
    return np.where(ignored, np.uint16(IGNORE_LABEL), stored)


def _grey(image: Image.Image, path: Path, header: PictureHeader, known: LabelColours) -> Labels:
    """Undo what Pillow does to grey: of 2 and 4 bits it is stretched to the range of 8."""
    stored = np.asarray(image).astype(np.uint16)
    return stored // (255 // (2**header.depth - 1)) if 1 < header.depth < 8 else stored


def _indexed(image: Image.Image, path: Path, header: PictureHeader, known: LabelColours) -> Labels:
    indices: UInt8[np.ndarray, "height width"] = np.asarray(image)
    used = np.flatnonzero(np.bincount(indices.ravel())).tolist()
    palette = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    if not known.shows or as_stored(palette, used, known.tables):
        return indices.astype(np.uint16)
    labels = by_colour(palette, used, known)
    if labels is not None:
        table = np.zeros(256, dtype=np.uint16)
        table[list(labels)] = list(labels.values())
        return table[indices]
    if known.tables:
        raise _strange_palette(palette, used, path, known)
    if is_ambiguous_grey(palette, used, known):
        index = next(index for index in used if palette[index][0] != index)
        message = (
            f"{path} has the grey {palette[index][0]} at index {index} of its palette, and either "
            f"may be the label: {_WAY_OUT}"
        )
        raise DataError(message)
    return indices.astype(np.uint16)


def _strange_palette(
    palette: Palette, used: list[int], path: Path, known: LabelColours
) -> DataError:
    """Name the first index that is used and has a colour that the benchmark does not have there."""
    table = known.tables[0]
    colours = {index: _spelt(palette[index]) for index in used if index < len(palette)}
    numbers, own = codes(palette).tolist(), known.label_of(table)
    moved = [i for i in colours if i >= len(table) or (palette[i] != table[i]).any()]
    strange = [i for i in moved if numbers[i] not in own]
    index = next(iter([*strange, *moved, *used]))
    wanted = f"{_spelt(table[index])} there" if index < len(table) else "another one"
    message = (
        f"{path} has the colour {colours.get(index, 'of no entry')} at index {index} of its "
        f"palette, expected {wanted} as the benchmark has it, or its colours in another order: "
        f"{_WAY_OUT}"
    )
    return DataError(message)


def _coloured(image: Image.Image, path: Path, header: PictureHeader, known: LabelColours) -> Labels:
    """Read labels that are stored as colours of the benchmark."""
    if not known.tables:
        message = (
            f"{path} is {header.described}, expected one label a pixel: no colours of this "
            f"benchmark are known; {_WAY_OUT}"
        )
        raise DataError(message)
    pixels = np.asarray(image)
    if pixels.shape[2] == 4 and pixels[..., 3].min() < 255:
        row, column = np.argwhere(pixels[..., 3] < 255)[0]
        message = (
            f"{path} is {header.described} and transparent at row {row}, column {column}, expected "
            f"one label a pixel: {_WAY_OUT}"
        )
        raise DataError(message)
    found = codes(pixels[..., :3])
    used, places = np.unique(found, return_inverse=True)
    for table in known.tables:
        labels = known.label_of(table)
        if all(number in labels for number in used.tolist()):
            values = np.array([labels[number] for number in used.tolist()], dtype=np.uint16)
            return values[places].reshape(found.shape)
    raise _strange_colour(pixels, found, path, header, known)


def _strange_colour(
    pixels: np.ndarray,
    found: np.ndarray,
    path: Path,
    header: PictureHeader,
    known: LabelColours,
) -> DataError:
    wrong = ~np.isin(found, list(known.label_of(known.tables[0])))
    row, column = np.argwhere(wrong)[0] if wrong.any() else (0, 0)
    same = (pixels[..., :3] == pixels[..., :1]).all()
    hint = " (all three channels are equal: one of them may hold the labels)" if same else ""
    message = (
        f"{path} is {header.described} with the colour {_spelt(pixels[row, column, :3])} at row "
        f"{row}, column {column}, which is no colour of the benchmark{hint}: {_WAY_OUT}"
    )
    return DataError(message)


def _spelt(colour: np.ndarray) -> str:
    return "(" + ", ".join(str(int(value)) for value in colour) + ")"


_READERS = {
    **{(_GREY, depth): _grey for depth in (1, 2, 4, 8, 16)},
    **{(_PALETTE, depth): _indexed for depth in (1, 2, 4, 8)},
    **{(kind, 8): _coloured for kind in (_RGB, _RGBA)},
}
"""What reads labels of a colour type and a depth."""
