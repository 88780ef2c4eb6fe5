"""Verification: compare what the records say with what is there, and put damage aside.

Looking changes nothing. Repairing moves what is damaged into the quarantine, under the lease of
what it belongs to, so that the next run remakes exactly that.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from storage.card import is_current, write_card
from storage.checks import defect
from storage.codecs import decode_image, decode_label_map
from storage.commit_log import BadRecord, record_path
from storage.commits import Commit
from storage.corrections import (
    CORRECTIONS,
    stale_corrections,
    undo_corrections,
    undo_hint,
)
from storage.errors import DataError, LeaseHeldError
from storage.exclusions import EXCLUSIONS
from storage.layout import (
    CARD_PATH,
    COMMIT_FOLDER,
    CORRECTION_FOLDER,
    INTENT_FOLDER,
    SHARD_FOLDER,
    UNIT_NAME,
    shard_path,
)
from storage.ledger import Ledger
from storage.manifest import ManifestRow, count_classes
from storage.marks import MARKS
from storage.objects import open_objects
from storage.payloads import count_written
from storage.quarantine import put_aside
from storage.records import BACKGROUND_LABEL, IGNORE_LABEL, Record, Rejected, Stage
from storage.shards import Sample, iterate
from storage.specification_copies import find_damage
from storage.store import Store

_REPAIR = (
    "run 'magicseg verify --repair', which puts it aside, and then 'magicseg generate' (or "
    "'merge') again"
)
_DEEP_REPAIR = _REPAIR.replace("--repair", "--deep --repair")


class Finding(Record, frozen=True):
    """A difference between the files and the records."""

    path: str
    """The file, relative to the root."""
    problem: str
    """What was found and what was expected."""
    way_out: str
    """What to do."""
    repaired: bool = False
    """Whether it was put aside."""


@dataclass(frozen=True)
class _Damage:
    """Something that is wrong, and what mends it.

    Attributes:
        finding: What is told.
        mend: Puts it aside; raises LeaseHeldError while somebody works there.
    """

    finding: Finding
    mend: Callable[[], None]


def verify_specification(root: str, *, mend: bool = False) -> list[Finding]:
    """Check what a dataset says it is, before it is opened.

    Args:
        root: The dataset, or what may be one.
        mend: Restore what is damaged from its copy.

    Returns:
        What is wrong; empty if everything is as it should be, or there is no dataset.
    """
    objects = open_objects(root)
    return [
        Finding(
            path=damage.path,
            problem=damage.problem,
            way_out=damage.way_out,
            repaired=mend and damage.mend(objects),
        )
        for damage in find_damage(objects)
    ]


def verify_records(store: Store) -> list[Finding]:
    """Check records, counts and sizes; reads no image data.

    Args:
        store: The dataset; nothing in it is changed.

    Returns:
        What is wrong; empty if everything is as it should be.
    """
    return [damage.finding for damage in _look(store, None)]


def verify_bytes(store: Store, num_classes: int) -> list[Finding]:
    """Check everything `verify_records` does, and every byte.

    Hashes all outputs, decodes every image and mask of every finished shard, and compares their
    digests, label ids and texts with the manifest.

    Args:
        store: The dataset; nothing in it is changed.
        num_classes: Size of the vocabulary; a label map may hold 0..num_classes and 65535.

    Returns:
        What is wrong; empty if everything is as it should be.
    """
    return [damage.finding for damage in _look(store, num_classes)]


def repair(store: Store, num_classes: int | None) -> list[Finding]:
    """Verify, and put aside what is wrong, so that the next run remakes it.

    Args:
        store: The dataset.
        num_classes: As for `verify_bytes`; nothing to look at records and sizes only.

    Returns:
        What was wrong. What somebody works on right now is left alone, and says so.
    """
    findings: list[Finding] = []
    for damage in list(_look(store, num_classes)):
        try:
            damage.mend()
        except LeaseHeldError as error:
            findings.append(damage.finding.model_copy(update={"way_out": str(error)}))
        else:
            findings.append(damage.finding.model_copy(update={"repaired": True}))
    if findings:
        write_card(store)
    return findings


def _look(store: Store, num_classes: int | None) -> Iterator[_Damage]:
    """Everything that is wrong; bytes are looked at if the number of classes is given."""
    commits: list[Commit] = []
    for found in store.log.scan(store.log.paths()):
        if isinstance(found, BadRecord):
            yield _bad_record(store, found)
            continue
        commits.append(found)
        yield from _check_commit(store, found, num_classes)
    yield from _check_tars(store, commits)
    yield from _check_intents(store)
    yield from _check_answers(store)
    yield from _check_acts(store)
    yield from _check_corrections(store)
    if commits and not is_current(store):
        yield _Damage(
            Finding(
                path=CARD_PATH,
                problem="the card does not say what is committed",
                way_out="run 'magicseg verify --repair' or 'magicseg generate': both write it",
            ),
            lambda: None,  # repairing ends with the card
        )


def _bad_record(store: Store, found: BadRecord) -> _Damage:
    def mend() -> None:
        match = re.fullmatch(rf"{COMMIT_FOLDER}/([a-z]+)/([^/]+)/[^/]+", found.path)
        if match is None or not re.match(UNIT_NAME, match[2]):
            put_aside(store.objects, [found.path], found.problem)
            return
        with store.lease(Stage(match[1]), match[2]):
            put_aside(store.objects, [found.path], found.problem)

    return _Damage(Finding(path=found.path, problem=found.problem, way_out=_REPAIR), mend)


def _check_commit(store: Store, commit: Commit, num_classes: int | None) -> Iterator[_Damage]:
    path, deep = record_path(commit), num_classes is not None
    problem = defect(store.objects, commit, deep=deep)
    if not problem and num_classes is not None:
        try:
            problem = "; ".join(_contents_problems(store, commit, num_classes))
        except DataError as error:
            problem = str(error)
    if problem:
        way_out = _DEEP_REPAIR if deep else _REPAIR
        yield _Damage(
            Finding(path=path, problem=problem, way_out=way_out),
            lambda: store.withdraw(commit, problem),
        )


def _check_tars(store: Store, commits: list[Commit]) -> Iterator[_Damage]:
    """Every tar must have exactly one record."""
    finished = [each for each in commits if each.stage is Stage.SHARDS]
    recorded = {each.object.path for each in finished if each.object is not None}
    for path in store.objects.paths(SHARD_FOLDER):
        if path not in recorded:
            yield _Damage(
                Finding(
                    path=path,
                    problem="no commit record vouches for it, but readers of data/*.tar see it",
                    way_out=_REPAIR,
                ),
                lambda path=path: _put_tar_aside(store, path),
            )
    by_shard: dict[str, list[Commit]] = {}
    for commit in finished:
        by_shard.setdefault(commit.shard, []).append(commit)
    for records in by_shard.values():
        records.sort(key=lambda commit: (commit.created, commit.key))
        problem = f"{len(records)} records are about one shard, expected one: this is not the last"
        for commit in records[:-1]:
            yield _Damage(
                Finding(path=record_path(commit), problem=problem, way_out=_REPAIR),
                lambda commit=commit, problem=problem: _put_record_aside(store, commit, problem),
            )


def _put_tar_aside(store: Store, path: str) -> None:
    match = re.fullmatch(rf"{SHARD_FOLDER}/train-(.+)\.tar", path)
    if match is None or not re.match(UNIT_NAME, match[1]):
        put_aside(store.objects, [path], "no commit record vouches for it")
        return
    with store.lease(Stage.SHARDS, match[1]):
        known = store.log.shards().get(match[1])
        if known is None or known.object is None or known.object.path != shard_path(match[1]):
            put_aside(store.objects, [path], "no commit record vouches for it")


def _put_record_aside(store: Store, commit: Commit, problem: str) -> None:
    with store.lease(commit.stage, commit.shard):
        put_aside(store.objects, [record_path(commit)], problem)


def _check_intents(store: Store) -> Iterator[_Damage]:
    for path in store.objects.paths(INTENT_FOLDER):
        yield _Damage(
            Finding(
                path=path,
                problem="a commit was begun and not finished",
                way_out=f"nothing if a worker is running; else {_REPAIR}",
            ),
            lambda path=path: store.settle_intent(path, forget=True),
        )


def _check_answers(store: Store) -> Iterator[_Damage]:
    for path, problem in Ledger(store.objects).damaged():
        yield _Damage(
            Finding(path=path, problem=problem, way_out=_REPAIR),
            lambda path=path, problem=problem: _put_file_aside(store, path, problem),
        )


def _check_acts(store: Store) -> Iterator[_Damage]:
    for acts in (EXCLUSIONS, MARKS, CORRECTIONS):
        for path, problem in acts.damaged(store.objects):
            yield _Damage(
                Finding(path=path, problem=problem, way_out=_REPAIR),
                lambda path=path, problem=problem: _put_file_aside(store, path, problem),
            )


def _check_corrections(store: Store) -> Iterator[_Damage]:
    try:
        stale = list(stale_corrections(store))
    except DataError:
        return  # a damaged act or manifest is told by the check of these
    for key, problem in stale:
        yield _Damage(
            Finding(path=CORRECTION_FOLDER, problem=problem, way_out=undo_hint(store.root, key)),
            lambda key=key, problem=problem: _undo(store, key, problem),
        )


def _undo(store: Store, key: str, why: str) -> None:
    undo_corrections(store, [key], who="magicseg verify --repair", why=why)


def _put_file_aside(store: Store, path: str, problem: str) -> None:
    put_aside(store.objects, [path], problem)


def _contents_problems(store: Store, commit: Commit, num_classes: int) -> Iterator[str]:
    if commit.stage is Stage.SHARDS:
        yield from _shard_problems(store, commit, num_classes)
        return
    if commit.is_piece:
        rows = store.rows(commit)
        kept: set[str] = {row.key for row in rows if not isinstance(row, Rejected)}  # type: ignore[attr-defined]
        named = {key for key, verdict in commit.verdicts.items() if verdict.output}
        if kept != named:
            both, strays = len(kept & named), len(kept - named)
            yield f"it holds {both} of the {len(named)} samples of its record, and {strays} others"
        return
    written = count_written(commit.stage, store.read(commit))
    if written != commit.counts.written:
        yield f"it holds {written} samples, its record says {commit.counts.written}"


def _shard_problems(store: Store, commit: Commit, num_classes: int) -> Iterator[str]:
    manifest = store.manifest(commit)
    yield from _count_problems(store, commit, manifest)
    rows = {row.key: row for row in manifest if row.status == "written"}
    samples = iterate(f"{store.root}/{commit.object.path}") if commit.object else iter(())
    for sample in samples:
        row = rows.pop(sample.key, None)
        if row is None:
            yield f"sample {sample.key} is in the tar, but not written by the manifest"
        else:
            yield from _sample_problems(sample, row, num_classes)
    for key in rows:
        yield f"sample {key} is in the manifest, but not in the tar"


def _count_problems(store: Store, commit: Commit, manifest: list[ManifestRow]) -> Iterator[str]:
    fates = Counter(row.status for row in manifest)
    counts = commit.counts
    expected = Counter(
        written=counts.written,
        rejected=sum(counts.rejected.values()),
        failed=sum(counts.failed.values()),
    )
    if fates != expected:
        yield f"the manifest has {dict(fates)}, the record says {dict(expected)}"
    held = store.range_of(commit)
    if commit.start is not None and held != (manifest[0].index, manifest[-1].index + 1):
        first, last = manifest[0].index, manifest[-1].index
        yield f"the manifest has samples {first} to {last}, the record says {held}"
    if commit.classes and dict(commit.classes) != count_classes(manifest):
        yield "the manifest counts the samples of the classes otherwise than the record"


def _sample_problems(sample: Sample, row: ManifestRow, num_classes: int) -> Iterator[str]:
    members = (
        ("image", sample.image_bytes, row.image_sha256),
        ("counterfactual", sample.counterfactual_bytes, row.counterfactual_sha256),
        ("mask", sample.mask_bytes, row.mask_sha256),
    )
    for name, data, sha256 in members:
        if hashlib.sha256(data).hexdigest() != sha256:
            yield f"sample {sample.key}: the {name}'s sha256 is not the manifest's"
    labels = decode_label_map(sample.mask_bytes, name=sample.member("mask"))
    for name, data, _ in members[:2]:
        if decode_image(data, name=sample.member(name)).shape[:2] != labels.shape:
            yield f"sample {sample.key}: the {name} is not of the mask's size {labels.shape}"
    present = np.flatnonzero(np.bincount(labels.ravel()))
    found = set(present.tolist()) - {BACKGROUND_LABEL, IGNORE_LABEL}
    strange = sorted(label for label in found if label > num_classes)
    if strange:
        yield f"sample {sample.key}: labels {strange} are beyond the {num_classes} classes"
    if found != {class_id + 1 for class_id in sample.class_ids}:
        yield (
            f"sample {sample.key}: the mask holds labels {sorted(found)}, "
            f"but the classes are {list(sample.class_ids)} (label = class id + 1)"
        )
    if sample.class_ids != row.class_ids or sample.text != row.text:
        yield f"sample {sample.key}: text or classes differ from the manifest"
