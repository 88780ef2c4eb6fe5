"""What a generation run shows in Prefect's user interface: how far it is, and what came of it."""

import base64
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from evaluation.reports.sheets import Quadruplet, draw_sheet, pick_samples
from flows.dataset_status import batch_words, open_batches
from flows.display import SampleCounts
from flows.generation_run import GenerationRun
from flows.generation_summary import GenerationSummary
from flows.live_page import Pace, live_artifact, progress_text
from models.registry import Need, kind_of
from storage.errors import EngineError
from storage.ledger import Ledger
from storage.store import Store

_log = logging.getLogger(__name__)

_SHEET_SAMPLES = 12
_SHEET_TILE = 96
_MONEY_SECONDS = 30.0


@contextmanager
def shown_progress(run: GenerationRun) -> Iterator[None]:
    """Keep an artifact with the progress of a run up to date until the block ends.

    Args:
        run: Its sizes may grow while it works.
    """
    planned = sum(shard.count for shard in run.planned)
    before = sum(shard.count for shard in run.planned if shard.name in run.finished)
    shards = f"{len(run.finished)} of {len(run.planned)} committed before"
    counts = SampleCounts(run.sizes)
    stop = run.machine.progress.listen(counts.note)
    pace, money = Pace.now(counts.share()), _money(run)

    def look() -> tuple[float, str]:
        to_do = max(counts.total, planned - before)  # extra samples come on top
        share = (before + counts.share() * counts.total) / (before + to_do)
        about = {"slice": run.classes.label, "dataset": run.store.root, "shards": shards}
        return 100 * share, progress_text(counts, pace, about | money())

    try:
        with live_artifact(f"magicseg-progress-{run.classes.slice_id}", look):
            yield
    finally:
        stop()


def _money(run: GenerationRun) -> Callable[[], dict[str, str]]:
    """What the writer has cost so far, asked for now and then; nothing if it is free."""
    if kind_of(run.recipe.profile.writer).need is not Need.SERVICE:
        return dict
    ledger, asked, told = Ledger(run.store.objects), float("-inf"), dict[str, str]()

    def look() -> dict[str, str]:
        nonlocal asked, told
        if time.monotonic() - asked > _MONEY_SECONDS:
            totals, asked = ledger.totals(), time.monotonic()
            cost = "cost not known" if totals.cost_usd is None else f"{totals.cost_usd:.2f} USD"
            told = {"writer": f"{cost}, {totals.calls} calls, {totals.errors} errors"}
            told |= _batches(ledger)
        return told

    return look


def _batches(ledger: Ledger) -> dict[str, str]:
    """What batches are open, if any."""
    found = open_batches(ledger)
    return {"batches": "; ".join(map(batch_words, found))} if found else {}


def publish_outcome(store: Store, summary: GenerationSummary) -> None:
    """Show what came of a run: yields, reasons, a contact sheet."""
    rows = [{"fate": "written", "samples": summary.written}]
    rows += [{"fate": why, "samples": n} for why, n in sorted(summary.dropped.items())]
    create_table_artifact(
        table=rows,
        key=f"magicseg-yields-{summary.slice_id}",
        description=f"Where the {summary.requested} samples of slice {summary.slice_id} went",
    )
    try:
        samples = pick_samples(store, _SHEET_SAMPLES)
    except EngineError as error:  # a damaged shard of another slice, say, is not this run's fault
        _log.warning("no contact sheet of %s: %s", store.root, error)
        return
    if samples:
        sheet = draw_sheet([Quadruplet.decode(sample) for sample in samples], tile=_SHEET_TILE)
        picture = base64.b64encode(sheet).decode()
        create_markdown_artifact(
            markdown=f"![quadruplets](data:image/png;base64,{picture})",
            key=f"magicseg-quadruplets-{summary.slice_id}",
            description="Image, counterfactual, masks",
        )
