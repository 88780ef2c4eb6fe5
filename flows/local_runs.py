"""Generation that starts from a terminal: checks first, then a server, progress, and a summary."""

import logging
from pathlib import Path

from rich.console import Console

from flows.display import SampleCounts, show_progress
from flows.embedded_server import ensure_server
from flows.generation_parameters import GenerationParameters
from flows.generation_run import GenerationRun, open_run, prepare
from flows.live_money import LiveMoney
from flows.log_files import log_file
from flows.quota_words import print_quota
from flows.quotas import Survey, try_survey
from flows.score_tables import yield_table
from storage.paths import local_path
from storage.records import Stage
from tasks.resident import ResidentModels

_log = logging.getLogger(__name__)


def generate_locally(
    parameters: GenerationParameters, console: Console, models: ResidentModels | None = None
) -> None:
    """Generate a slice in this process and say what was done.

    Everything that can be checked is checked before a server is started or anything is paid for.
    If all shards are committed and no extra samples are needed, no server is started at all.

    Args:
        parameters: What to generate.
        console: Where progress and summary go.
        models: Models of an earlier run to go on with.

    Raises:
        InputError: The parameters mean nothing, weights are missing, or the dataset that is there
            was made with other settings.
        IncompleteError: Shards are left to do.
        BreakerError: Nearly all samples are dropped for one reason.
    """
    there = open_run(parameters)
    found = try_survey(there) if there is not None else None
    if there is not None and found is not None and not found.todo:
        _describe_work(there, found, console)  # what work needs, such as space, is not asked for
        there.keep_up_to_date()
        found.require_samples(there)
        return
    with prepare(parameters, models) as run:
        _describe_work(run, try_survey(run), console)
        _generate(run, console)


def _describe_work(run: GenerationRun, found: Survey | None, console: Console) -> None:
    """Say what there is to do."""
    what = f"slice {run.classes.label} ({len(run.classes.class_ids)} classes)"
    num_planned, num_todo = len(run.planned), len(run.planned) - len(run.finished)
    samples = sum(shard.count for shard in run.planned)
    if found is not None and not found.todo:
        words = (
            f"nothing to do: all {num_planned} shards of {what} are committed, "
            f"no stage was executed"
        )
    else:
        words = (
            f"{what}: {num_planned} shards of {samples} samples, "
            f"{num_planned - num_todo} committed, {num_todo} to do"
        )
    console.print(words, soft_wrap=True)
    if found is not None and not num_todo:
        print_quota(found.quota, console)


def _generate(run: GenerationRun, console: Console) -> None:
    """Run the flow on a server, with progress, and say what came of it."""
    folder = _engine_folder(run.parameters.root)
    with log_file(folder):
        address = ensure_server(folder / "prefect")
        from prefect.settings import PREFECT_API_URL, temporary_settings

        from flows.generate_dataset import generate_dataset
        from flows.generation_form import form_values

        counts = SampleCounts(run.sizes, run.keys.stages)
        money = LiveMoney(run, lambda: counts.share_of(Stage.PROMPTS))
        # An earlier command of this process may have imported Prefect before there was a server.
        with (
            temporary_settings({PREFECT_API_URL: address}),
            show_progress(run.machine.progress, counts, console, money.words),
            run.handed_on(),
        ):
            summary = generate_dataset(**form_values(run.parameters))
    console.print(yield_table(summary.written, summary.requested, summary.dropped))
    print_quota(summary.quota, console)
    executed = ", ".join(f"{stage.value} of {n}" for stage, n in summary.executed.items())
    cached = counts.cached() + summary.finished_before * len(counts.stages)
    if cost := money.words(now=True):
        console.print(f"writer: {cost}", markup=False, soft_wrap=True)
    console.print(
        f"executed: {executed or 'nothing'} shards; {cached} stages were committed before",
        soft_wrap=True,
    )


def _engine_folder(root: str) -> Path:
    """Where a local run keeps its database and logs: in the store, if that is a folder."""
    if "://" in root:
        return Path.home() / ".cache" / "magicseg"
    return local_path(root) / ".engine"
