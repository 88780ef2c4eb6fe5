"""Costs as a page shows them: what was recorded of money and of seconds, and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.reports.boards import Scored
from storage.metrics import MetricsRow
from storage.spending import add_up, spending_notes, spending_rows
from storage.store import Store

_UNKNOWN = "not recorded"


@dataclass(frozen=True)
class CostTable:
    """What something cost.

    Attributes:
        title: What.
        heads: Of the columns.
        rows: Cells; the first says on what it was spent.
        notes: What the rows do not tell.
    """

    title: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: list[str]


def dataset_costs(store: Store) -> CostTable | None:
    """What a dataset has cost so far; None if nothing was recorded.

    Raises:
        DataError: If an answer in the ledger is damaged.
    """
    spending = add_up(store)
    rows: list[tuple[str, ...]] = list(spending_rows(spending))
    if not rows:
        return None
    each = spending.gpu_seconds_a_sample
    a_sample = _UNKNOWN if each is None else f"{each:.4g} s"
    rows.append(("GPU seconds in all", f"{spending.gpu_seconds:,.1f} s", a_sample))
    heads = ("the dataset", "in all", "a written sample")
    return CostTable("Dataset", heads, rows, list(spending_notes(spending)))


def run_costs(
    metrics: Sequence[tuple[str, Sequence[MetricsRow]]], scored: Sequence[Scored]
) -> CostTable | None:
    """What trainings and passes over benchmarks took; None if there was none of them.

    Args:
        metrics: Name and training log of each run.
        scored: Scores.
    """
    rows: list[tuple[str, ...]] = []
    for name, log in metrics:
        spent = [row["seconds"] for row in log if isinstance(row.get("seconds"), int | float)]
        partly = f" of {len(spent):,} steps of {len(log):,}" if len(spent) < len(log) else ""
        took = f"{sum(spent):,.1f} s{partly}" if spent else _UNKNOWN
        rows.append((f"training of {name}", took))
    for each in scored:
        own = each.scores
        where = f"{own.protocol.benchmark} {own.protocol.split}"
        rows.append((f"scoring {own.subject.name} on {where}", f"{own.seconds:,.1f} s"))
    if not rows:
        return None
    note = "Wall time; records of trainings and scores do not say which device computed."
    return CostTable("Runs", ("the runs", "wall time"), rows, [note])
