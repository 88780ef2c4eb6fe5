"""Quadruplets as a page shows them: pictures as data URIs, texts with their mentions marked."""

import difflib
import io
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from jaxtyping import UInt8

from evaluation.reports.sheets import Quadruplet, class_colour, resized
from storage.records import Mention
from storage.shards import Sample

_SHARP_BELOW = 96


@dataclass(frozen=True)
class Picture:
    """A picture inside the page.

    Attributes:
        uri: Data URI of a JPEG.
        alt: What it shows.
        pixels: Whether it is so small that the browser should keep its pixels sharp.
        caption: Its label, where the page has no other.
        width: Pixels, so that the page keeps its place before it is shown.
        height: Pixels.
    """

    uri: str
    alt: str
    pixels: bool
    caption: str = ""
    width: int = 1
    height: int = 1


@dataclass(frozen=True)
class Piece:
    """A piece of text.

    Attributes:
        text: The text.
        colour: CSS colour of its mark; empty for text without one.
    """

    text: str
    colour: str = ""


@dataclass(frozen=True)
class ClassChip:
    """A class as chips and legends show it.

    Attributes:
        name: Display name.
        colour: CSS colour, the same as in the pictures.
        score: The detector's, in [0, 1]; 0 where there is none.
        asked: Whether the sample was made for it.
    """

    name: str
    colour: str
    score: float = 0.0
    asked: bool = True


@dataclass(frozen=True)
class QuadrupletCard:
    """A sample as the page shows it.

    Attributes:
        key: Sample key.
        image: Positive image.
        counterfactual: Counterfactual image.
        overlay: Positive image with the masks over it.
        text: The text, cut at its mentions.
        counterfactual_text: Its text, cut at what replaced them.
        objects: The detected objects, and those that nobody asked for.
    """

    key: str
    image: Picture
    counterfactual: Picture
    overlay: Picture
    text: list[Piece]
    counterfactual_text: list[Piece]
    objects: list[ClassChip]


def quadruplet_card(
    sample: Sample, side: int, class_names: Mapping[int, str] = MappingProxyType({})
) -> QuadrupletCard:
    """Decode a sample for the page, with pictures of at most `side` pixels.

    Args:
        sample: The sample.
        side: Of its pictures.
        class_names: Of the whole vocabulary, for objects that nobody asked for.

    Raises:
        DataError: If an image cannot be decoded.
    """
    quadruplet = Quadruplet.decode(sample)
    names = {**class_names, **dict(zip(sample.class_ids, sample.class_names, strict=True))}
    others = sample.others or ()
    return QuadrupletCard(
        key=sample.key,
        image=picture(quadruplet.image, side, f"image: {sample.text}"),
        counterfactual=picture(
            quadruplet.counterfactual, side, f"counterfactual: {sample.counterfactual_text}"
        ),
        overlay=picture(quadruplet.overlay, side, f"masks of {', '.join(sample.class_names)}"),
        text=marked_text(sample.text, sample.mentions),
        counterfactual_text=changed_text(sample.text, sample.counterfactual_text),
        objects=[
            ClassChip(
                names[item.class_id], css_colour(item.class_id + 1), item.score, item not in others
            )
            for item in dict.fromkeys((*sample.instances, *others))
            if item.class_id in names
        ],
    )


def marked_text(text: str, mentions: Iterable[Mention]) -> list[Piece]:
    """Cut a text at its class mentions; each mention has its class's colour."""
    pieces, end = [], 0
    for mention in sorted(mentions, key=lambda each: each.start):
        if mention.start < end:
            continue
        pieces += [
            Piece(text[end : mention.start]),
            Piece(text[mention.start : mention.end], css_colour(mention.class_id + 1)),
        ]
        end = mention.end
    return [piece for piece in (*pieces, Piece(text[end:])) if piece.text]


def changed_text(before: str, after: str) -> list[Piece]:
    """Cut the counterfactual text at the words that the text does not have."""
    old, new = before.split(" "), after.split(" ")
    pieces = []
    for kind, _, _, start, end in difflib.SequenceMatcher(a=old, b=new).get_opcodes():
        words = " ".join(new[start:end])
        if words:
            pieces += [Piece(words, "" if kind == "equal" else "changed"), Piece(" ")]
    return pieces[:-1]


def picture(
    image: UInt8[np.ndarray, "height width 3"],
    side: int,
    alt: str,
    caption: str = "",
    *,
    quality: int | None = None,
) -> Picture:
    """A JPEG data URI; large pictures are made smaller, small ones are enlarged by the browser.

    Args:
        image: RGB.
        side: Most pixels of its longer side.
        alt: What it shows.
        caption: Its label.
        quality: JPEG quality of a picture of which a page has hundreds; by default one that shows
            every pixel's colour.
    """
    longest = max(image.shape[:2])
    picture = resized(image, min(side, longest))
    buffer = io.BytesIO()
    fine = {"quality": 88, "subsampling": 0} if quality is None else {"quality": quality}
    picture.save(buffer, "JPEG", **fine)
    uri = "data:image/jpeg;base64," + b64encode(buffer.getvalue()).decode()
    width, height = picture.size
    return Picture(uri, alt, longest <= _SHARP_BELOW, caption, width, height)


def css_colour(label: int) -> str:
    """The colour of a label as CSS has it."""
    return "#{:02x}{:02x}{:02x}".format(*class_colour(label))
