"""What is committed in a dataset, read from its records alone."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.open_batches import batch_words, open_batches
from storage.card import count_others
from storage.commits import OtherOutcomes
from storage.corrections import count_corrected
from storage.exclusions import count_excluded, count_reasons
from storage.ledger import Ledger
from storage.spending import Spending, add_up, spending_notes, spending_rows
from storage.store import Store

_MOST_OTHERS = 12
"""Classes not asked for that a terminal names."""
_MAX_REASONS = 5


def describe_status(root: str) -> dict[str, Any]:
    """Summarise a dataset, as JSON types.

    Raises:
        InputError: There is no dataset.
    """
    store = Store.open(root)
    slices = store.status()
    spending = add_up(store, slices)
    excluded, reasons = count_excluded(store), count_reasons(store)
    corrected = count_corrected(store)
    return {
        "root": store.root,
        "slices": [
            {
                "slice_id": status.slice_id,
                "shards": status.shards,
                "under_way": {
                    stage.value: status.under_way[stage] for stage in store.specification.stages
                },
                "undelivered": {why.value: count for why, count in status.undelivered.items()},
                "requested": status.requested,
                "written": status.written,
                "dropped": {reason.value: count for reason, count in status.dropped.items()},
                "excluded": excluded.get(status.slice_id, {}),
                "excluded_why": [
                    {"by": by, "why": why, "samples": number}
                    for by, why, number in reasons.get(status.slice_id, [])
                ],
                "others": count_others(store, [status]),
                "found_others": None
                if status.found_others is None
                else status.found_others.model_dump(mode="json"),
                "corrected": corrected.get(status.slice_id, 0),
                "degraded": status.degraded,
                "bytes": status.num_bytes,
                "seconds": {
                    stage.value: round(seconds, 1) for stage, seconds in status.seconds.items()
                },
            }
            for status in slices
        ],
        "writer": spending.calls.model_dump(mode="json"),
        "spending": spending_facts(spending),
        "batches": open_batches(Ledger(store.objects)),
    }


def spending_facts(spending: Spending) -> dict[str, Any]:
    """What a dataset has cost, as JSON types."""
    return {
        **spending.model_dump(mode="json"),
        "gpu_seconds": round(spending.gpu_seconds, 3),
        "usd_a_sample": spending.usd_a_sample,
        "gpu_seconds_a_sample": spending.gpu_seconds_a_sample,
    }


def read_spending(facts: dict[str, Any]) -> Spending:
    """The other way round."""
    return Spending.model_validate({name: facts[name] for name in Spending.model_fields})


def print_spending(facts: dict[str, Any], console: Console) -> None:
    """Print what a dataset has cost: calls, tokens, money and seconds of devices side by side."""
    spending = read_spending(facts)
    table = Table("spent on", "in all", "a written sample")
    for row in spending_rows(spending):
        table.add_row(*map(escape, row))
    if not table.row_count:
        console.print("nothing was spent yet", soft_wrap=True)
        return
    console.print(table)
    for note in spending_notes(spending):
        console.print(note, markup=False, soft_wrap=True)


def _why_lines(reasons: list[dict[str, Any]]) -> Iterator[str]:
    """The most frequent reasons of exclusions."""
    for each in reasons[:_MAX_REASONS]:
        yield f"  {each['samples']} {each['by']}: {each['why']}"
    if len(reasons) > _MAX_REASONS:
        yield f"  and {len(reasons) - _MAX_REASONS} more reasons"


def print_status(status: dict[str, Any], console: Console) -> None:
    """Print a status, one table for each slice."""
    console.print(f"{status['root']}: {len(status['slices'])} slices", markup=False, soft_wrap=True)
    for part in status["slices"]:
        table = Table("stage", "samples under way", "seconds", title=f"slice {part['slice_id']}")
        for stage, count in part["under_way"].items():
            table.add_row(stage, str(count), f"{part['seconds'].get(stage, 0):.1f}")
        console.print(table)
        dropped = ", ".join(f"{why} {count}" for why, count in sorted(part["dropped"].items()))
        console.print(
            f"{part['shards']} shards finished: {part['written']} of {part['requested']} samples "
            f"written ({part['bytes'] / 1e6:.1f} MB); dropped: {dropped or 'none'};"
            f" degraded shards: {', '.join(part['degraded']) or 'none'}",
            markup=False,
            soft_wrap=True,
        )
        for note in _notes(part):
            console.print(note, markup=False, soft_wrap=True)
    if any(spending_rows(read_spending(status["spending"]))):
        print_spending(status["spending"], console)
    for batch in status["batches"]:
        console.print(batch_words(batch), markup=False, soft_wrap=True)


def _notes(part: dict[str, Any]) -> Iterator[str]:
    """What else is to be said of a slice, a line each."""
    if part["excluded"]:
        by = ", ".join(f"{judge} {n}" for judge, n in sorted(part["excluded"].items()))
        left = part["written"] - sum(part["excluded"].values())
        yield f"excluded: {by}; {left} samples are left to train on and to export"
        yield from _why_lines(part["excluded_why"])
    if part["found_others"]:
        found = OtherOutcomes.model_validate(part["found_others"])
        yield f"objects not asked for: {found.words}"
    if part["others"]:
        yield f"samples with an object not asked for: {_counted(part['others'])}"
    if part["corrected"]:
        yield f"corrected by people: the masks of {part['corrected']} samples"
    if part["undelivered"]:
        failed = ", ".join(f"{why} {n}" for why, n in sorted(part["undelivered"].items()))
        yield f"not delivered: {failed}; 'magicseg generate' asks for exactly these again"


def _counted(found: dict[str, int]) -> str:
    """The most frequent ones, and how many there are besides."""
    shown = list(found.items())[:_MOST_OTHERS]
    rest = len(found) - len(shown)
    words = [f"{name} {count}" for name, count in shown]
    return ", ".join([*words, *([f"and {rest} classes more"] if rest else [])])
