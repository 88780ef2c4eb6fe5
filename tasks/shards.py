"""Shards: everything that is known of a shard's samples, packed, described and published."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from storage.codecs import encode_label_map
from storage.commits import Counts, OtherOutcomes
from storage.manifest import class_areas, count_classes, describe_samples, encode_manifest
from storage.pairs import EncodedPair
from storage.payloads import Payload
from storage.plan import ShardRange
from storage.records import (
    Box,
    Detection,
    Instance,
    MaskSample,
    Others,
    PlannedSample,
    PlannedShard,
    Prompt,
    Record,
    Rejected,
    Stage,
    TwinCheck,
)
from storage.shards import Sample, pack
from storage.store import Store
from storage.vocabulary import Vocabulary
from tasks.cells import CellState
from tasks.declarations import Declaration, read_pictures_of, read_rows_of
from tasks.masks import label_map
from tasks.others import lay_others
from tasks.recipe import Recipe
from tasks.rules import OtherRules

NO_OTHERS = OtherRules()
"""Nobody looks for objects that nobody asked for."""


@dataclass(frozen=True)
class _Parts:
    """What the earlier stages made of one sample."""

    planned: PlannedSample
    prompt: Prompt
    pair: EncodedPair
    masks: MaskSample
    counterfactual_boxes: tuple[Box, ...]
    others: tuple[Instance, ...] | None


@dataclass(frozen=True)
class _Finished:
    """A sample, and the pixels of each class in its label map."""

    sample: Sample
    areas: Mapping[int, int]


def pack_shard(
    store: Store,
    vocabulary: Vocabulary,
    shard: ShardRange,
    states: Sequence[CellState],
    check: Callable[[], None] = lambda: None,
    others: OtherRules = NO_OTHERS,
) -> tuple[Payload, Counts]:
    """Pack the samples that passed all stages, and record what became of every planned one.

    Args:
        store: Where the pieces are.
        vocabulary: Names the classes.
        shard: Which samples.
        states: How far they are, cell by cell; a sample that is not decided counts as failed.
        check: Called now and then; raises to give up.
        others: What becomes of objects that nobody asked for.

    Returns:
        Tar (empty if no sample came through) and manifest, and where the samples went.

    Raises:
        DamagedError: A piece is damaged.
        DataError: A sample has no fate or two.
    """
    finished: list[_Finished] = []
    dropped: list[Rejected] = []
    prompts: list[Prompt] = []
    seconds: dict[Stage, dict[str, float]] = {}
    for state in states:
        check()
        rows = _rows(store, state)
        prompts += [row for row in rows[Stage.PROMPTS].values() if isinstance(row, Prompt)]
        for stage in state.found:
            dropped += [row for row in rows[stage].values() if isinstance(row, Rejected)]
            _add_seconds(seconds.setdefault(stage, {}), state, stage)
        dropped += _undelivered(store, state)
        finished += _finished(store, state, rows, vocabulary, others)
    samples = [each.sample for each in finished]
    planned = PlannedShard(
        slice_id=shard.slice_id,
        index=shard.index,
        samples=tuple(sample for state in states for sample in state.part.samples),
    )
    described = describe_samples(
        planned,
        {record.class_id: record.name for record in vocabulary},
        samples=samples,
        dropped=dropped,
        prompts=prompts,
        areas={each.sample.key: each.areas for each in finished},
    )
    about = {
        "start": shard.start,
        "stop": shard.stop,
        "classes": count_classes(described),
        "others": _count_others(samples),
        "found_others": _other_outcomes(samples),
        "stage_seconds": {each: round(sum(by.values()), 3) for each, by in seconds.items()},
        "device_seconds": {
            stage: {device: round(value, 3) for device, value in by_device.items()}
            for stage, by_device in seconds.items()
        },
    }
    payload = Payload(pack(samples) if samples else b"", encode_manifest(described), about=about)
    return payload, Counts.of(len(planned.samples), len(samples), dropped)


def _rows(store: Store, state: CellState) -> dict[Stage, dict[str, Record]]:
    keys = [sample.key for sample in state.part.samples]
    return {stage: read_rows_of(store, state, stage, keys) for stage in state.found}


def _add_seconds(by_device: dict[str, float], state: CellState, stage: Stage) -> None:
    """Add the part of the pieces' working time that falls to the samples, by what computed."""
    keys = {sample.key for sample in state.part.samples}
    for piece in state.pieces(stage, sorted(keys)):
        part = piece.seconds * len(keys & piece.verdicts.keys()) / len(piece.verdicts)
        by_device[piece.device] = by_device.get(piece.device, 0.0) + part


def _undelivered(store: Store, state: CellState) -> list[Rejected]:
    """Why the samples that are not decided are missing."""
    wanted = {
        sample.key: state.undelivered[sample.key].piece
        for sample in state.part.samples
        if sample.key in state.undelivered
    }
    found = [
        row
        for piece in {piece.key: piece for piece in wanted.values()}.values()
        for row in store.rows(piece)
        if isinstance(row, Rejected) and wanted.get(row.key) is piece
    ]
    return sorted(found, key=lambda row: row.key)


def _finished(
    store: Store,
    state: CellState,
    rows: dict[Stage, dict[str, Record]],
    vocabulary: Vocabulary,
    rules: OtherRules,
) -> list[_Finished]:
    planned = {sample.key: sample for sample in state.part.samples}
    last = rows[list(state.found)[-1]]
    passed = sorted(key for key, row in last.items() if not isinstance(row, Rejected))
    return [
        _finish_sample(
            _Parts(
                planned[pair.key],
                cast("Prompt", rows[Stage.PROMPTS][pair.key]),
                pair,
                cast("MaskSample", rows[Stage.MASKS][pair.key]),
                _counterfactual_boxes(rows, pair.key),
                _others(rows, pair.key),
            ),
            vocabulary,
            rules,
        )
        for pair in _whole_pairs(store, state, passed)
    ]


def _whole_pairs(store: Store, state: CellState, keys: Sequence[str]) -> Iterator[EncodedPair]:
    """Images with their counterfactuals, wherever these were painted, and without maps."""
    stored = read_pictures_of(store, state, Stage.PAIRS, keys)
    pairs = (dataclasses.replace(pair, maps_bytes=b"") for pair in stored)
    if Stage.TWINS not in state.found:
        yield from pairs
        return
    twins = {each.key: each for each in read_pictures_of(store, state, Stage.TWINS, keys)}
    for pair in pairs:
        twin = twins[pair.key].counterfactual_bytes
        yield dataclasses.replace(pair, counterfactual_bytes=twin)


def _counterfactual_boxes(rows: Mapping[Stage, Mapping[str, Record]], key: str) -> tuple[Box, ...]:
    """What was found in a counterfactual, by whichever stage looked at it."""
    stage = Stage.CHECKS if Stage.CHECKS in rows else Stage.DETECTIONS
    return cast("Detection | TwinCheck", rows[stage][key]).counterfactual_boxes


def _others(rows: Mapping[Stage, Mapping[str, Record]], key: str) -> tuple[Instance, ...] | None:
    """Objects that nobody asked for; None where nobody looked for them."""
    if Stage.OTHERS not in rows:
        return None
    return cast("Others", rows[Stage.OTHERS][key]).instances


def _finish_sample(parts: _Parts, vocabulary: Vocabulary, rules: OtherRules) -> _Finished:
    class_ids, instances = _ordered_classes(parts), parts.masks.instances
    labels, others = label_map(parts.masks), parts.others or ()
    if others:
        labels = lay_others(labels, others, rules)
    areas = class_areas(labels)
    if rules.way == "labels":
        shown = tuple(class_id for class_id in areas if class_id not in class_ids)
        class_ids += shown
        instances += tuple(each for each in others if each.class_id in shown)
    sample = Sample(
        key=parts.planned.key,
        index=parts.planned.index,
        text=parts.prompt.text,
        counterfactual_text=parts.prompt.counterfactual_text,
        class_ids=class_ids,
        class_names=tuple(vocabulary[class_id].name for class_id in class_ids),
        mentions=parts.prompt.mentions,
        seed=parts.planned.seed,
        instances=instances,
        image_bytes=parts.pair.image_bytes,
        counterfactual_bytes=parts.pair.counterfactual_bytes,
        mask_bytes=encode_label_map(labels),
        writer=parts.prompt.writer,
        counterfactual_boxes=parts.counterfactual_boxes,
        others=parts.others,
    )
    return _Finished(sample, areas)


def _ordered_classes(parts: _Parts) -> tuple[int, ...]:
    """The classes that have a mask, in planned order."""
    present = {instance.class_id for instance in parts.masks.instances}
    return tuple(class_id for class_id in parts.planned.class_ids if class_id in present)


def _count_others(samples: Sequence[Sample]) -> dict[int, int]:
    """Samples with an object that nobody asked for, by its class."""
    found = Counter(
        class_id
        for sample in samples
        for class_id in {instance.class_id for instance in sample.others or ()}
    )
    return dict(sorted(found.items()))


def _other_outcomes(samples: Sequence[Sample]) -> OtherOutcomes | None:
    """What became of them; None where nobody looked."""
    looked = [sample for sample in samples if sample.others is not None]
    if not looked:
        return None
    became = Counter(
        "labelled" if instance.class_id in sample.class_ids else "ignored"
        for sample in looked
        for instance in sample.others or ()
    )
    hiding = sum(bool(sample.others) for sample in looked)
    return OtherOutcomes(images=len(looked), hiding=hiding, **became)


def _depends_on(recipe: Recipe) -> dict[str, Any]:
    """Nothing, but for what becomes of objects that nobody asked for."""
    return {"others": recipe.others.way} if recipe.looks_for_others else {}


DECLARATION = Declaration(
    stage=Stage.SHARDS,
    version=1,
    inputs=tuple(stage for stage in Stage if stage is not Stage.SHARDS),
    role=None,
    model=lambda _recipe: None,
    depends_on=_depends_on,
    make=None,
    about="samples that came through are packed; every planned sample gets a row in the manifest",
)
