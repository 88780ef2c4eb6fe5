"""The flow that makes a slice of a dataset: prompts, pairs, detections, masks, shards."""

import contextvars
import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.announcing import announce
from flows.generation_form import ClassNames, Shards, SliceName, read_form
from flows.generation_page import publish_outcome, shown_progress
from flows.generation_parameters import (
    USUAL,
    AdvancedSettings,
    MaxExtra,
    MinPerClass,
    ReadyAfterShards,
    Root,
    Samples,
)
from flows.generation_run import GenerationRun, current_run
from flows.generation_summary import GenerationSummary, ShardFailure, describe_failures
from flows.live_page import engine_log
from flows.quotas import Job, Survey, survey
from flows.waiting import awaited_error, looked_at_later
from storage.checks import DamagedError
from storage.errors import (
    AwaitedError,
    BudgetError,
    EngineError,
    IncompleteError,
    InputError,
    LeaseHeldError,
)
from storage.plan import ShardRange
from storage.records import Stage
from tasks.batching import awaited_answers, send_batches, settle_batches
from tasks.breaker import BreakerError
from tasks.earlier_layout import take_over
from tasks.packing import UndecidedError, UndeliveredError
from tasks.progress import StoppedError
from tasks.repacking import make_way, other_packing
from tasks.stage_tasks import STAGE_TASKS

__all__ = ["generate_dataset"]

_ATTEMPTS = 3
"""Times that a shard is begun again after damage was found and put aside."""

_log = logging.getLogger(__name__)


@flow(name="generate-dataset", persist_result=False)
def generate_dataset(  # noqa: PLR0913 - the fields of a form
    *,
    slice: SliceName = "all",  # noqa: A002 - what users call it
    classes: ClassNames = (),
    samples: Samples,
    shards: Shards = "all",
    min_per_class: MinPerClass = None,
    max_extra: MaxExtra = 1.0,
    root: Root,
    profile: str = "miniature",
    ready_after_shards: ReadyAfterShards = None,
    advanced: AdvancedSettings = USUAL,
) -> Any:
    """Make the shards of one slice, each stage of each shard at most once.

    Finished shards are recognised by their commit records and cost nothing; a shard that was
    interrupted goes on after its last committed stage.

    Args:
        slice: Which classes: a named part of the vocabulary.
        classes: Which classes: some of the vocabulary, instead of the slice.
        samples: How many samples to plan for the slice, 1 or more. More than before extends it.
        shards: Shards of the slice to work on: all, or indices and ranges such as 0-3,7.
        min_per_class: Written samples that every class shall have, 1 or more; classes that yield
            less get extra samples.
        max_extra: Most extra samples over all classes, as a multiple of the samples, 0 to 100.
        root: Where: the dataset, a folder or an object-store URL. One that is there is resumed or
            extended.
        profile: Models and their parameters: a shipped profile, or the path of a YAML file.
        ready_after_shards: Announce the dataset as ready for training once this many good shards,
            1 or more, are committed.
        advanced: Settings that most runs leave as they are.

    Returns:
        A completed state with a `GenerationSummary`, named `Cached` if nothing was executed.

    Raises:
        AwaitedError: Shards wait for answers of batches, and nothing else is left to do. A run of
            a deployment is begun again at the time of the next look instead.
        BreakerError: Nearly all samples are dropped for one reason.
        IncompleteError: Shards are left to do.
        InputError: The parameters mean nothing, or differ from those of the dataset that is there.
    """
    parameters = read_form(
        slice=slice,
        classes=classes,
        samples=samples,
        shards=shards,
        min_per_class=min_per_class,
        max_extra=max_extra,
        root=root,
        profile=profile,
        ready_after_shards=ready_after_shards,
        advanced=advanced,
    )
    with looked_at_later(), engine_log(), current_run(parameters) as run, shown_progress(run):
        return _generate(run)


def _generate(run: GenerationRun) -> Any:
    shown = (len(run.finished), len(run.planned), run.classes.label)
    _log.info("%d of %d shards of slice %s are committed", *shown)
    outcome = _Outcome(run.parameters.max_failed_shards)
    try:
        found = _make_all(run, outcome)
    finally:
        run.bring_card_up_to_date()
    summary = _summarise(run, outcome, found)
    publish_outcome(run.store, summary)
    announce(run.store, run.parameters.profile, run.parameters.ready_after_shards)
    if summary.waiting and not summary.failures and not summary.not_started:
        raise awaited_error(summary.waiting, awaited_answers(run.context))
    if not summary.is_complete:
        raise IncompleteError(describe_failures(summary))
    found.require_samples(run)
    if not summary.executed:
        return Completed(name="Cached", message="every shard was committed before", data=summary)
    return Completed(message=f"{summary.written} samples written", data=summary)


class _Outcome:
    """What came of the shards of a run so far; threads may share it."""

    def __init__(self, max_failed: int) -> None:
        self.executed: Counter[Stage] = Counter()
        self.failures: list[ShardFailure] = []
        self.held: list[Job] = []
        self.waiting: list[Job] = []
        self.not_started = 0
        self._max_failed = max_failed

    @property
    def is_over(self) -> bool:
        """Whether too many shards have failed."""
        return len(self.failures) >= self._max_failed

    def fail(self, shard: ShardRange, error: Exception) -> None:
        """Note a shard that could not be finished; its traceback goes to the log file."""
        words = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
        _log.warning("shard %s failed: %s", shard.name, words)
        _log.info("shard %s failed", shard.name, exc_info=error)
        self.failures.append(ShardFailure(shard=shard.name, error=words))


def _make_all(run: GenerationRun, outcome: _Outcome) -> Survey:
    """Make shards until nothing is left to do, or some could not be made.

    What there is to do is read from the records again and again: which extra samples are needed is
    known when the samples before them are finished.

    Returns:
        What is there in the end.
    """
    tried: set[tuple[str, int]] = set()
    damaged: Counter[str] = Counter()
    while True:
        found = _look(run, tried, damaged)
        if not found.todo or outcome.failures or outcome.not_started:
            return found
        if not tried:
            settle_batches(run.context)
        jobs = [job for job in found.todo if _about(job) not in tried]
        tried.update(map(_about, jobs))
        if not jobs:
            _explain_rest(found, outcome)
            return found
        if found.quota is not None and found.quota.extra:
            _log.info("round %d of extras: %d shards to do", found.quota.rounds, len(jobs))
        outcome.waiting.clear()
        _make_jobs(run, jobs, found, outcome)
        if outcome.waiting and send_batches(run.context):
            tried -= {_about(job) for job in outcome.waiting}


def _look(run: GenerationRun, tried: set[tuple[str, int]], damaged: Counter[str]) -> Survey:
    """Find what there is to do; what turns out to be damaged is put aside and tried again."""
    while True:
        try:
            return survey(run)
        except DamagedError as error:
            damaged[error.commit.shard] += 1
            if damaged[error.commit.shard] >= _ATTEMPTS:
                raise
            run.store.withdraw(error.commit, str(error))
            tried -= {each for each in tried if each[0] == error.commit.shard}


def _explain_rest(found: Survey, outcome: _Outcome) -> None:
    """Note why shards are left although all were tried."""
    if not outcome.waiting:  # somebody else undoes what this run makes
        for _, shard in found.todo:
            outcome.fail(shard, UndecidedError("it is not finished although it was made"))


def _about(job: Job) -> tuple[str, int]:
    """What tells a shard from others and from itself before it has grown."""
    return job[1].name, job[1].stop


def _make_jobs(run: GenerationRun, jobs: Sequence[Job], found: Survey, outcome: _Outcome) -> None:
    """Make shards side by side, until all are tried or too many have failed.

    Shards that other workers are making come last: they are finished when those are, or are taken
    over from them.
    """
    for each in {id(own): own for own, _ in jobs}.values():
        commits = found.commits.get(each.classes.slice_id, {})
        replaced = other_packing(run.store, commits.values(), each.planned)
        make_way([(each.work(held), commit) for commit, held in replaced])
    run.keep_parameters()
    run.sizes.update({shard.name: shard.count for _, shard in jobs})
    outcome.held.clear()
    _make_side_by_side(run, jobs, outcome, wait=False)
    held = sorted(outcome.held, key=lambda job: job[1].name)
    _make_side_by_side(run, held, outcome, wait=True)


def _make_side_by_side(
    run: GenerationRun, jobs: Sequence[Job], outcome: _Outcome, *, wait: bool
) -> None:
    with ThreadPoolExecutor(run.parameters.shards_in_flight, "shard") as pool:
        futures = [
            pool.submit(contextvars.copy_context().run, _try_shard, job, outcome, wait)
            for job in jobs
        ]
        try:
            for future in futures:
                future.result()
        except BaseException:
            run.machine.progress.stop()
            pool.shutdown(cancel_futures=True)
            raise


def _try_shard(job: Job, outcome: _Outcome, wait: bool) -> None:
    """Make a shard.

    Whatever goes wrong in it, be it a bug or a full memory, is that shard's failure; only what
    would go wrong in every other shard too ends the run.
    """
    run, shard = job
    if outcome.is_over:
        outcome.not_started += 1
        return
    check = (lambda: run.machine.progress.check(f"shard {shard.name}")) if wait else None
    executed: set[Stage] = set()
    try:
        with run.store.claim(shard.name, check):
            _make_shard(run, shard, executed)
    except LeaseHeldError as error:
        if wait:
            outcome.fail(shard, error)
        else:
            outcome.held.append(job)
    except AwaitedError as error:
        _log.info("%s", error)
        outcome.waiting.append(job)
    except (InputError, BudgetError, BreakerError, StoppedError):
        raise
    except Exception as error:  # noqa: BLE001 - counted, logged, and told at the run's end
        outcome.fail(shard, error)
    finally:
        outcome.executed.update(executed)


def _make_shard(run: GenerationRun, shard: ShardRange, executed: set[Stage]) -> None:
    """Run the stages of one shard, and note those that were executed.

    What turns out to be damaged is put aside and made again, in the same run. What a service did
    not deliver is asked for once more: it may have been a bad minute of it.
    """
    is_repeated = False
    for _ in range(_ATTEMPTS - 1):
        try:
            _run_stages(run, shard, executed)
        except DamagedError as error:
            run.store.withdraw(error.commit, str(error))
        except UndeliveredError as error:
            if is_repeated:
                raise
            is_repeated = True
            _log.warning("%s; asking for them once more", error)
        except UndecidedError as error:
            _log.info("%s; beginning again", error)
        else:
            return
    _run_stages(run, shard, executed)


def _run_stages(run: GenerationRun, shard: ShardRange, executed: set[Stage]) -> None:
    work = run.work(shard)
    take_over(work)
    for stage in work.keys.stages:
        if STAGE_TASKS[stage](work, return_state=True).result().executed:
            executed.add(stage)


def _summarise(run: GenerationRun, outcome: _Outcome, found: Survey) -> GenerationSummary:
    return GenerationSummary(
        root=run.store.root,
        slice_id=run.classes.slice_id,
        planned_shards=len(run.planned),
        finished_before=len(run.finished),
        executed={stage: outcome.executed[stage] for stage in Stage if stage in outcome.executed},
        failures=tuple(sorted(outcome.failures, key=lambda failure: failure.shard)),
        not_started=outcome.not_started,
        waiting=len(outcome.waiting),
        requested=found.tally.requested,
        written=found.tally.written,
        dropped={why.value: count for why, count in sorted(found.tally.dropped.items())},
        others=found.tally.others,
        quota=found.quota,
    )
