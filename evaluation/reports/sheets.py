"""Contact sheets: quadruplets and predictions as pictures.

`write_sheet` makes one PNG of a dataset for a terminal, a run page or a README; the HTML report
uses the same tiles. Which samples are shown depends on the dataset alone: the classes take turns,
and only as many shards are opened as the sheet needs.
"""

import colorsys
import io
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Integer, UInt8
from PIL import Image, ImageDraw, ImageFont

from storage.codecs import decode_image, decode_label_map, decode_rle
from storage.current_samples import CurrentSamples
from storage.errors import InputError
from storage.exclusions import excluded_keys
from storage.files import write_whole
from storage.records import BACKGROUND_LABEL, IGNORE_LABEL, Instance
from storage.shards import Sample
from storage.store import Store
from storage.summaries import CommittedShard

MAX_SHEET_BYTES = 1_000_000
"""Largest sheet, in bytes; run pages refuse larger pictures."""

_MAX_SHARDS = 8
_SAMPLES_PER_SHARD = 200
_OPACITY = 0.55
_GOLDEN = 0.6180339887
PAPER, INK, QUIET = (252, 252, 250), (28, 28, 34), (118, 118, 128)
GAP, LINE = 6, 15
_MIN_TILE = 24
_IGNORED_GREY = 128
_FADED = 200.0


@dataclass(frozen=True)
class Quadruplet:
    """A sample, decoded.

    Attributes:
        sample: Text, mentions and names.
        image: Positive, RGB.
        counterfactual: Counterfactual, RGB.
        overlay: Positive with the masks over it, and outlines of objects that nobody asked for.
    """

    sample: Sample
    image: UInt8[np.ndarray, "height width 3"]
    counterfactual: UInt8[np.ndarray, "height width 3"]
    overlay: UInt8[np.ndarray, "height width 3"]

    @classmethod
    def decode(cls, sample: Sample) -> "Quadruplet":
        """Decode a sample's images and lay its masks over the positive one.

        Raises:
            DataError: If an image cannot be decoded.
        """
        image = decode_image(sample.image_bytes, name=sample.member("image"))
        labels = decode_label_map(sample.mask_bytes, name=sample.member("mask"))
        name = sample.member("counterfactual")
        counterfactual = decode_image(sample.counterfactual_bytes, name=name)
        shown = overlay(image, labels, sample.others or ())
        return cls(sample, image, counterfactual, shown)


def class_colour(label: int) -> tuple[int, int, int]:
    """A colour for a label that stays the same in every picture; neighbours differ clearly."""
    hue = (label * _GOLDEN) % 1.0
    lightness = (0.50, 0.62, 0.42)[label % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def overlay(
    image: UInt8[np.ndarray, "height width 3"],
    labels: Integer[np.ndarray, "height width"],
    others: Sequence[Instance] = (),
) -> UInt8[np.ndarray, "height width 3"]:
    """Tint every labelled pixel with its class's colour and draw the outlines solid.

    The background fades to grey, so that a mask stands out whatever the colours are; ignored
    pixels become plain grey.

    Args:
        image: RGB.
        labels: ``class_id + 1``, 0 background, 65535 ignored.
        others: Objects that nobody asked for: outlined, whatever their pixels are labelled.

    Raises:
        DataError: A mask of the others is not of the size of the image.
    """
    brightness = image.mean(axis=2, keepdims=True, dtype=np.float32)
    shown = 0.5 * brightness + 0.12 * image + 0.38 * _FADED
    for label in np.unique(labels).tolist():
        mask = labels == label
        if label == IGNORE_LABEL:
            shown[mask] = _IGNORED_GREY
        elif label != BACKGROUND_LABEL:
            colour = np.array(class_colour(label), np.float32)
            shown[mask] = (1 - _OPACITY) * image[mask] + _OPACITY * colour
            shown[_outline(mask)] = colour
    for other in others:
        mask = decode_rle(other.rle, *labels.shape)
        shown[_outline(mask)] = class_colour(other.class_id + 1)
    return shown.round().astype(np.uint8)


def pick_samples(store: Store, count: int) -> list[Sample]:
    """Choose samples that show as many classes as possible, from shards across the dataset.

    Args:
        store: An open dataset; only committed shards are read.
        count: How many are wanted.

    Returns:
        Up to ``count`` samples, the classes in turn, with corrected masks where there are some and
        without those that are excluded.

    Raises:
        DataError: If a committed shard or a correction cannot be read.
    """
    shards = [shard for shard in store.shards() if shard.path is not None]
    current, by_class = CurrentSamples(store), defaultdict[int, list[Sample]](list)
    excluded = excluded_keys(store.objects)
    for shard in _spread(shards, _MAX_SHARDS):
        used = (sample for sample in current.of(shard) if sample.key not in excluded)
        for sample in islice(used, _SAMPLES_PER_SHARD):
            if len(by_class[sample.class_ids[0]]) < count:
                by_class[sample.class_ids[0]].append(sample)
    queues = [iter(by_class[class_id]) for class_id in sorted(by_class)]
    return list(islice(_in_turn(queues), count))


def write_sheet(
    root: str | Path,
    out: Path,
    *,
    count: int = 12,
    tile: int = 112,
    max_bytes: int = MAX_SHEET_BYTES,
) -> Path:
    """Write a contact sheet of a dataset: image, counterfactual, masks and text.

    Args:
        root: The dataset, a path or an object-store URL.
        out: The PNG to write.
        count: Most quadruplets shown.
        tile: Pixels of a picture's side, unless the file would grow too large.
        max_bytes: Largest file.

    Returns:
        The file.

    Raises:
        InputError: If there is no dataset or it has no committed sample.
    """
    store = Store.open(root)
    samples = pick_samples(store, count)
    if not samples:
        message = (
            f"{store.root} has no committed sample to show that is not excluded: run "
            "'magicseg generate' first, or take samples back in with 'magicseg exclusions undo'"
        )
        raise InputError(message)
    quadruplets = [Quadruplet.decode(sample) for sample in samples]
    data = draw_sheet(quadruplets, tile=tile)
    while len(data) > max_bytes and tile > _MIN_TILE:
        tile = int(tile * 0.85)
        data = draw_sheet(quadruplets, tile=tile)
    write_whole(out, data)
    return out


def draw_sheet(quadruplets: Sequence[Quadruplet], *, tile: int, columns: int = 3) -> bytes:
    """Draw quadruplets in columns, each three pictures wide with its text below.

    Returns:
        PNG bytes.
    """
    cells = [
        _Cell(
            (each.image, each.counterfactual, each.overlay),
            (
                (", ".join(each.sample.class_names), INK),
                (each.sample.text, INK),
                (each.sample.counterfactual_text, QUIET),
            ),
        )
        for each in quadruplets
    ]
    return _draw_cells(cells, tile, columns)


@dataclass(frozen=True)
class _Cell:
    """Pictures beside each other, and lines below them with their colours."""

    pictures: tuple[UInt8[np.ndarray, "_ _ 3"], ...]
    lines: tuple[tuple[str, tuple[int, int, int]], ...]


def _draw_cells(cells: Sequence[_Cell], tile: int, columns: int) -> bytes:
    """Draw cells of the same form in columns."""
    across, down = len(cells[0].pictures), len(cells[0].lines)
    columns = min(columns, len(cells))
    width, height = across * tile + (across - 1) * GAP, tile + down * LINE + 2 * GAP
    rows = -(-len(cells) // columns)
    size = (columns * (width + 2 * GAP) + 2 * GAP, rows * (height + GAP) + 2 * GAP)
    sheet = Image.new("RGB", size, PAPER)
    for index, cell in enumerate(cells):
        row, column = divmod(index, columns)
        corner = (2 * GAP + column * (width + 2 * GAP), 2 * GAP + row * (height + GAP))
        _draw_cell(sheet, corner, cell, tile)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class PairPicture:
    """A pair that is in no tar yet.

    Attributes:
        image: Positive, RGB.
        counterfactual: Counterfactual, RGB.
        text: What the positive shows.
        counterfactual_text: What the counterfactual shows.
        overlay: The positive with its masks over it, if it was looked through for objects that
            nobody asked for.
        found: What is said of these.
    """

    image: UInt8[np.ndarray, "height width 3"]
    counterfactual: UInt8[np.ndarray, "height width 3"]
    text: str
    counterfactual_text: str
    overlay: UInt8[np.ndarray, "height width 3"] | None = None
    found: str = ""


def draw_pairs(pairs: Sequence[PairPicture], *, tile: int, columns: int = 3) -> bytes:
    """Draw pairs in columns, each two pictures wide with its texts below.

    Where some have an overlay it is a third picture, and what was found a third line; others have
    a plain grey square there.

    Returns:
        PNG bytes.
    """
    looked = any(pair.overlay is not None for pair in pairs)
    cells: list[_Cell] = []
    for pair in pairs:
        cell = _Cell(
            (pair.image, pair.counterfactual),
            ((pair.text, INK), (pair.counterfactual_text, QUIET)),
        )
        if looked:
            third = _grey(pair.image) if pair.overlay is None else pair.overlay
            cell = _Cell((*cell.pictures, third), (*cell.lines, (pair.found, QUIET)))
        cells.append(cell)
    return _draw_cells(cells, tile, columns)


@dataclass(frozen=True)
class LabelledScene:
    """One picture with the masks of several labellers.

    Attributes:
        image: RGB.
        labels: Label map of each labeller; None where it dropped the sample.
        text: What the picture shows.
    """

    image: UInt8[np.ndarray, "height width 3"]
    labels: tuple[Integer[np.ndarray, "height width"] | None, ...]
    text: str


def draw_labelled(
    scenes: Sequence[LabelledScene], names: Sequence[str], *, tile: int, columns: int = 2
) -> bytes:
    """Draw scenes in columns: the picture, then the masks of each labeller.

    A labeller that dropped the sample has a plain grey square.

    Returns:
        PNG bytes.
    """
    legend = " | ".join(("image", *names))
    cells = [
        _Cell((each.image, *_overlays(each)), ((each.text, INK), (legend, QUIET)))
        for each in scenes
    ]
    return _draw_cells(cells, tile, columns)


def _overlays(scene: LabelledScene) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    for labels in scene.labels:
        if labels is None:
            yield _grey(scene.image)
        else:
            yield overlay(scene.image, labels)


def _grey(image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
    """A plain picture of the same size."""
    return np.full_like(image, round(_FADED))


@dataclass(frozen=True)
class DoubtfulPicture:
    """A sample that a person is to look at.

    Attributes:
        image: RGB.
        labels: Its label map.
        title: What stands below it first.
        lines: What stands below that, three of them.
    """

    image: UInt8[np.ndarray, "height width 3"]
    labels: Integer[np.ndarray, "height width"]
    title: str
    lines: tuple[str, str, str]


def draw_doubtful(pictures: Sequence[DoubtfulPicture], *, tile: int, columns: int = 4) -> bytes:
    """Draw samples in columns: the image, the image with its masks over it, and what is said of it.

    Returns:
        PNG bytes.
    """
    cells = [
        _Cell(
            (each.image, overlay(each.image, each.labels)),
            ((each.title, INK), *((line, QUIET) for line in each.lines)),
        )
        for each in pictures
    ]
    return _draw_cells(cells, tile, columns)


def resized(image: UInt8[np.ndarray, "height width 3"], side: int) -> Image.Image:
    """The picture with its longer side at `side` pixels; small pictures keep sharp pixels."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    return Image.fromarray(image).resize(size, how)


def _draw_cell(sheet: Image.Image, corner: tuple[int, int], cell: _Cell, tile: int) -> None:
    left, top = corner
    for index, picture in enumerate(cell.pictures):
        sheet.paste(resized(picture, tile), (left + index * (tile + GAP), top))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(11)
    across = len(cell.pictures)
    width, below = across * tile + (across - 1) * GAP, top + tile + GAP
    for index, (text, colour) in enumerate(cell.lines):
        shown = cut_text(text, draw, font, width)
        draw.text((left, below + index * LINE), shown, fill=colour, font=font)


def cut_text(
    text: str,
    draw: ImageDraw.ImageDraw,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    width: int,
) -> str:
    """As much of a text as fits on a line."""
    if draw.textlength(text, font) <= width:
        return text
    lengths = range(1, len(text) + 1)  # a long text is measured a few times, not once a letter
    fits = bisect_right(lengths, width, key=lambda n: draw.textlength(f"{text[:n]}...", font))
    return text[:fits].rstrip() + "..."


def _outline(mask: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Pixels of a mask that touch something else; the picture's border does not count."""
    padded = np.pad(mask, 1, mode="edge")
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def _spread(shards: Sequence[CommittedShard], count: int) -> list[CommittedShard]:
    if len(shards) <= count:
        return list(shards)
    return [shards[index * len(shards) // count] for index in range(count)]


def _in_turn(queues: Sequence[Iterator[Sample]]) -> Iterator[Sample]:
    waiting = list(queues)
    while waiting:
        alive = []
        for queue in waiting:
            sample = next(queue, None)
            if sample is not None:
                yield sample
                alive.append(queue)
        waiting = alive
