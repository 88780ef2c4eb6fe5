"""Tables of an ablation, in the shape of the MagicSeg paper's tables V and VI.

They have every seed's score, mean and spread, and the published numbers beside them; what the
differences mean is left to the reader.
"""

from collections.abc import Iterator
from statistics import fmean, stdev

from evaluation.reports.ablations import Ablation, Arm
from storage.records import Record
from storage.tables import read_table

_RICH = "rich"
"""The kind of prompts that is called as the paper calls its own."""


class Spread(Record, frozen=True):
    """One number at several seeds."""

    values: tuple[float | None, ...]
    """One for each seed; none where it is missing."""
    states: tuple[str, ...]
    """The state of the cell of each seed."""

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


class TableRow(Record, frozen=True):
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
    rows: tuple[TableRow, ...]
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


def _arms(ablation: Ablation) -> list[Arm]:
    return list(dict.fromkeys(cell.arm for cell in ablation.cells))


def _prompts_table(ablation: Ablation) -> Table | None:
    arms = _arms(ablation)
    own = [arm for arm in arms if arm.classes_per_image == ablation.usual]
    if len({arm.prompts for arm in own}) == 1 and len(own) < len(arms):
        return None  # the other table has all of them
    rows = [
        TableRow(
            labels=(arm.prompts, switch_words(arm)),
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
        TableRow(
            labels=(_names(ablation, arm), switch_words(arm)),
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
                TableRow(
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


def _untrained(ablation: Ablation) -> Iterator[TableRow]:
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
        yield TableRow(labels=("untrained student", "-"), spreads=tuple(spreads))


def _published_prompts(arm: Arm) -> str:
    kinds = {"simple": "Simple prompt", _RICH: "MagicSeg prompt"}
    return f"{kinds.get(arm.prompts, arm.prompts)}, {_published_switch(arm)}"


def _published_names(ablation: Ablation, arm: Arm) -> str:
    if arm.prompts != _RICH:  # table VI was measured with MagicSeg's prompts alone
        return f"here {arm.prompts}"
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


def switch_words(arm: Arm) -> str:
    """Whether the counterfactual loss is on, in a word."""
    return "on" if arm.counterfactual else "off"


def _names(ablation: Ablation, arm: Arm) -> str:
    m = arm.classes_per_image
    return f"{m} (= N)" if m == ablation.num_classes else str(m)


def spread_words(spread: Spread, sign: str = "") -> tuple[str, str]:
    """Every seed's number in percent; mean, and in brackets the deviation."""
    values = ", ".join(
        state if value is None else f"{100 * value:{sign}.1f}"
        for value, state in zip(spread.values, spread.states, strict=True)
    )
    if spread.mean is None:
        return values, "-"
    deviation = "" if spread.deviation is None else f" ({100 * spread.deviation:.1f})"
    return values, f"{100 * spread.mean:{sign}.1f}{deviation}"
