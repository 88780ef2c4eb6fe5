"""Verification: compare what the records say with what is there."""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterator

import numpy as np

from storage.codecs import decode_image, decode_label_map
from storage.commits import Commit
from storage.errors import DataError
from storage.layout import COMMIT_FOLDER, INTENT_FOLDER, SHARD_FOLDER, commit_path
from storage.manifest import ManifestRow
from storage.records import BACKGROUND_LABEL, IGNORE_LABEL, Record, Stage
from storage.shards import Sample, iterate
from storage.store import Store

_REMAKE = "run 'magicseg generate' again: it puts this aside and remakes what is missing"


class Finding(Record, frozen=True):
    """A difference between the files and the records."""

    path: str
    """The file, relative to the root."""
    problem: str
    """What was found and what was expected."""
    way_out: str
    """What to do."""


def verify_records(store: Store) -> list[Finding]:
    """Check records, counts and sizes; reads no image data.

    Args:
        store: The dataset; nothing in it is changed.

    Returns:
        What is wrong; empty if everything is as it should be.
    """
    findings: list[Finding] = []
    commits: list[Commit] = []
    for path in store.record_paths():
        try:
            commit = store.record(path)
        except FileNotFoundError:
            continue  # replaced since the listing
        except DataError as error:
            findings.append(Finding(path=path, problem=str(error), way_out=_REMAKE))
            continue
        commits.append(commit)
        findings.extend(_check_record(store, path, commit))
    findings.extend(_check_tars(store, commits))
    findings.extend(_check_intents(store))
    return findings


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
    findings = verify_records(store)
    known = {finding.path for finding in findings}
    for path in store.record_paths():
        if path not in known:
            with contextlib.suppress(FileNotFoundError):  # replaced since the listing
                findings.extend(_check_bytes(store, path, num_classes))
    return findings


def _check_record(store: Store, path: str, commit: Commit) -> Iterator[Finding]:
    expected = commit_path(commit.stage, commit.shard, commit.key)
    if path != expected:
        problem = f"the record is about {expected}"
        yield Finding(path=path, problem=problem, way_out=_REMAKE)
    try:
        commit.counts.check(f"{commit.stage} of {commit.shard}")
    except DataError as error:
        yield Finding(path=path, problem=str(error), way_out=_REMAKE)
    defect = store.defect(commit, deep=False)
    if defect:
        yield Finding(path=path, problem=defect, way_out=_REMAKE)


def _check_tars(store: Store, commits: list[Commit]) -> Iterator[Finding]:
    """Every tar must have exactly one record."""
    finished = [each for each in commits if each.stage is Stage.SHARDS]
    recorded = {each.object.path for each in finished if each.object is not None}
    for path in store.objects.paths(SHARD_FOLDER):
        if path not in recorded:
            yield Finding(
                path=path,
                problem="no commit record vouches for it, but readers of data/*.tar see it",
                way_out="run 'magicseg generate' again to finish its commit, or move it away",
            )
    for shard, count in sorted(Counter(each.shard for each in finished).items()):
        if count > 1:
            yield Finding(
                path=f"{COMMIT_FOLDER}/{Stage.SHARDS}/{shard}",
                problem=f"{count} records are about one shard; expected one",
                way_out=_REMAKE,
            )


def _check_intents(store: Store) -> Iterator[Finding]:
    for path in store.objects.paths(INTENT_FOLDER):
        yield Finding(
            path=path,
            problem="a commit was begun and not finished",
            way_out="nothing if a worker is running; else run 'magicseg generate' again",
        )


def _check_bytes(store: Store, path: str, num_classes: int) -> Iterator[Finding]:
    commit = store.record(path)
    defect = store.defect(commit, deep=True)
    if defect:
        yield Finding(path=path, problem=defect, way_out=_REMAKE)
    elif commit.stage is Stage.SHARDS:
        try:
            problems = list(_shard_problems(store, commit, num_classes))
        except DataError as error:
            problems = [str(error)]
        for problem in problems:
            yield Finding(path=path, problem=problem, way_out=_REMAKE)


def _shard_problems(store: Store, commit: Commit, num_classes: int) -> Iterator[str]:
    rows = {row.key: row for row in store.manifest(commit) if row.status == "written"}
    samples = iterate(f"{store.root}/{commit.object.path}") if commit.object else iter(())
    for sample in samples:
        row = rows.pop(sample.key, None)
        if row is None:
            yield f"sample {sample.key} is in the tar, but not written by the manifest"
        else:
            yield from _sample_problems(sample, row, num_classes)
    for key in rows:
        yield f"sample {key} is in the manifest, but not in the tar"


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
