"""The earlier layout: outputs that version 0.1 committed by shard become pieces.

So a dataset that was begun then goes on without making anything again. Nothing is taken on trust:
an output counts only under the key that version 0.1 gave it.
"""

from collections.abc import Mapping, Sequence

from storage.commits import Commit
from storage.identity import digest
from storage.records import PlannedSample, Record, Rejected, Stage
from storage.store import Store
from tasks.declarations import Made
from tasks.stages import StageKeys
from tasks.work import ShardWork, Spent, commit_piece

_VERSION = 1
"""Of every stage, in version 0.1."""


def take_over(work: ShardWork) -> int:
    """Make pieces of what version 0.1 made of a shard; samples that have pieces are passed over.

    Args:
        work: The shard.

    Returns:
        Samples whose outputs were taken over, over all stages.

    Raises:
        DamagedError: An output is not what was committed.
    """
    outputs = _outputs(work)
    if not any(outputs.values()):
        return 0
    found = _chain(work, outputs)
    taken = 0
    for stage, commit in found.items():
        taken += _take_over_stage(work, stage, commit)
    return taken


def earlier_stages(work: ShardWork) -> set[Stage]:
    """The stages that version 0.1 has finished for a shard; changes nothing."""
    return set(_chain(work, _outputs(work)))


def _outputs(work: ShardWork) -> dict[Stage, list[Commit]]:
    log, name = work.store.log, work.shard.name
    return {
        stage: [each for each in log.good(stage, name) if not each.is_piece]
        for stage in work.keys.inputs
    }


def _chain(work: ShardWork, outputs: Mapping[Stage, Sequence[Commit]]) -> dict[Stage, Commit]:
    """The newest output of each stage that was made of the ones before it."""
    found: dict[Stage, Commit] = {}
    for stage, inputs in work.keys.inputs.items():
        if not all(each in found for each in inputs):
            break
        shas = [ref.sha256 if (ref := found[each].object) else "" for each in inputs]
        for commit in sorted(outputs[stage], key=lambda each: each.created, reverse=True):
            count = (found[Stage.PROMPTS] if found else commit).counts.requested
            samples = work.samples[:count]
            if commit.key == _key(work.keys, stage, samples, shas):
                found[stage] = commit
                break
    return found


def _key(
    keys: StageKeys, stage: Stage, samples: Sequence[PlannedSample], inputs: Sequence[str]
) -> str:
    """The key that version 0.1 gave to an output."""
    return digest(
        {
            "stage": stage.value,
            "version": _VERSION,
            "samples": [sample.model_dump(mode="json") for sample in samples],
            "config": keys.describe().get(stage.value, {}),
            "inputs": list(inputs),
        }
    )


def _take_over_stage(work: ShardWork, stage: Stage, commit: Commit) -> int:
    rows: dict[str, Record] = {row.key: row for row in work.store.rows(commit)}  # type: ignore[attr-defined]
    taken = 0
    for part in work.parts:
        with work.held(stage, part) as state:
            wanted = [
                sample.key
                for sample in state.missing(stage)
                if sample.key in rows and not _is_failure(rows[sample.key])
            ]
            if wanted:
                made = _made(work.store, stage, commit, [rows[key] for key in wanted])
                commit_piece(work.store, state, stage, made, Spent(0.0))
                taken += len(wanted)
    return taken


def _is_failure(row: Record) -> bool:
    return isinstance(row, Rejected) and row.reason.is_failure


def _made(store: Store, stage: Stage, commit: Commit, rows: Sequence[Record]) -> Made:
    if stage is not Stage.PAIRS:
        return Made.of_rows(rows)
    dropped = [row for row in rows if isinstance(row, Rejected)]
    keys = {row.key for row in rows if not isinstance(row, Rejected)}  # type: ignore[attr-defined]
    return Made.of_pairs([pair for pair in store.pairs(commit) if pair.key in keys], dropped)
