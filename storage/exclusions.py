"""Exclusions: finished samples that nobody is to train on, and why.

A tar never changes, so what turns out to be wrong in it is named beside it, by acts
(`storage.acts`) in `.engine/exclusions`; undoing is an act too. The last line about a sample
counts.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime, Field

from storage.acts import ActFolder
from storage.commits import Commit
from storage.errors import InputError
from storage.layout import EXCLUSION_FOLDER
from storage.objects import ObjectStore
from storage.records import Record
from storage.store import Store

__all__ = ["Exclusion", "excluded_keys", "read_exclusions"]

JudgedBy = Literal["hand", "noise-learning"]
"""Who says so: a person, or the agreement of segmenters that were trained on other samples."""


class Exclusion(Record, frozen=True):
    """What was said of a sample at one time."""

    key: str = Field(min_length=1)
    """Sample key."""
    act: Literal["exclude", "include"]
    """Whether it is left out from then on, or no longer."""
    by: JudgedBy
    """Who judged."""
    who: str
    """User and machine."""
    at: AwareDatetime
    """When."""
    why: str = Field(min_length=1)
    """The reason, in words."""
    score: float | None = Field(default=None, ge=0, le=1)
    """What the judge measured in [0, 1]; for noise learning the agreement."""


EXCLUSIONS = ActFolder(EXCLUSION_FOLDER, Exclusion)
"""Where they lie."""


def read_exclusions(objects: ObjectStore) -> list[Exclusion]:
    """Read all that was ever said of samples, in the order in which it was.

    Raises:
        DataError: A file is damaged; names it.
    """
    return EXCLUSIONS.read(objects)


def latest(history: Iterable[Exclusion]) -> dict[str, Exclusion]:
    """The last word about each sample that was ever spoken of, by its key."""
    return {line.key: line for line in history}


def excluded_keys(
    objects: ObjectStore, *, judges: Collection[JudgedBy] = ("hand", "noise-learning")
) -> frozenset[str]:
    """Keys of the samples that are left out.

    Args:
        objects: The dataset.
        judges: Whose last words count.

    Raises:
        DataError: A file is damaged; names it.
    """
    words = latest(read_exclusions(objects))
    return frozenset(
        key for key, line in words.items() if line.act == "exclude" and line.by in judges
    )


def append_exclusions(objects: ObjectStore, lines: Sequence[Exclusion]) -> None:
    """Say something of samples: one act, all of it or nothing of it. Durable.

    Two who do so at one time both succeed.

    Args:
        objects: The dataset.
        lines: At least one.
    """
    EXCLUSIONS.append(objects, lines)


def exclude_samples(store: Store, keys: Sequence[str], *, who: str, why: str) -> int:
    """Leave samples out from now on; those that are left out already stay so.

    Args:
        store: The dataset.
        keys: Of samples that are in finished shards.
        who: User and machine.
        why: The reason, in words.

    Returns:
        How many were not left out before.

    Raises:
        InputError: One is in no finished shard, or no reason is given.
    """
    _refuse_unknown(keys, written_keys(store))
    return _say(store, keys, "exclude", who=who, why=why)


def include_samples(store: Store, keys: Sequence[str], *, who: str, why: str) -> int:
    """Take excluded samples back.

    Args:
        store: The dataset.
        keys: Of samples that are left out.
        who: User and machine.
        why: The reason, in words.

    Returns:
        How many.

    Raises:
        InputError: One is not left out, or no reason is given.
    """
    excluded = excluded_keys(store.objects)
    if unknown := sorted(set(keys) - excluded):
        message = (
            f"{unknown[0]!r} is not excluded, expected one of the {len(excluded)} samples that "
            f"are: 'magicseg exclusions list {store.root}' names them"
        )
        raise InputError(message)
    return _say(store, keys, "include", who=who, why=why)


def excluded_of(store: Store, commit: Commit, excluded: Collection[str]) -> frozenset[str]:
    """The samples in a finished shard's tar that are among those left out.

    Args:
        store: The dataset.
        commit: The record of the shard.
        excluded: Keys.

    Raises:
        DataError: Its manifest is damaged.
    """
    wanted = {key for key in excluded if key.startswith(commit.slice_id)}
    return frozenset(wanted & _written(store, commit)) if wanted else frozenset()


def written_keys(store: Store) -> set[str]:
    """Keys of all samples in the tars of finished shards, from the manifests.

    Raises:
        DataError: A manifest is damaged.
    """
    found: set[str] = set()
    for shard in store.shards():
        found |= _written(store, shard.commit)
    return found


def count_excluded(store: Store) -> dict[str, dict[str, int]]:
    """How many samples of finished shards are left out: slice id -> judge -> number.

    Raises:
        DataError: A file or a manifest is damaged.
    """
    return {
        slice_id: dict(Counter(line.by for line in lines))
        for slice_id, lines in _excluded_lines(store).items()
    }


def count_reasons(store: Store) -> dict[str, list[tuple[str, str, int]]]:
    """Why samples of finished shards are left out: slice id -> judge, reason, number.

    The most frequent reason comes first.

    Raises:
        DataError: A file or a manifest is damaged.
    """
    found: dict[str, list[tuple[str, str, int]]] = {}
    for slice_id, lines in _excluded_lines(store).items():
        counted = Counter((line.by, line.why) for line in lines)
        ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
        found[slice_id] = [(by, why, number) for (by, why), number in ordered]
    return found


def _excluded_lines(store: Store) -> dict[str, list[Exclusion]]:
    """The last words about the samples of finished shards that are left out, by slice."""
    words = {
        k: line
        for k, line in latest(read_exclusions(store.objects)).items()
        if line.act == "exclude"
    }
    found: dict[str, list[Exclusion]] = {}
    for shard in store.shards() if words else ():
        for key in sorted(excluded_of(store, shard.commit, words.keys())):
            found.setdefault(shard.commit.slice_id, []).append(words[key])
    return found


def _written(store: Store, commit: Commit) -> set[str]:
    if commit.object is None or commit.manifest is None:
        return set()
    return set(store.written_classes(commit))


def _refuse_unknown(keys: Sequence[str], known: Collection[str]) -> None:
    if unknown := sorted(set(keys).difference(known)):
        message = (
            f"{unknown[0]!r} is no sample of a finished shard, expected one of {len(known)}: "
            "the manifests and the names in the tars have their keys"
        )
        raise InputError(message)


def _say(
    store: Store, keys: Sequence[str], act: Literal["exclude", "include"], *, who: str, why: str
) -> int:
    if not why.strip():
        message = "no reason is given: say why in a few words, for whoever meets it later"
        raise InputError(message)
    excluded = excluded_keys(store.objects)
    new = [key for key in dict.fromkeys(keys) if (key in excluded) == (act == "include")]
    at = datetime.now(UTC)
    lines = [Exclusion(key=key, act=act, by="hand", who=who, at=at, why=why) for key in new]
    if lines:
        append_exclusions(store.objects, lines)
    return len(lines)
