"""The stages as Prefect tasks: each is a lookup, a plain function, and a commit."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any, TypeVar

from prefect import task
from prefect.concurrency.sync import concurrency

from storage.card import write_card
from storage.codecs import decode_image, encode_image
from storage.commits import Counts
from storage.pairs import EncodedPair, pack_pairs
from storage.records import (
    Detection,
    PlannedShard,
    Prompt,
    Record,
    Rejected,
    Stage,
)
from storage.rows import split_rows, write_rows
from storage.store import Store
from storage.vocabulary import load_vocabulary
from tasks import resident
from tasks.detections import detect_objects
from tasks.masks import cut_masks
from tasks.pairs import PaintedSample, paint_pairs
from tasks.policies import Job, make_once, stage_options
from tasks.progress import Step, tell
from tasks.prompts import write_prompts
from tasks.recipe import Done, Made, Recipe
from tasks.shards import pack_shard

ItemT = TypeVar("ItemT")

_BATCHES_A_STEP = 2
"""Batches of a network between two reports of progress."""


@task(**stage_options(Stage.PROMPTS))
def prompts(
    root: str, recipe: Recipe, shard: PlannedShard, done: Done, writer_limit: str | None = None
) -> Any:
    """Write the texts of a shard.

    Args:
        root: The dataset; the ledger of answered calls lies in it.
        recipe: How samples are made.
        shard: Which samples.
        done: No commits are read.
        writer_limit: Prefect concurrency limit that the use of the writer must fit into.

    Returns:
        The commit, or a state named ``Cached`` that holds it.
    """

    def make(_store: Store) -> Made:
        painter = resident.painter(recipe.profile.painter)
        writer = resident.writer(recipe.profile.writer, root)
        with concurrency(writer_limit, strict=True) if writer_limit else nullcontext():
            rows = write_prompts(
                shard,
                load_vocabulary(recipe.profile.vocabulary),
                writer,
                painter.count_tokens,
                painter.max_tokens,
                recipe.prompts,
            )
        return _rows_made(rows, len(shard.samples))

    return make_once(Job(root, recipe, shard, done, Stage.PROMPTS), make)


@task(**stage_options(Stage.PAIRS))
def pairs(root: str, recipe: Recipe, shard: PlannedShard, done: Done) -> Any:
    """Paint the pairs of a shard; images are encoded as soon as they are there.

    Args:
        root: The dataset.
        recipe: How samples are made.
        shard: Which samples.
        done: The commit of the prompts.

    Returns:
        The commit, or a state named ``Cached`` that holds it.
    """

    def make(store: Store) -> Made:
        texts, _ = split_rows(store.rows(done[Stage.PROMPTS]), Prompt)
        seeds = {sample.key: sample.seed for sample in shard.samples}
        config, image_format = recipe.profile.painter, recipe.profile.image_format
        kept: list[EncodedPair] = []
        dropped: list[Rejected] = []
        painter = resident.painter(config)
        for step in _in_steps(texts, config.batch_size, Stage.PAIRS, shard.name, len(texts)):
            for result in paint_pairs(step, seeds, painter, recipe.pairs):
                if isinstance(result, Rejected):
                    dropped.append(result)
                    continue
                encoded = (
                    encode_image(pixels, image_format)
                    for pixels in (result.image, result.counterfactual)
                )
                kept.append(EncodedPair(result.key, *encoded))
        counts = Counts.of(len(texts), len(kept), dropped)
        return Made(pack_pairs(kept, dropped), counts)

    job = Job(root, recipe, shard, done, Stage.PAIRS)
    return make_once(job, make, device=recipe.profile.painter.device)


@task(**stage_options(Stage.DETECTIONS))
def detections(root: str, recipe: Recipe, shard: PlannedShard, done: Done) -> Any:
    """Find the classes in the images of a shard, and look for them in the counterfactuals.

    Args:
        root: The dataset.
        recipe: How samples are made.
        shard: Which samples.
        done: The commit of the pairs.

    Returns:
        The commit, or a state named ``Cached`` that holds it.
    """

    def make(store: Store) -> Made:
        vocabulary = load_vocabulary(recipe.profile.vocabulary)
        classes = {sample.key: sample.class_ids for sample in shard.samples}
        config, total = recipe.profile.detector, done[Stage.PAIRS].counts.written
        rows: list[Record] = []
        detector = resident.detector(config)
        stored = _decoded(store, done)
        for step in _in_steps(stored, config.batch_size, Stage.DETECTIONS, shard.name, total):
            rows += detect_objects(step, classes, vocabulary, detector, recipe.detections)
        return _rows_made(rows, total)

    job = Job(root, recipe, shard, done, Stage.DETECTIONS)
    return make_once(job, make, device=recipe.profile.detector.device)


@task(**stage_options(Stage.MASKS))
def masks(root: str, recipe: Recipe, shard: PlannedShard, done: Done) -> Any:
    """Cut the detected objects of a shard out of its images.

    Args:
        root: The dataset.
        recipe: How samples are made.
        shard: Which samples.
        done: The commits of pairs and detections.

    Returns:
        The commit, or a state named ``Cached`` that holds it.
    """

    def make(store: Store) -> Made:
        found, _ = split_rows(store.rows(done[Stage.DETECTIONS]), Detection)
        boxes = {detection.key: detection for detection in found}
        config = recipe.profile.segmenter
        rows: list[Record] = []
        segmenter = resident.segmenter(config)
        stored = (pair for pair in _decoded(store, done) if pair.key in boxes)
        for step in _in_steps(stored, config.batch_size, Stage.MASKS, shard.name, len(found)):
            own = [boxes[pair.key] for pair in step]
            rows += cut_masks(step, own, segmenter, recipe.masks)
        return _rows_made(rows, len(found))

    job = Job(root, recipe, shard, done, Stage.MASKS)
    return make_once(job, make, device=recipe.profile.segmenter.device)


@task(**stage_options(Stage.SHARDS))
def shards(root: str, recipe: Recipe, shard: PlannedShard, done: Done) -> Any:
    """Pack and publish a shard with its manifest, and bring the dataset's card up to date.

    Args:
        root: The dataset.
        recipe: How samples are made.
        shard: Which samples.
        done: The commits of all earlier stages.

    Returns:
        The commit, or a state named ``Cached`` that holds it.
    """
    vocabulary = load_vocabulary(recipe.profile.vocabulary)
    job = Job(root, recipe, shard, done, Stage.SHARDS)
    outcome = make_once(job, lambda store: pack_shard(store, vocabulary, shard, done))
    write_card(Store.open(root))
    return outcome


def _rows_made(rows: Sequence[Record], requested: int) -> Made:
    dropped = [row for row in rows if isinstance(row, Rejected)]
    return Made(write_rows(rows), Counts.of(requested, len(rows) - len(dropped), dropped))


def _decoded(store: Store, done: Done) -> Iterator[PaintedSample]:
    """The stored images: what later stages see is what readers of the dataset will see."""
    for pair in store.pairs(done[Stage.PAIRS]):
        images = (pair.image_bytes, pair.counterfactual_bytes)
        yield PaintedSample(pair.key, *map(decode_image, images))


def _in_steps(
    items: Iterable[ItemT], batch_size: int, stage: Stage, shard: str, total: int
) -> Iterator[list[ItemT]]:
    """Cut items into whole batches, and tell after each step how far the stage is."""
    iterator, size, done = iter(items), batch_size * _BATCHES_A_STEP, 0
    while step := list(islice(iterator, size)):
        yield step
        done += len(step)
        tell(Step(stage, shard, done, total))
