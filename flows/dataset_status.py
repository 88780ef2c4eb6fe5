"""What is committed in a dataset, read from its records alone."""

from typing import Any

from rich.console import Console
from rich.table import Table

from storage.ledger import Ledger
from storage.records import Stage
from storage.store import Store


def describe_status(root: str) -> dict[str, Any]:
    """Summarise a dataset, as JSON types.

    Raises:
        InputError: There is no dataset.
    """
    store = Store.open(root)
    ledger = Ledger(store.objects)
    ledger.refresh()
    return {
        "root": store.root,
        "slices": [
            {
                "slice_id": status.slice_id,
                "shards": status.shards,
                "under_way": {stage.value: status.under_way[stage] for stage in Stage},
                "undelivered": {why.value: count for why, count in status.undelivered.items()},
                "requested": status.requested,
                "written": status.written,
                "dropped": {reason.value: count for reason, count in status.dropped.items()},
                "degraded": status.degraded,
                "bytes": status.num_bytes,
                "seconds": {
                    stage.value: round(seconds, 1) for stage, seconds in status.seconds.items()
                },
            }
            for status in store.status()
        ],
        "writer": ledger.totals().model_dump(mode="json"),
    }


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
        if part["undelivered"]:
            failed = ", ".join(f"{why} {n}" for why, n in sorted(part["undelivered"].items()))
            console.print(
                f"not delivered: {failed}; 'magicseg generate' asks for exactly these again",
                markup=False,
                soft_wrap=True,
            )
    calls = status["writer"]
    if calls.get("calls"):
        console.print(f"writer: {calls}", markup=False, soft_wrap=True)
