"""Generation that starts from a terminal: checks first, then a server, progress, and a summary."""

import logging

from rich.console import Console

from flows.generation_parameters import GenerationParameters
from flows.generation_run import GenerationRun, open_run, prepare
from flows.quota_words import print_quota
from flows.quotas import Survey, try_survey
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
        found = try_survey(run)
        _describe_work(run, found, console)
        from flows.local_flow import run_flow  # what only work needs is loaded for it alone

        run_flow(run, found, console)


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
        if found.tally.others is not None:
            console.print(f"objects not asked for: {found.tally.others.words}", soft_wrap=True)
        print_quota(found.quota, console)
