"""Reopening: samples of finished shards that were dropped are made once more, and no others.

What a piece says of such a sample is taken back: a new piece with the same bytes names it as not
delivered, with the reason, in place of a verdict. Then the shard's record is put aside. So the next
run makes exactly those samples, and packs the shard again.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from storage.card import write_card
from storage.commits import Commit, Counts
from storage.errors import InputError
from storage.identity import digest
from storage.layout import cell_name
from storage.manifest import ManifestRow
from storage.payloads import Payload
from storage.records import Reason, Stage
from storage.store import Store
from storage.summaries import CommittedShard

_REASON = "its samples were opened again by 'magicseg retry'"


@dataclass(frozen=True)
class Wanted:
    """Which dropped samples are meant; without stage, reason and `degraded`, those that failed.

    Attributes:
        slice_id: Of this slice only; empty for all.
        shard: Of this shard only; empty for all.
        stage: Dropped at this stage.
        reason: Dropped for this reason.
        degraded: Of shards with too few written samples only.
    """

    slice_id: str = ""
    shard: str = ""
    stage: Stage | None = None
    reason: Reason | None = None
    degraded: bool = False

    def holds(self, shard: CommittedShard) -> bool:
        """Whether samples of a shard may be meant."""
        return (
            self.slice_id in {"", shard.commit.slice_id}
            and self.shard in {"", shard.name}
            and (shard.degraded or not self.degraded)
        )

    def means(self, row: ManifestRow) -> bool:
        """Whether a sample is meant."""
        if self.stage is None and self.reason is None and not self.degraded:
            return row.status == "failed"
        return (
            row.status != "written"
            and (self.stage is None or row.stage == self.stage)
            and (self.reason is None or row.reason == self.reason)
        )


@dataclass(frozen=True)
class ShardToReopen:
    """A finished shard, and the samples of it that are to be made once more.

    Attributes:
        commit: Its record.
        rows: What the manifest says about them.
    """

    commit: Commit
    rows: tuple[ManifestRow, ...]


def find_dropped(store: Store, wanted: Wanted) -> list[ShardToReopen]:
    """Find the samples that are meant; changes nothing.

    Args:
        store: The dataset.
        wanted: Which samples.

    Raises:
        InputError: There is no such shard; or what is left of one does not do to make single
            samples of it again.
        DamagedError: A manifest is not what was committed.
    """
    shards = store.shards()
    if wanted.shard and wanted.shard not in {shard.name for shard in shards}:
        message = (
            f"{wanted.shard} is no finished shard of {store.root}, which has {len(shards)}: "
            f"{_some(shard.name for shard in shards)}"
        )
        raise InputError(message)
    found: list[ShardToReopen] = []
    for shard in shards:
        if not wanted.holds(shard):
            continue
        manifest = store.manifest(shard.commit)
        rows = tuple(row for row in manifest if wanted.means(row))
        if rows:
            _refuse_unfit(store, shard.commit, manifest)
            found.append(ShardToReopen(shard.commit, rows))
    return found


def reopen(store: Store, shards: Sequence[ShardToReopen]) -> None:
    """Open samples again, so that the next run makes them and packs their shards.

    A kill in between loses nothing: the same call goes on.

    Args:
        store: The dataset.
        shards: What `find_dropped` found.

    Raises:
        LeaseHeldError: Somebody works on one of the shards or cells; those before are reopened.
    """
    try:
        for shard in shards:
            with store.claim(shard.commit.shard):
                for (stage, cell), reasons in _by_cell(store, shard.rows).items():
                    _reopen_cell(store, stage, cell, reasons)
                _withdraw_earlier(store, shard)
                store.withdraw(shard.commit, _REASON, level=logging.INFO)
    finally:
        write_card(store)


def _by_cell(
    store: Store, rows: Iterable[ManifestRow]
) -> dict[tuple[Stage, str], dict[str, Reason]]:
    """The reasons of samples, by sample key, for each stage and cell."""
    found: dict[tuple[Stage, str], dict[str, Reason]] = defaultdict(dict)
    for row in rows:
        found[Stage(row.stage), _cell_of(store, row)][row.key] = Reason(row.reason)
    return found


def _cell_of(store: Store, row: ManifestRow) -> str:
    return cell_name(row.shard.partition("-")[0], row.index // store.cell_samples)


def _reopen_cell(store: Store, stage: Stage, cell: str, reasons: Mapping[str, Reason]) -> None:
    with store.lease(stage, cell):
        for piece in store.pieces(stage, cell):
            reopened = {
                key: reasons[key]
                for key, verdict in piece.verdicts.items()
                if key in reasons and not verdict.output
            }
            if reopened:
                _replace(store, piece, reopened)
                store.withdraw(piece, _REASON, level=logging.INFO)


def _replace(store: Store, piece: Commit, reopened: Mapping[str, Reason]) -> None:
    """Commit a piece with the same bytes that has no verdict about some samples."""
    verdicts = {key: each for key, each in piece.verdicts.items() if key not in reopened}
    undelivered = {**piece.undelivered, **reopened}
    earlier = store.pieces(piece.stage, piece.shard)
    key = digest(
        {
            "stage": piece.stage.value,
            "verdicts": {name: verdict.key for name, verdict in verdicts.items()},
            # as often as it has happened, so that each time is another piece
            "undelivered": {
                name: sum(name in each.undelivered for each in earlier) for name in undelivered
            },
        }
    )
    share = len(verdicts) / len(piece.verdicts)
    payload = Payload(
        store.read(piece),
        seconds=piece.seconds * share,
        about={"verdicts": verdicts, "undelivered": undelivered},
    )
    store.commit(piece.stage, piece.shard, key, payload, _counts(piece, reopened))


def _counts(piece: Commit, reopened: Mapping[str, Reason]) -> Counts:
    """Where the samples of a piece are, now that some of its rejections count as failures."""
    rejected, failed = dict(piece.counts.rejected), dict(piece.counts.failed)
    for reason in reopened.values():
        rejected[reason] = rejected.get(reason, 0) - 1
        failed[reason] = failed.get(reason, 0) + 1
    rejected = {reason: count for reason, count in rejected.items() if count}
    return piece.counts.model_copy(update={"rejected": rejected, "failed": failed})


def _withdraw_earlier(store: Store, shard: ShardToReopen) -> None:
    """Put aside what version 0.1 made of the samples, or it would be taken for their answer."""
    for stage in sorted({row.stage for row in shard.rows}):
        for output in list(store.log.good(Stage(stage), shard.commit.shard)):
            if not output.is_piece:
                store.withdraw(output, _REASON, level=logging.INFO)


def _refuse_unfit(store: Store, commit: Commit, manifest: Sequence[ManifestRow]) -> None:
    """Refuse a shard that could not be packed again without making other samples again too."""
    stages = store.specification.stages[:-1]
    known: dict[tuple[Stage, str], set[str]] = {}
    missing = 0
    for row in manifest:
        cell = _cell_of(store, row)
        last = stages[-1] if row.status == "written" else Stage(row.stage)
        for stage in stages[: stages.index(last) + 1]:
            if (stage, cell) not in known:
                pieces = store.pieces(stage, cell)
                known[stage, cell] = {
                    key for each in pieces for key in (*each.verdicts, *each.undelivered)
                }
            if row.key not in known[stage, cell]:
                missing += 1
                break
    if not missing:
        return
    outputs = [each for stage in stages for each in store.log.good(stage, commit.shard)]
    if any(each.stage is Stage.PAIRS for each in outputs):
        why = "it was made by version 0.1, which committed no single samples"
        way_out = (
            "run 'magicseg generate' with another samples_per_shard, which packs its samples anew "
            "and paints nothing, and then 'magicseg retry' again"
        )
    else:
        why = f"the pieces of {missing} of its {len(manifest)} samples were freed"
        way_out = (
            "name others by --shard or --slice; or make all of its samples again: move "
            f"{commit.object.path if commit.object else 'its record'} out of the dataset, run "
            "'magicseg verify --repair', then 'magicseg generate'"
        )
    message = (
        f"samples of shard {commit.shard} cannot be opened again: {why}; {way_out}. "
        f"Nothing was changed"
    )
    raise InputError(message)


def _some(names: Iterable[str], most: int = 5) -> str:
    listed = sorted(names)
    more = [f"and {len(listed) - most} more"] if len(listed) > most else []
    return ", ".join([*listed[:most], *more]) or "none"
