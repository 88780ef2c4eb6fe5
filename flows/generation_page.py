"""What a generation run shows in Prefect's user interface: how far it is, and what came of it."""

import base64
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from evaluation.reports.sheets import Quadruplet, draw_sheet, pick_samples
from flows.display import SampleCounts
from flows.generation_run import GenerationRun
from flows.generation_summary import GenerationSummary
from flows.live_money import LiveMoney
from flows.live_page import Pace, live_artifact, progress_text
from storage.errors import EngineError
from storage.records import Stage
from storage.store import Store

_log = logging.getLogger(__name__)

_SHEET_SAMPLES = 12
_SHEET_TILE = 96


@contextmanager
def shown_progress(run: GenerationRun) -> Iterator[None]:
    """Keep an artifact with the progress of a run up to date until the block ends.

    Args:
        run: Its sizes may grow while it works.
    """
    planned = sum(shard.count for shard in run.planned)
    before = sum(shard.count for shard in run.planned if shard.name in run.finished)
    shards = f"{len(run.finished)} of {len(run.planned)} committed before"
    counts = SampleCounts(run.sizes, run.keys.stages)
    stop = run.machine.progress.listen(counts.note)
    pace = Pace.now(counts.share())
    money = LiveMoney(run, lambda: counts.share_of(Stage.PROMPTS))

    def look() -> tuple[float, str]:
        to_do = max(counts.total, planned - before)  # extra samples come on top
        share = (before + counts.share() * counts.total) / (before + to_do)
        about = {"slice": run.classes.label, "dataset": run.store.root, "shards": shards}
        if cost := money.words():
            about["writer"] = cost
        if batches := money.batches():
            about["batches"] = batches
        return 100 * share, progress_text(counts, pace, about)

    try:
        with live_artifact(f"magicseg-progress-{run.classes.slice_id}", look):
            yield
    finally:
        stop()


def publish_outcome(store: Store, summary: GenerationSummary) -> None:
    """Show what came of a run: yields, reasons, a contact sheet."""
    rows = [{"fate": "written", "samples": summary.written}]
    rows += [{"fate": why, "samples": n} for why, n in sorted(summary.dropped.items())]
    create_table_artifact(
        table=rows,
        key=f"magicseg-yields-{summary.slice_id}",
        description=f"Where the {summary.requested} samples of slice {summary.slice_id} went"
        + (f"; objects not asked for: {summary.others.words}" if summary.others else ""),
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
