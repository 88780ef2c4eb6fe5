"""Batches from the command line: listed, written as files for `run-batch`, taken in, forgotten."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.open_batches import open_batches
from models.writing.batch_settling import Settlement
from storage.batch_jobs import BatchEnd
from storage.errors import InputError
from storage.files import write_whole
from storage.ledger import Ledger
from storage.store import Store


def awaited_batches(root: str) -> list[dict[str, Any]]:
    """The open batches of a dataset, as JSON types.

    Raises:
        InputError: There is no dataset.
    """
    return open_batches(_ledger(root))


def forget_batch(root: str, job: str) -> None:
    """Close a batch whose answers nobody will bring; its calls are asked again.

    Raises:
        InputError: There is no dataset, or no such open batch.
    """
    _ledger(root).batches.forget(job, datetime.now(UTC))


def export_calls(root: str, out: Path) -> int:
    """Write the calls that wait for a model of one's own as a file for `run-batch`.

    Args:
        root: The dataset; a run whose writer has the mode `run-batch` has said what is wanted.
        out: The file.

    Returns:
        How many calls it has.

    Raises:
        InputError: There is no dataset, or it waits for no such calls.
    """
    batches = _ledger(root).batches
    batches.refresh()
    exported = [each.intent for each in batches.open() if each.intent.door == "file"]
    if not exported:
        message = (
            f"{root} waits for no model of your own; 'magicseg generate' with the writer's "
            "mode: run-batch says which calls it needs"
        )
        raise InputError(message)
    write_whole(out, b"".join(batches.requests(each.job) for each in exported))
    return sum(each.calls for each in exported)


def import_results(root: str, results: Path) -> list[BatchEnd]:
    """Take in what `run-batch` has made of an exported file.

    Args:
        root: The dataset.
        results: The file that it wrote.

    Returns:
        What became of each exported batch of which the file has lines.

    Raises:
        InputError: There is no dataset, the file is of no open batch, or a call was refused.
        OSError: The file cannot be read.
    """
    ledger, ends, refusals = _ledger(root), list[BatchEnd](), list[InputError]()
    data = results.read_bytes()
    with ledger.batches.leased(_never):
        for batch in ledger.batches.open():
            if batch.intent.door != "file":
                continue
            settlement = Settlement(ledger, batch.intent, datetime.now(UTC), _never)
            if not settlement.concerns(data):
                continue
            settled = settlement.settle([data], "imported")
            ledger.batches.close(batch.intent.job, settled.end)
            ends.append(settled.end)
            refusals += [settled.refusal] if settled.refusal is not None else []
    if not ends:
        message = (
            f"{results} has no line about a call that {root} waits for, expected what run-batch "
            "wrote of a file that 'magicseg batch export' had written and that was not imported yet"
        )
        raise InputError(message)
    if refusals:
        raise refusals[0]
    return ends


def import_words(ends: Sequence[BatchEnd]) -> str:
    """Say in a line what was taken in."""
    answered, left = sum(end.answered for end in ends), sum(len(end.unanswered) for end in ends)
    rest = f"; {left} others are asked again" if left else ""
    return f"{answered} calls are answered{rest}"


def _ledger(root: str) -> Ledger:
    return Ledger(Store.open(root).objects)


def _never() -> None:
    """Nobody ends the wait for others that make batches; they take seconds."""
