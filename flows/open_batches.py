"""Open batches of a writer, in words: for status, the page of a run, and their own command."""

from datetime import datetime
from typing import Any

from storage.ledger import Ledger


def open_batches(ledger: Ledger) -> list[dict[str, Any]]:
    """The batches of a dataset that are not settled, as JSON types, the oldest first."""
    ledger.batches.refresh()
    return [
        {
            "job": batch.intent.job,
            "door": batch.intent.door,
            "base_url": batch.intent.base_url,
            "calls": batch.intent.calls,
            "batch_id": batch.state.batch_id,
            "status": batch.state.status if batch.intent.door == "service" else "exported",
            "created": batch.intent.created.isoformat(timespec="seconds"),
            "next_look": _time(batch.state.next_look),
        }
        for batch in ledger.batches.open()
    ]


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")


def batch_words(batch: dict[str, Any]) -> str:
    """Say in a line how far an open batch is."""
    look = f", next look at {batch['next_look']}" if batch["next_look"] else ""
    name = f" ({batch['batch_id']})" if batch["batch_id"] else ""
    return (
        f"batch {batch['job']}{name}: {batch['calls']} calls, {batch['status']}, since "
        f"{batch['created']}{look}"
    )
