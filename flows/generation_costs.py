"""What a generation run will cost: calls, tokens and money, hours of devices, and disk."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from flows.durations import duration_text
from flows.generation_parameters import GenerationParameters
from models.profiles import Profile
from models.registry import Need, kind_of
from models.writing.chat_config import ChatWriterConfig
from models.writing.estimates import estimate_calls
from models.writing.price_table import known_prices
from storage.ledger import Ledger
from storage.plan import MAX_SAMPLES, ShardRange, plan_samples
from storage.records import PlannedSample, Record, Stage
from storage.slices import Slice
from storage.spending import CPU
from storage.store import Store
from storage.summaries import DEVICE_STAGES, SliceStatus
from storage.vocabulary import load_vocabulary
from tasks.prompts import cut_class_sets, first_requests

_SAMPLED_SETS = 96
"""Class sets whose requests are rendered; further ones are taken to be alike."""

_BYTES_A_PIXEL = {"jpg": 0.4, "png": 2.0}
"""Stated figures for pictures of scenes; a dataset with finished shards is measured instead."""


class WriterCost(Record, frozen=True):
    """What the texts will cost."""

    calls: int | None
    """Calls that will be sent; None for a writer whose calls cannot be foreseen."""
    known_calls: int = 0
    """Calls that were answered before and cost nothing."""
    prompt_tokens: int | None = None
    """Tokens read."""
    completion_tokens: int | None = None
    """Tokens written."""
    usd: float | None = None
    """Money; None if it is not known, which is not zero."""
    prices: str = ""
    """Whose prices these are and of which day, or how to state them."""
    class_sets: int = 0
    """Class sets whose texts are to be written."""
    sampled: int = 0
    """Of these, as many were rendered; the others are taken to be alike."""
    sources: tuple[str, ...] = ()
    """Where each figure comes from."""
    spent_usd: float | None = None
    """What the dataset's calls have cost so far; None if that is not known, or not asked for
    because there is no budget."""
    spent_tokens: int = 0
    """Tokens that they took, if there is a budget."""
    budget_usd: float | None = None
    """Most money that all calls of the dataset may cost."""
    budget_tokens: int | None = None
    """Most tokens that they may take."""


class StageCost(Record, frozen=True):
    """What a stage will take of a device."""

    stage: Stage
    """The stage."""
    device: str
    """What computed the samples that were measured."""
    seconds_a_sample: float
    """Measured, for a planned sample."""
    seconds: float
    """For all samples that are left."""


class RunCost(Record, frozen=True):
    """What a run will cost; extra samples of a quota are not in it."""

    samples: int
    """Samples of the shards that are left."""
    writer: WriterCost | None
    """Nothing for a writer that costs nothing."""
    stages: tuple[StageCost, ...]
    """The stages that were measured; empty if none was."""
    num_bytes: int
    """Disk: tars, and the painted pairs from which they are packed."""
    bytes_measured: bool
    """Whether finished shards of the dataset were measured."""
    maps_bytes: int = 0
    """Disk for attention maps besides, by their sizes; they lie with the painted pairs."""


@dataclass(frozen=True)
class Remainder:
    """Which samples are left to be made.

    Attributes:
        shards: The shards that are left.
        texts: Of shards that were begun: the samples that have no text yet, by shard name.
    """

    shards: Sequence[ShardRange]
    texts: Mapping[str, Sequence[PlannedSample]]


def estimate_costs(
    parameters: GenerationParameters, classes: Slice, left: Remainder, store: Store | None
) -> RunCost:
    """Estimate what a run will cost; nothing is sent and nothing written.

    Args:
        parameters: What to generate.
        classes: The slice.
        left: What is left of it.
        store: The dataset, if there is one.

    Raises:
        DataError: An answer in the ledger is damaged.
        InputError: Instructions or a tokenizer cannot be read.
    """
    statuses = store.status() if store is not None else []
    samples = sum(shard.count for shard in left.shards)
    recipe = parameters.recipe
    num_bytes, measured = _disk(recipe.profile, samples, statuses)
    return RunCost(
        samples=samples,
        writer=_writer_cost(parameters, classes, left, store),
        stages=tuple(_stage_costs(samples, classes.slice_id, statuses)),
        num_bytes=num_bytes,
        bytes_measured=measured,
        maps_bytes=samples * wanted.usual_bytes if (wanted := recipe.maps_wanted) else 0,
    )


def _writer_cost(
    parameters: GenerationParameters, classes: Slice, left: Remainder, store: Store | None
) -> WriterCost | None:
    config = parameters.recipe.profile.writer
    if kind_of(config).need is not Need.SERVICE:
        return None
    if not isinstance(config, ChatWriterConfig):
        return WriterCost(calls=None)
    chosen, total = _class_sets(parameters, classes, left)
    size = parameters.spec.texts_per_class_set
    requests = first_requests(
        cut_class_sets(chosen, size), load_vocabulary(parameters.spec.vocabulary)
    )
    ledger = Ledger(store.objects) if store is not None else None
    found = estimate_calls(config, requests, total, ledger)
    known = known_prices(config)
    prices, source = known.prices, known.source
    if prices is not None and config.mode in {"batch", "run-batch"}:
        share = config.batch.price_share
        prices = prices.times(share)
        source = f"{source}; answers of batches cost {share:g} of that"
    spent = ledger.totals() if ledger is not None and _is_bounded(config) else None
    return WriterCost(
        calls=found.calls,
        known_calls=found.known_calls,
        prompt_tokens=found.prompt_tokens,
        completion_tokens=found.completion_tokens,
        usd=prices.cost(found.prompt_tokens, found.completion_tokens) if prices else None,
        prices=source,
        class_sets=found.requests,
        sampled=found.sampled,
        sources=found.sources,
        spent_usd=spent.cost_usd if spent else (None if ledger else 0.0),
        spent_tokens=spent.prompt_tokens + spent.completion_tokens if spent else 0,
        budget_usd=config.budget_usd,
        budget_tokens=config.budget_tokens,
    )


def _is_bounded(config: ChatWriterConfig) -> bool:
    """Whether there is a budget: only then the whole ledger has to be read."""
    return config.budget_usd is not None or config.budget_tokens is not None


def _class_sets(
    parameters: GenerationParameters, classes: Slice, left: Remainder
) -> tuple[list[PlannedSample], int]:
    """Samples of some class sets that have no text yet, and how many sets there are."""
    spec = parameters.spec
    size = spec.texts_per_class_set
    begun: dict[int, dict[str, PlannedSample]] = {}
    for samples in left.texts.values():
        for sample in samples:
            others = begun.setdefault(sample.index // size, {})
            others[sample.key] = sample  # two shards may share a class set
    fresh = _joined(
        range(shard.start // size, -(-shard.stop // size))
        for shard in left.shards
        if shard.name not in left.texts
    )
    num_fresh = sum(map(len, fresh))
    sets = [each for group, each in begun.items() if not any(group in part for part in fresh)]
    places = _spread(num_fresh + len(sets), _SAMPLED_SETS)
    chosen: list[PlannedSample] = []
    for place in places:
        if place >= num_fresh:
            chosen += sets[place - num_fresh].values()
        else:
            start = _at(fresh, place) * size
            chosen += plan_samples(spec, classes, start, min(start + size, MAX_SAMPLES))
    return chosen, num_fresh + len(sets)


def _joined(ranges: Iterator[range]) -> list[range]:
    """Rising ranges without what an earlier one has: shards may share a class set."""
    joined: list[range] = []
    for each in ranges:
        start = max(each.start, joined[-1].stop) if joined else each.start
        if start < each.stop:
            joined.append(range(start, each.stop))
    return joined


def _at(ranges: Sequence[range], place: int) -> int:
    for each in ranges:
        if place < len(each):
            return each[place]
        place -= len(each)
    message = f"place {place} lies behind the ranges"
    raise IndexError(message)


def _spread(count: int, most: int) -> list[int]:
    """Up to `most` of `count` places, evenly."""
    return [index * count // most for index in range(most)] if count > most else list(range(count))


def _stage_costs(
    samples: int, slice_id: str, statuses: Sequence[SliceStatus]
) -> Iterator[StageCost]:
    """What the samples that are left will take, as the dataset's samples took so far."""
    under_way = {
        stage: sum(each.under_way[stage] for each in statuses if each.slice_id == slice_id)
        for stage in DEVICE_STAGES
    }
    for stage in DEVICE_STAGES:
        spent: dict[str, float] = {}
        for status in statuses:
            for device, seconds in status.device_seconds.get(stage, {}).items():
                spent[device] = spent.get(device, 0.0) + seconds
        passed = sum(each.requested + each.under_way[stage] for each in statuses)
        total = sum(spent.values())
        if not passed or not total:
            continue
        left = max(0, samples - under_way[stage])
        yield StageCost(
            stage=stage,
            device=max(spent, key=lambda device: spent[device]),
            seconds_a_sample=round(total / passed, 4),
            seconds=round(total / passed * left, 1),
        )


def _disk(profile: Profile, samples: int, statuses: Sequence[SliceStatus]) -> tuple[int, bool]:
    """Bytes of tars and of the pairs they are packed from, and whether they were measured."""
    requested = sum(each.requested for each in statuses)
    packed = sum(each.num_bytes for each in statuses)
    if requested and packed:
        return round(2 * samples * packed / requested), True
    pixels = profile.painter.height * profile.painter.width
    return round(2 * samples * 2 * pixels * _BYTES_A_PIXEL[profile.image_format]), False


def cost_lines(cost: RunCost) -> Iterator[str]:
    """Say in words what a run will cost, and how that is known."""
    if cost.writer is None:
        yield "texts: free"
    else:
        yield from _writer_lines(cost.writer)
    yield from _device_lines(cost)
    how = "as finished shards of this dataset" if cost.bytes_measured else "a stated figure"
    yield f"disk: about {_bytes(cost.num_bytes)} ({how}; half of it is painted pairs, freed by gc)"
    if cost.maps_bytes:
        yield (
            f"disk: about {_bytes(cost.maps_bytes)} of attention maps besides, which gc frees with "
            "the pairs: they cannot be made again without painting"
        )


def _writer_lines(writer: WriterCost) -> Iterator[str]:
    if writer.calls is None:
        yield "texts: calls of this kind of writer cannot be foreseen"
        return
    money = "money not known" if writer.usd is None else f"about {writer.usd:.4f} USD"
    known = f"; {writer.known_calls} more are answered in the ledger" if writer.known_calls else ""
    yield (
        f"texts: about {writer.calls:,} calls, {writer.prompt_tokens:,} tokens read and "
        f"{writer.completion_tokens:,} written, {money}{known}"
    )
    yield f"  money: {writer.prices}"
    rendered = "all" if writer.sampled == writer.class_sets else f"{writer.sampled} evenly chosen"
    yield f"  calls: the requests of {rendered} of {writer.class_sets:,} class sets, as a run sends"
    for source in writer.sources:
        yield f"  {source}"
    yield from _budget_lines(writer)


def _budget_lines(writer: WriterCost) -> Iterator[str]:
    tokens = (writer.prompt_tokens or 0) + (writer.completion_tokens or 0)
    caps = []
    if writer.budget_usd is not None:
        spent = "not known" if writer.spent_usd is None else f"{writer.spent_usd:.4f} USD"
        caps.append((spent, writer.spent_usd, writer.usd, writer.budget_usd, "USD"))
    if writer.budget_tokens is not None:
        spent = f"{writer.spent_tokens:,} tokens"
        caps.append((spent, writer.spent_tokens, tokens, writer.budget_tokens, "tokens"))
    for spent, before, more, cap, unit in caps:
        enough = ""
        if before is not None and more is not None:
            enough = "; it will do" if before + more <= cap else "; it will not do: raise it"
        limit = f"{cap:,}" if isinstance(cap, int) else f"{cap:g}"
        yield f"  budget: {spent} spent of {limit} {unit}{enough}"


def _device_lines(cost: RunCost) -> Iterator[str]:
    if not cost.stages:
        yield (
            "devices: hours not known; they are measured from the first samples that are made, so "
            "run one shard (--shards 0) and plan again"
        )
        return
    for each in cost.stages:
        device = each.device or "a device that older records do not name"
        yield (
            f"devices: {each.stage} {each.seconds / 3600:.2f} h ({duration_text(each.seconds)}) at "
            f"{each.seconds_a_sample:.3g} s a sample, measured on {device}"
        )
    gpu = sum(each.seconds for each in cost.stages if each.device != CPU)
    yield f"devices: {gpu / 3600:.2f} GPU hours in all"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
