"""Shards: everything that is known of a shard's samples, packed, described and published."""

from dataclasses import dataclass

from storage.codecs import encode_label_map
from storage.commits import Counts
from storage.manifest import describe_samples, encode_manifest
from storage.pairs import EncodedPair
from storage.records import (
    Detection,
    MaskSample,
    Pair,
    PlannedSample,
    PlannedShard,
    Prompt,
    Stage,
)
from storage.rows import split_rows
from storage.shards import Sample, pack
from storage.store import Store
from storage.vocabulary import Vocabulary, load_vocabulary
from tasks.declarations import Declaration, Done, Made, StageWork
from tasks.masks import label_map


@dataclass(frozen=True)
class _Parts:
    """What the earlier stages made of one sample."""

    planned: PlannedSample
    prompt: Prompt
    pair: EncodedPair
    detection: Detection
    masks: MaskSample


def pack_shard(store: Store, vocabulary: Vocabulary, shard: PlannedShard, done: Done) -> Made:
    """Pack the samples that passed all stages, and record what became of every planned one.

    Args:
        store: Where the stages' outputs are.
        vocabulary: Names the classes.
        shard: The planned samples.
        done: The commits of the earlier stages.

    Returns:
        Tar and manifest; no tar if no sample came through.

    Raises:
        DataError: An output is damaged, or a sample has no fate or two.
    """
    prompts, dropped = split_rows(store.rows(done[Stage.PROMPTS]), Prompt)
    detections, lost = split_rows(store.rows(done[Stage.DETECTIONS]), Detection)
    masks, more = split_rows(store.rows(done[Stage.MASKS]), MaskSample)
    dropped += [*split_rows(store.rows(done[Stage.PAIRS]), Pair)[1], *lost, *more]
    texts = {prompt.key: prompt for prompt in prompts}
    found = {detection.key: detection for detection in detections}
    cut = {sample.key: sample for sample in masks}
    planned = {sample.key: sample for sample in shard.samples}
    samples = [
        _finish_sample(
            _Parts(planned[pair.key], texts[pair.key], pair, found[pair.key], cut[pair.key]),
            vocabulary,
        )
        for pair in store.pairs(done[Stage.PAIRS])
        if pair.key in cut
    ]
    rows = describe_samples(
        shard,
        {record.class_id: record.name for record in vocabulary},
        samples=samples,
        dropped=dropped,
        prompts=prompts,
    )
    counts = Counts.of(len(shard.samples), len(samples), dropped)
    return Made(pack(samples) if samples else b"", counts, encode_manifest(rows))


def _finish_sample(parts: _Parts, vocabulary: Vocabulary) -> Sample:
    class_ids = _ordered_classes(parts)
    return Sample(
        key=parts.planned.key,
        index=parts.planned.index,
        text=parts.prompt.text,
        counterfactual_text=parts.prompt.counterfactual_text,
        class_ids=class_ids,
        class_names=tuple(vocabulary[class_id].name for class_id in class_ids),
        mentions=parts.prompt.mentions,
        seed=parts.planned.seed,
        instances=parts.masks.instances,
        image_bytes=parts.pair.image_bytes,
        counterfactual_bytes=parts.pair.counterfactual_bytes,
        mask_bytes=encode_label_map(label_map(parts.masks)),
        writer=parts.prompt.writer,
        counterfactual_boxes=parts.detection.counterfactual_boxes,
    )


def _ordered_classes(parts: _Parts) -> tuple[int, ...]:
    """The classes that have a mask, in planned order."""
    present = {instance.class_id for instance in parts.masks.instances}
    return tuple(class_id for class_id in parts.planned.class_ids if class_id in present)


def _make(work: StageWork) -> Made:
    vocabulary = load_vocabulary(work.recipe.profile.vocabulary)
    return pack_shard(work.store, vocabulary, work.shard, work.done)


DECLARATION = Declaration(
    stage=Stage.SHARDS,
    version=1,
    inputs=(Stage.PROMPTS, Stage.PAIRS, Stage.DETECTIONS, Stage.MASKS),
    role=None,
    depends_on=lambda _recipe: {},
    make=_make,
    about="samples that came through are packed; every planned sample gets a row in the manifest",
)
