"""The flow of a run in this process: a server beside it, progress, and a summary."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from flows.display import SampleCounts, show_progress
from flows.embedded_server import start_server
from flows.generation_run import GenerationRun
from flows.live_money import LiveMoney
from flows.log_files import log_file
from flows.quota_words import print_quota
from flows.quotas import Survey
from flows.score_tables import yield_table
from models.loading import importing
from storage.paths import local_path
from storage.records import Stage
from tasks.ahead import loading_ahead


def run_flow(run: GenerationRun, found: Survey | None, console: Console) -> None:
    """Make what is left of a run, with progress, and say what came of it.

    The server starts in its own process; meanwhile this one imports Prefect and loads the models
    that will be asked first.

    Args:
        run: The run; stopped at the end.
        found: What is to be made; nothing if damage hides it.
        console: Where progress and summary go.

    Raises:
        BreakerError: Nearly all samples are dropped for one reason.
        EngineError: The server does not start.
        IncompleteError: Shards are left to do.
    """
    folder = _engine_folder(run.parameters.root)
    with log_file(folder):
        server = start_server(folder / "prefect")
        with _loading_ahead(run, found):
            with importing():
                from prefect.settings import PREFECT_API_URL, temporary_settings

                from flows.generate_dataset import generate_dataset
                from flows.generation_form import form_values

            counts = SampleCounts(run.sizes, run.keys.stages)
            money = LiveMoney(run, lambda: counts.share_of(Stage.PROMPTS))
            address = server.wait()
            # an earlier command may have imported Prefect before there was a server
            with (
                temporary_settings({PREFECT_API_URL: address}),
                show_progress(run.machine.progress, counts, console, money.words),
                run.handed_on(),
            ):
                summary = generate_dataset(**form_values(run.parameters))
    console.print(yield_table(summary.written, summary.requested, summary.dropped))
    if summary.others is not None:
        console.print(f"objects not asked for: {summary.others.words}", soft_wrap=True)
    print_quota(summary.quota, console)
    executed = ", ".join(f"{stage.value} of {n}" for stage, n in summary.executed.items())
    cached = counts.cached() + summary.finished_before * len(counts.stages)
    if cost := money.words(now=True):
        console.print(f"writer: {cost}", markup=False, soft_wrap=True)
    console.print(
        f"executed: {executed or 'nothing'} shards; {cached} stages were committed before",
        soft_wrap=True,
    )


@contextmanager
def _loading_ahead(run: GenerationRun, found: Survey | None) -> Iterator[None]:
    """Load the models that the run asks for first, until the block ends.

    Where samples come from another dataset, or damage hides what there is, it shows only later
    which models those are.
    """
    if found is None or not found.todo or run.parameters.reuse:
        yield
        return
    own, shard = found.todo[0]
    with loading_ahead(own.work(shard)):
        yield


def _engine_folder(root: str) -> Path:
    """Where a local run keeps its database and logs: in the store, if that is a folder."""
    if "://" in root:
        return Path.home() / ".cache" / "magicseg"
    return local_path(root) / ".engine"
