"""Ablations: what a grid of runs came to, in the shape of the MagicSeg paper's tables V and VI.

A cell is one training run: an arm of the grid at one seed. The tables show every seed's score, mean
and spread, and the published numbers beside them; what the differences mean is left to the reader.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

from pydantic import Field

from storage.files import write_whole
from storage.records import Record
from storage.tables import read_table

JSON_NAME = "ablation.json"
MARKDOWN_NAME = "ablation.md"

_PUBLISHED_NOTE = (
    "published: mIoU on COCO-Object in tables V and VI of MagicSeg (arXiv 2603.19575), one run "
    "each, on 40k (V) and 380k (VI) quadruplets of 1,205 classes; not measured here, and other "
    "data, models and benchmark"
)

_NOT_TOLD = frozenset({"benchmark", "split", "class_names"})
"""Fields of a protocol that its name says already, or that are too long for a line."""


class Arm(Record, frozen=True):
    """What is varied, apart from the seed."""

    prompts: str
    """Name of the kind of prompts."""
    classes_per_image: int = Field(ge=1)
    """Names m that an image is trained against."""
    counterfactual: bool
    """Whether the counterfactual loss is on."""


class Cell(Record, frozen=True):
    """One run of the grid."""

    arm: Arm
    """What was varied."""
    seed: int
    """Root of the random choices of its dataset and its training."""
    run: str
    """Folder of the run."""
    state: Literal["measured", "failed", "to do"] = "to do"
    """How far it is."""
    error: str = ""
    """Why it failed."""
    scores: dict[str, float] = Field(default_factory=dict)
    """The headline in [0, 1] by benchmark."""
    untrained_scores: dict[str, float] = Field(default_factory=dict)
    """The same of the student before training, in the cells where it was asked for."""


class DatasetYield(Record, frozen=True):
    """What a dataset of the grid holds."""

    prompts: str
    """Name of the kind of prompts."""
    seed: int
    """Root of the random choices."""
    root: str
    """Where it is."""
    requested: int
    """Samples of its finished shards."""
    written: int
    """Of these, samples in tars."""
    dropped: dict[str, int]
    """The others, by reason."""


class Ablation(Record, frozen=True):
    """A grid and what it came to."""

    profile: str
    """Profile of the student."""
    num_classes: int
    """Size N of the vocabulary."""
    usual: int
    """Names m of the runs that are compared by their prompts, and with and without the loss."""
    names_prompts: str
    """The kind of prompts of the runs that are compared by m."""
    seeds: tuple[int, ...]
    """In the order of the tables."""
    benchmarks: tuple[str, ...]
    """In the order of the tables."""
    metrics: dict[str, str]
    """What the headline is, by benchmark: mIoU, or p-mIoU where points are asked."""
    cells: tuple[Cell, ...]
    """Every run."""
    datasets: tuple[DatasetYield, ...]
    """What the runs are trained on, as far as it is there."""
    protocols: dict[str, dict[str, Any]]
    """How scores were measured, by benchmark: the fields of their protocol."""
    settings: dict[str, Any]
    """The parameters of the grid."""
    engine_version: str
    """Version of the code."""

    @property
    def unfinished(self) -> tuple[Cell, ...]:
        """Cells that are not measured."""
        return tuple(cell for cell in self.cells if cell.state != "measured")


class Spread(Record, frozen=True):
    """One number at several seeds."""

    values: tuple[float | None, ...]
    """One for each seed; none where it is missing."""
    states: tuple[str, ...]
    """How far the cells of the seeds are."""

    @property
    def known(self) -> list[float]:
        """The values that are there."""
        return [value for value in self.values if value is not None]

    @property
    def mean(self) -> float | None:
        """Mean of the known values."""
        return fmean(self.known) if self.known else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation of the known values; none of fewer than two."""
        return stdev(self.known) if len(self.known) > 1 else None


class Row(Record, frozen=True):
    """One row of a table."""

    labels: tuple[str, ...]
    """The first columns."""
    spreads: tuple[Spread, ...]
    """The headline in [0, 1], or differences of it, on each benchmark."""
    published: tuple[float, ...] = ()
    """The published number in percent; two where both tables have one."""


class Table(Record, frozen=True):
    """A table in the shape of one of the paper's."""

    title: str
    """What it compares."""
    heads: tuple[str, ...]
    """Names of the first columns."""
    rows: tuple[Row, ...]
    """From top to bottom."""
    signed: bool = False
    """Whether its numbers are differences."""


def make_tables(ablation: Ablation) -> tuple[Table, ...]:
    """The tables that a grid has runs for.

    The first two have the shape of the paper's table V (prompts) and table VI (names an image);
    each is there if the grid varies its subject. The last shows what the counterfactual loss
    changes, seed by seed: both runs of a pair have the same dataset and the same seed.
    """
    return tuple(
        table
        for table in (_prompts_table(ablation), _names_table(ablation), _pairs_table(ablation))
        if table is not None
    )


def format_ablation(ablation: Ablation) -> str:
    """All tables of a grid, with the yields and the protocol, as Markdown."""
    parts = [_format_table(ablation, table) for table in make_tables(ablation)]
    parts += [_format_yields(ablation), "\n".join(_notes(ablation))]
    return "\n\n".join(parts) + "\n"


def write_ablation(ablation: Ablation, folder: Path) -> tuple[Path, Path]:
    """Write a grid as JSON and as Markdown; each file appears whole or not at all.

    Returns:
        The two files.
    """
    files = (folder / JSON_NAME, folder / MARKDOWN_NAME)
    texts = (ablation.model_dump_json(indent=1) + "\n", format_ablation(ablation))
    for path, text in zip(files, texts, strict=True):
        write_whole(path, text.encode())
    return files


def _arms(ablation: Ablation) -> list[Arm]:
    return list(dict.fromkeys(cell.arm for cell in ablation.cells))


def _prompts_table(ablation: Ablation) -> Table | None:
    arms = _arms(ablation)
    own = [arm for arm in arms if arm.classes_per_image == ablation.usual]
    if len({arm.prompts for arm in own}) == 1 and len(own) < len(arms):
        return None  # the other table has all of them
    rows = [
        Row(
            labels=(arm.prompts, _switch(arm)),
            spreads=_spreads(ablation, arm),
            published=_published("V", _published_prompts(arm)),
        )
        for arm in own
    ]
    return Table(
        title=f"Prompts and the counterfactual loss (m = {ablation.usual}), as in table V",
        heads=("prompts", "counterfactual loss"),
        rows=(*rows, *_untrained(ablation)),
    )


def _names_table(ablation: Ablation) -> Table | None:
    own = [arm for arm in _arms(ablation) if arm.prompts == ablation.names_prompts]
    if len({arm.classes_per_image for arm in own}) == 1:
        return None
    own.sort(key=lambda arm: arm.classes_per_image == ablation.usual)
    rows = [
        Row(
            labels=(_names(ablation, arm), _switch(arm)),
            spreads=_spreads(ablation, arm),
            published=_published("VI", _published_names(ablation, arm)),
        )
        for arm in own
    ]
    return Table(
        title=f"Names an image (prompts: {ablation.names_prompts}), as in table VI",
        heads=("m", "counterfactual loss"),
        rows=(*rows, *_untrained(ablation)),
    )


def _pairs_table(ablation: Ablation) -> Table | None:
    arms = _arms(ablation)
    rows = []
    for arm in arms:
        off = arm.model_copy(update={"counterfactual": False})
        if arm.counterfactual and off in arms:
            pairs = zip(_spreads(ablation, arm), _spreads(ablation, off), strict=True)
            rows.append(
                Row(
                    labels=(arm.prompts, _names(ablation, arm)),
                    spreads=tuple(_difference(on, without) for on, without in pairs),
                    published=_published_differences(ablation, arm, off),
                )
            )
    if not rows:
        return None
    title = "What the counterfactual loss changes: on minus off, seed by seed"
    return Table(title=title, heads=("prompts", "m"), rows=tuple(rows), signed=True)


def _spreads(ablation: Ablation, arm: Arm) -> tuple[Spread, ...]:
    by_seed = {cell.seed: cell for cell in ablation.cells if cell.arm == arm}
    cells = [by_seed[seed] for seed in ablation.seeds]
    states = tuple(cell.state for cell in cells)
    return tuple(
        Spread(values=tuple(cell.scores.get(name) for cell in cells), states=states)
        for name in ablation.benchmarks
    )


def _difference(on: Spread, off: Spread) -> Spread:
    values = [
        None if first is None or second is None else first - second
        for first, second in zip(on.values, off.values, strict=True)
    ]
    pairs = zip(on.states, off.states, strict=True)
    states = [second if first == "measured" else first for first, second in pairs]
    return Spread(values=tuple(values), states=tuple(states))


def _untrained(ablation: Ablation) -> Iterator[Row]:
    """A row of the students before training, if any was scored."""
    found: dict[str, dict[int, float]] = {name: {} for name in ablation.benchmarks}
    for cell in ablation.cells:
        for name, score in cell.untrained_scores.items():
            found[name][cell.seed] = score
    if any(found.values()):
        states = ("to do",) * len(ablation.seeds)
        spreads = [
            Spread(values=tuple(map(by_seed.get, ablation.seeds)), states=states)
            for by_seed in found.values()
        ]
        yield Row(labels=("untrained student", "-"), spreads=tuple(spreads))


def _published_prompts(arm: Arm) -> str:
    kinds = {"simple": "Simple prompt", "rich": "MagicSeg prompt"}
    return f"{kinds.get(arm.prompts, arm.prompts)}, {_published_switch(arm)}"


def _published_names(ablation: Ablation, arm: Arm) -> str:
    names = {1: "m=1", ablation.num_classes: "m=1205", ablation.usual: "m=100"}
    m = arm.classes_per_image
    return f"{names.get(m, f'here m={m}')}, {_published_switch(arm)}"


def _published_switch(arm: Arm) -> str:
    return "counterfactual" if arm.counterfactual else "no counterfactual"


def _published_differences(ablation: Ablation, on: Arm, off: Arm) -> tuple[float, ...]:
    found = []
    pairs = [(_published("V", _published_prompts(arm)) for arm in (on, off))]
    if on.prompts == ablation.names_prompts:
        pairs.append(_published("VI", _published_names(ablation, arm)) for arm in (on, off))
    for values in pairs:
        first, second = values
        found += [round(a - b, 1) for a, b in zip(first, second, strict=True)]
    return tuple(found)


def _published(table: str, method: str) -> tuple[float, ...]:
    return tuple(
        float(row["value"])
        for row in read_table("published_results.csv")
        if (row["table"], row["method"]) == (table, method)
    )


def _switch(arm: Arm) -> str:
    return "on" if arm.counterfactual else "off"


def _names(ablation: Ablation, arm: Arm) -> str:
    m = arm.classes_per_image
    return f"{m} (= N)" if m == ablation.num_classes else str(m)


def _format_table(ablation: Ablation, table: Table) -> str:
    seeds = ", ".join(map(str, ablation.seeds))
    heads = [*table.heads]
    for name in ablation.benchmarks:
        heads += [f"{name}, seed{'s' if len(ablation.seeds) > 1 else ''} {seeds}", "mean (sd)"]
    rule = "---|" * len(table.heads) + "---|---:|" * len(ablation.benchmarks) + "---:|"
    lines = [f"### {table.title}", "", _line([*heads, "published"]), f"|{rule}"]
    for row in table.rows:
        cells = list(row.labels)
        for spread in row.spreads:
            cells += _format_spread(spread, "+" if table.signed else "")
        sign = "+" if table.signed else ""
        lines.append(_line([*cells, ", ".join(f"{value:{sign}.1f}" for value in row.published)]))
    return "\n".join(lines)


def _format_spread(spread: Spread, sign: str) -> tuple[str, str]:
    """Every seed's number in percent; mean, and in brackets the deviation."""
    values = ", ".join(
        state if value is None else f"{100 * value:{sign}.1f}"
        for value, state in zip(spread.values, spread.states, strict=True)
    )
    if spread.mean is None:
        return values, "-"
    deviation = "" if spread.deviation is None else f" ({100 * spread.deviation:.1f})"
    return values, f"{100 * spread.mean:{sign}.1f}{deviation}"


def _format_yields(ablation: Ablation) -> str:
    lines = ["### What the runs were trained on", ""]
    lines += [_line(["prompts", "seed", "samples written", "dropped"]), "|---|---:|---:|---|"]
    for each in ablation.datasets:
        dropped = ", ".join(f"{why} {count}" for why, count in sorted(each.dropped.items()))
        written = f"{each.written} of {each.requested}"
        lines.append(_line([each.prompts, str(each.seed), written, dropped or "none"]))
    return "\n".join(lines)


def _notes(ablation: Ablation) -> Iterator[str]:
    count = f"{len(ablation.seeds)} seed{'s' if len(ablation.seeds) > 1 else ''}"
    yield (
        f"- in percent at {count}: each, their mean, and in brackets the sample standard "
        "deviation; the seed changes dataset and training, the benchmarks stay"
    )
    for name, protocol in ablation.protocols.items():
        told = "; ".join(
            f"{key.replace('_', ' ')}: {value}"
            for key, value in protocol.items()
            if key not in _NOT_TOLD and value not in ("", [], None)
        )
        yield f"- {ablation.metrics[name]} on {name}: {told}"
    yield f"- {_PUBLISHED_NOTE}"
    for cell in ablation.unfinished:
        arm = cell.arm
        what = f"{arm.prompts}, m = {arm.classes_per_image}, loss {_switch(arm)}, seed {cell.seed}"
        yield f"- {cell.state}: {what}{f': {cell.error}' if cell.error else ''}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
