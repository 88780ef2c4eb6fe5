"""Merging: the finished shards of several datasets as one dataset.

What was said of samples of a source (`storage.exclusions`) is said of them in the merge too.

A merge is a dataset of its own kind: all that reads a dataset reads it, and its specification
is those of its sources, so that nothing is generated into it. Shards of sources that name their
samples by classes alone (scheme 1) get the names that they would have by their dataset; all others
keep theirs.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from storage.card import write_card
from storage.checks import read_whole
from storage.commits import Commit
from storage.corrections import CORRECTIONS
from storage.errors import DataError, InputError
from storage.exclusions import EXCLUSIONS
from storage.identity import digest
from storage.layout import shard_name
from storage.manifest import decode_manifest, encode_manifest
from storage.marks import MARKS
from storage.payloads import Payload
from storage.records import Record, Stage
from storage.shards import iterate, pack
from storage.slices import slice_id_of
from storage.specification import MERGED, Specification
from storage.store import Store

__all__ = ["MergeSummary", "merge_datasets"]

_ID_DIGITS = 16
_SLICE_DIGITS = 8

_log = logging.getLogger(__name__)


class MergeSummary(Record, frozen=True):
    """What a merge did."""

    shards: int
    """Shards that the sources gave."""
    samples: int
    """Samples in them."""
    added: int
    """Shards of these that were not there before."""
    left_out: int
    """Shards that a source holds for degraded."""


def merge_datasets(
    sources: Sequence[str | Path], out: str | Path, *, use_degraded: bool = False
) -> MergeSummary:
    """Copy the finished shards of datasets into one; what is there already is not copied again.

    A tar is in memory at a time. An interrupted merge goes on where it stopped; so does one whose
    sources have grown.

    Args:
        sources: Roots of at least two datasets.
        out: Root of the merge: an empty place, or an earlier merge of the same datasets.
        use_degraded: Whether shards with too few written samples are copied too.

    Raises:
        DataError: A shard is damaged; names it.
        InputError: A source is no dataset, is given twice, or has another vocabulary than the
            others; or `out` holds something else.
        LeaseHeldError: Somebody else works on a shard of the merge.
    """
    stores = [Store.open(source) for source in sources]
    target = Store.create(out, _merged_specification(stores))
    shards = added = samples = left_out = 0
    for store in stores:
        for shard in store.shards():
            if shard.degraded and not use_degraded and shard.path is not None:
                left_out += 1
                continue
            shards, samples = shards + 1, samples + shard.samples
            added += _copy(store, shard.commit, target)
        for acts in (EXCLUSIONS, MARKS, CORRECTIONS):
            acts.carry(store.objects, target.objects, _key_in_merge(store))
        _log.info("%s: %d shards so far, %d of them new", store.root, shards, added)
    write_card(target)
    return MergeSummary(shards=shards, samples=samples, added=added, left_out=left_out)


def _merged_specification(stores: Sequence[Store]) -> dict[str, Any]:
    if len(stores) < 2:
        message = f"{len(stores)} dataset cannot be merged, expected two or more"
        raise InputError(message)
    first, parts, roots = stores[0], dict[str, Any](), dict[str, str]()
    for store in stores:
        own = (store.vocabulary, store.spec.get("vocabulary"))
        expected = (first.vocabulary, first.spec.get("vocabulary"))
        if own != expected:
            message = (
                f"{store.root} was made with vocabulary {_vocabulary(own)}, {first.root} with "
                f"{_vocabulary(expected)}; datasets of one vocabulary alone can be merged"
            )
            raise InputError(message)
        for name, contents in _parts(store.specification):
            if name in roots:
                message = (
                    f"{roots[name]} and {store.root} hold the same dataset, expected each one "
                    "once: leave one of them out"
                )
                raise InputError(message)
            parts[name], roots[name] = contents, store.root
    return {
        "plan": {"vocabulary": first.vocabulary},
        "vocabulary": first.spec.get("vocabulary"),
        "min_yield": 0.0,  # what is here was judged where it was made
        MERGED: parts,
    }


def _vocabulary(named: tuple[str, Any]) -> str:
    name, contents = named
    return f"{name} ({str(contents)[:8]})"


def _parts(specification: Specification) -> Iterator[tuple[str, dict[str, Any]]]:
    """The datasets that one consists of: itself, or those that it was merged from."""
    contents = specification.contents
    if MERGED in contents:
        yield from contents[MERGED].items()
    else:
        yield specification.dataset_id[:_ID_DIGITS], contents


def _copy(source: Store, commit: Commit, target: Store) -> bool:
    """Copy a shard, unless it is there; returns whether it was copied."""
    name = _new_name(source, commit)
    tar = commit.object.sha256 if commit.object else ""
    key = digest([source.specification.dataset_id, commit.key, tar])
    if target.look(Stage.SHARDS, name, key) is not None:
        return False
    if commit.manifest is None:
        message = f"{source.root}: the record of {commit.shard} has no manifest; {_VERIFY}"
        raise DataError(message)
    data: bytes | memoryview
    manifest = read_whole(source.objects, commit, commit.manifest)
    if name == commit.shard:
        data = source.read(commit)
    else:
        data = _renamed_tar(source, commit, name) if commit.object else b""
        manifest = _renamed_manifest(manifest, commit, name)
    start, stop = source.range_of(commit) or (None, None)
    about = {
        "start": start,
        "stop": stop,
        "classes": commit.classes,
        "others": commit.others,
        "found_others": commit.found_others,
        "stage_seconds": commit.stage_seconds,
        "device_seconds": commit.device_seconds,
        "libraries": commit.libraries,
    }
    payload = Payload(data, manifest, seconds=commit.seconds, about=about)
    target.commit(Stage.SHARDS, name, key, payload, commit.counts)
    return True


_VERIFY = "run 'magicseg verify' on it"


def _new_name(source: Store, commit: Commit) -> str:
    """What a shard is called by its dataset."""
    if source.specification.by_dataset:
        return commit.shard
    slice_id = slice_id_of(source.specification.dataset_id, commit.slice_id)
    return shard_name(slice_id, int(commit.shard.rpartition("-")[2]))


def _key_in_merge(source: Store) -> Callable[[str], str]:
    """What a sample of a source is called in the merge."""
    if source.specification.by_dataset:
        return lambda key: key
    dataset_id = source.specification.dataset_id
    return lambda key: slice_id_of(dataset_id, key[:_SLICE_DIGITS]) + key[_SLICE_DIGITS:]


def _key_of(name: str) -> Callable[[str], str]:
    slice_id = name.partition("-")[0]
    return lambda key: slice_id + key[len(slice_id) :]


def _renamed_tar(source: Store, commit: Commit, name: str) -> memoryview:
    rename = _key_of(name)
    path = f"{source.root}/{commit.object.path}" if commit.object else ""
    tar = commit.object.sha256 if commit.object else ""
    return pack([dataclasses.replace(each, key=rename(each.key)) for each in iterate(path, tar)])


def _renamed_manifest(data: bytes, commit: Commit, name: str) -> bytes:
    rename = _key_of(name)
    rows = decode_manifest(data, name=f"manifest of {commit.shard}")
    return encode_manifest(
        [row.model_copy(update={"key": rename(row.key), "shard": name}) for row in rows]
    )
