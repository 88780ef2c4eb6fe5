"""Pairs: every prompt and its counterfactual become two images that share their noise.

Where the recipe has counterfactuals made later, the images alone are painted here.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from models.attention_maps import AttentionMaps, MapsWanted, pack_maps
from models.protocols import (
    AttendedClass,
    ImagePainter,
    ImageRequest,
    PaintedPair,
    PairPainter,
    PairRequest,
    RecordingPainter,
)
from models.registry import Role
from storage.codecs import encode_image
from storage.errors import InputError
from storage.pairs import EncodedPair
from storage.records import PlannedSample, Prompt, Reason, Rejected, Stage
from storage.rows import split_rows
from storage.vocabulary import Vocabulary, load_vocabulary
from tasks.declarations import Declaration, Made, PieceWork
from tasks.finiteness import drop_not_finite
from tasks.pipeline import HoldDevice
from tasks.recipe import Recipe
from tasks.rules import PairRules

__all__ = ["PaintedSample", "paint_images", "paint_pairs", "paint_recorded_pairs"]

_EVERY = 8
"""Of this many rows one is looked at first."""


@dataclass(frozen=True)
class PaintedSample:
    """The pixels of one sample.

    Attributes:
        key: Sample key.
        image: Positive, RGB.
        counterfactual: Counterfactual, RGB, of the same size; None if it is painted later.
        maps: Where the painter looked for the sample's classes; None if that was not recorded.
    """

    key: str
    image: UInt8[np.ndarray, "height width 3"]
    counterfactual: UInt8[np.ndarray, "height width 3"] | None
    maps: AttentionMaps | None = None


def paint_pairs(
    prompts: Sequence[Prompt],
    seeds: Mapping[str, int],
    painter: PairPainter,
    rules: PairRules,
    hold: HoldDevice = nullcontext,
) -> list[PaintedSample | Rejected]:
    """Paint the pair of every prompt.

    Args:
        prompts: What to paint.
        seeds: Seed of the initial noise by sample key.
        painter: Paints; makes its own batches.
        rules: What passes.
        hold: Holds the device while the painter computes.

    Returns:
        One result a prompt, in order: the pair, or why it was dropped.
    """
    requests = [
        PairRequest(prompt.text, prompt.counterfactual_text, seeds[prompt.key])
        for prompt in prompts
    ]
    with hold():
        painted = painter.paint(requests)
    return [
        _refused_pair(prompt.key, pair, rules)
        or PaintedSample(prompt.key, pair.image, pair.counterfactual)
        for prompt, pair in zip(prompts, painted, strict=True)
    ]


def paint_recorded_pairs(
    requests: Mapping[str, PairRequest],
    painter: RecordingPainter,
    wanted: MapsWanted,
    rules: PairRules,
    hold: HoldDevice = nullcontext,
) -> list[PaintedSample | Rejected]:
    """Paint pairs, and record where the painter looks for their classes.

    Args:
        requests: What to paint, with the classes to attend to, by sample key.
        painter: Paints; makes its own batches.
        wanted: What to record.
        rules: What passes.
        hold: Holds the device while the painter computes.

    Returns:
        One result a request, in order: the pair with maps, or why it was dropped.
    """
    with hold():
        painted = painter.paint_recorded(list(requests.values()), wanted)
    return [
        _refused_pair(key, pair, rules)
        or _unread(key, pair.maps, request.attended)
        or PaintedSample(key, pair.image, pair.counterfactual, pair.maps)
        for (key, request), pair in zip(requests.items(), painted, strict=True)
    ]


def _attended(
    prompt: Prompt, class_ids: Sequence[int], vocabulary: Vocabulary
) -> tuple[AttendedClass, ...]:
    return tuple(
        AttendedClass(
            vocabulary[class_id].detector_phrase,
            tuple((at.start, at.end) for at in prompt.mentions if at.class_id == class_id),
        )
        for class_id in class_ids
    )


def _unread(
    key: str, maps: AttentionMaps | None, attended: Sequence[AttendedClass]
) -> Rejected | None:
    """Drop a sample with a class of which the painter reads no word."""
    tokens = () if maps is None else (maps.mentions, maps.prompt)
    read = [set(each.classes) for each in tokens if each is not None]
    names = [
        each.name
        for position, each in enumerate(attended)
        if any(position not in own for own in read)
    ]
    if not names:
        return None
    detail = f"the painter reads no word of {', '.join(names)}, which has no attention then"
    return Rejected(key=key, stage=Stage.PAIRS, reason=Reason.TEXT_TOO_LONG, detail=detail)


def paint_images(
    prompts: Sequence[Prompt],
    seeds: Mapping[str, int],
    painter: ImagePainter,
    rules: PairRules,
    hold: HoldDevice = nullcontext,
) -> list[PaintedSample | Rejected]:
    """Paint the image of every prompt, without its counterfactual.

    Args:
        prompts: What to paint.
        seeds: Seed of the initial noise by sample key.
        painter: Paints; makes its own batches.
        rules: What passes.
        hold: Holds the device while the painter computes.

    Returns:
        One result a prompt, in order: the image, or why it was dropped.
    """
    requests = [ImageRequest(prompt.text, seeds[prompt.key]) for prompt in prompts]
    with hold():
        painted = painter.paint_images(requests)
    return [
        refuse_pictures(
            prompt.key,
            Stage.PAIRS,
            PaintedPictures({"image": each.image}, unsafe=each.unsafe, finite=each.finite),
            rules,
        )
        or PaintedSample(prompt.key, each.image, None)
        for prompt, each in zip(prompts, painted, strict=True)
    ]


def _refused_pair(key: str, pair: PaintedPair, rules: PairRules) -> Rejected | None:
    pictures = {"image": pair.image, "counterfactual": pair.counterfactual}
    painted = PaintedPictures(pictures, unsafe=pair.unsafe, finite=pair.finite)
    return refuse_pictures(key, Stage.PAIRS, painted, rules)


@dataclass(frozen=True)
class PaintedPictures:
    """Pictures of one sample that were painted together.

    Attributes:
        pictures: RGB, by what messages call them.
        unsafe: Whether the safety checker flagged any.
        finite: Whether all numbers behind the pixels were.
    """

    pictures: Mapping[str, UInt8[np.ndarray, "_ _ 3"]]
    unsafe: bool
    finite: bool


def refuse_pictures(
    key: str,
    stage: Stage,
    painted: PaintedPictures,
    rules: PairRules,
    role: Role = Role.PAINTER,
) -> Rejected | None:
    """Say why pictures do not pass, or nothing if they do.

    Args:
        key: The sample's.
        stage: Where they were painted.
        painted: The pictures.
        rules: What passes.
        role: Who painted them.
    """
    if not painted.finite:  # asked before all else: such pixels mean nothing
        return drop_not_finite(key, stage, role, "pixels")
    if painted.unsafe:  # asked first: the checker blackens what it flags
        return Rejected(
            key=key, stage=stage, reason=Reason.UNSAFE, detail="flagged by the safety checker"
        )
    blank = list(_blank(painted, rules))
    if blank:
        detail = ", ".join(blank) + f"; expected at least {rules.min_deviation:g}"
        return Rejected(key=key, stage=stage, reason=Reason.BLANK_IMAGE, detail=detail)
    return None


def _blank(painted: PaintedPictures, rules: PairRules) -> Iterator[str]:
    for name, image in painted.pictures.items():
        # Some rows' own spread can only be part of the whole one, and settles it for a photograph.
        if _deviation(image[::_EVERY], of_pixels=_pixels(image)) >= rules.min_deviation:
            continue
        deviation = _deviation(image, of_pixels=_pixels(image))
        if deviation < rules.min_deviation:
            yield f"{name} has standard deviation {deviation:.2f}"


def _deviation(image: UInt8[np.ndarray, "height width 3"], *, of_pixels: int) -> float:
    """Largest standard deviation of a channel, from how often each level occurs.

    Args:
        image: RGB.
        of_pixels: What the squared distances to the mean are divided by.
    """
    counts = np.array(Image.fromarray(image).histogram()).reshape(3, 256)
    levels = np.arange(256)
    means = counts @ levels / _pixels(image)
    squares = (counts * (levels - means[:, None]) ** 2).sum(axis=1)
    return math.sqrt(squares.max() / of_pixels)


def _pixels(image: UInt8[np.ndarray, "height width 3"]) -> int:
    return image.shape[0] * image.shape[1]


def _depends_on(recipe: Recipe) -> dict[str, Any]:
    return {
        "painter": recipe.profile.painter.identity(),
        "rules": recipe.pairs.identity(),
        "image_format": recipe.profile.image_format,
        # part of no key that is older than it
        **({"counterfactuals": "later"} if recipe.paints_images_alone else {}),
        **({"attention": wanted.identity()} if (wanted := recipe.maps_wanted) else {}),
    }


def _make(work: PieceWork) -> Made:
    """Paint the pairs of a piece; they are checked and encoded while the next ones are painted."""
    texts, _ = split_rows(work.rows(Stage.PROMPTS).values(), Prompt)
    samples = {sample.key: sample for sample in work.samples}
    profile = work.recipe.profile
    painter = work.machine.models.model(profile.painter, work.store.objects)

    def paint(step: Sequence[Prompt]) -> list[EncodedPair | Rejected]:
        painted = _paint(step, samples, painter, work)
        return _encoded(painted, profile.image_format)

    steps = work.pipeline.run(texts, _step_of(work.recipe), paint)
    results = [result for step in steps for result in step]
    return Made.of_pairs(
        [result for result in results if isinstance(result, EncodedPair)],
        [result for result in results if isinstance(result, Rejected)],
    )


def _step_of(recipe: Recipe) -> int:
    """Texts of a step: a batch of the painter has two pictures a pair, so twice as many images."""
    return recipe.profile.painter.batch_size * (2 if recipe.paints_images_alone else 1)


def _paint(
    prompts: Sequence[Prompt],
    samples: Mapping[str, PlannedSample],
    painter: Any,
    work: PieceWork,
) -> list[PaintedSample | Rejected]:
    recipe, hold = work.recipe, work.pipeline.turn
    seeds = {key: sample.seed for key, sample in samples.items()}
    if (wanted := recipe.maps_wanted) is not None:
        vocabulary = load_vocabulary(recipe.profile.vocabulary)
        recorder = _require_recording_painter(painter, recipe)
        requests = {
            prompt.key: PairRequest(
                prompt.text,
                prompt.counterfactual_text,
                seeds[prompt.key],
                _attended(prompt, samples[prompt.key].class_ids, vocabulary),
            )
            for prompt in prompts
        }
        return paint_recorded_pairs(requests, recorder, wanted, recipe.pairs, hold)
    if recipe.paints_images_alone:
        single = require_image_painter(painter, recipe)
        return paint_images(prompts, seeds, single, recipe.pairs, hold)
    return paint_pairs(prompts, seeds, painter, recipe.pairs, hold)


def require_image_painter(painter: Any, recipe: Recipe) -> ImagePainter:
    """Refuse a painter that paints nothing but pairs.

    Raises:
        InputError: If it is one.
    """
    if not isinstance(painter, ImagePainter):
        kind = recipe.profile.painter.kind
        message = (
            f"a painter of the kind {kind!r} paints pairs alone, expected one with `paint_images`; "
            "choose another painter, or set `twins.way` to 'paint'"
        )
        raise InputError(message)
    return painter


def _require_recording_painter(painter: Any, recipe: Recipe) -> RecordingPainter:
    if not isinstance(painter, RecordingPainter):
        profile = recipe.profile
        message = (
            f"a painter of the kind {profile.painter.kind!r} does not say where it looks, which a "
            f"labeller of the kind {profile.labeller.kind!r} reads, expected one with "
            "`paint_recorded`; choose another painter, or a labeller such as 'grounded'"
        )
        raise InputError(message)
    return painter


def _encoded(
    results: Sequence[PaintedSample | Rejected], image_format: Literal["jpg", "png"]
) -> list[EncodedPair | Rejected]:
    return [
        result
        if isinstance(result, Rejected)
        else EncodedPair(
            result.key,
            encode_image(result.image, image_format),
            b""
            if result.counterfactual is None
            else encode_image(result.counterfactual, image_format),
            b"" if result.maps is None else pack_maps(result.maps),
        )
        for result in results
    ]


DECLARATION = Declaration(
    stage=Stage.PAIRS,
    version=1,
    inputs=(Stage.PROMPTS,),
    role=Role.PAINTER,
    model=lambda recipe: recipe.profile.painter,
    depends_on=_depends_on,
    make=_make,
    about="both texts are painted from one initial noise; with `twins.way: later` or `inpaint` "
    "the first alone",
)
