"""Shards that are not packed yet: their samples, as far as the stages have come with them.

There is no manifest of them. What is known lies in the pieces, cell by cell: which samples a stage
has decided, and rows about them. If there are several pieces about a sample, because it was asked
for again in another way, the newest one of each stage counts.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from storage.commits import Commit, read_commit
from storage.errors import DataError, InputError
from storage.identity import digest
from storage.layout import is_cell, shard_name
from storage.manifest import ManifestRow, encode_manifest
from storage.pairs import read_pair_rows
from storage.plan import MAX_SAMPLES, DatasetSpec, index_of
from storage.records import Detection, MaskSample, Prompt, Record, Rejected
from storage.rows import read_rows
from storage.sample_columns import OPEN, SampleColumns
from storage.sample_parts import SamplePart
from storage.spans import Spans
from storage.store import Store
from storage.vocabulary import load_vocabulary


class OpenRow(ManifestRow, frozen=True):
    """What is known of a sample that no shard has been packed with, and that was not dropped.

    Its reason is `OPEN`, and its stage the last one that it has passed.
    """

    status: str = Field(default=OPEN, pattern=f"^{OPEN}$")
    """What became of it: nothing yet."""


@dataclass(frozen=True)
class _Piece:
    """A piece, with what it says of its samples.

    Attributes:
        commit: Its record.
        fields: Fields of `ManifestRow` by sample key.
    """

    commit: Commit
    fields: Mapping[str, dict[str, Any]]


class OpenShards:
    """Reads the samples of shards that are not packed yet; what is known is not read again.

    Args:
        store: The dataset.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pieces: dict[str, _Piece] = {}
        self._parts: dict[str, SamplePart] = {}

    def look(self, finished: Iterable[Commit]) -> tuple[list[SamplePart], list[str]]:
        """Look what there is now.

        Args:
            finished: The records of the finished shards, whose samples are left out.

        Returns:
            The shards by name, and what could not be read.
        """
        plan: dict[str, Any] | None = self._store.spec.get("plan")
        if not plan:
            return [], []
        size = DatasetSpec.model_validate(plan).samples_per_shard
        spans = self._finished(finished)
        problems: list[str] = []
        self._read_pieces(spans, problems)
        samples: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for path in sorted(self._pieces):
            commit = self._pieces[path].commit
            held = spans.get(commit.slice_id)
            for key in (*commit.verdicts, *commit.undelivered):
                if held is None or not held.has(index_of(key)):
                    name = shard_name(commit.slice_id, index_of(key) // size)
                    samples[name][key].append(path)
        parts = [self._part(name, samples[name]) for name in sorted(samples)]
        self._parts = {part.version: part for part in parts}
        return [part for part in parts if len(part.columns)], problems

    def _finished(self, commits: Iterable[Commit]) -> dict[str, Spans]:
        """Which samples of each slice are packed."""
        found: dict[str, Spans] = defaultdict(Spans)
        for commit in commits:
            found[commit.slice_id].add(*(self._store.range_of(commit) or (0, MAX_SAMPLES)))
        return found

    def _read_pieces(self, finished: Mapping[str, Spans], problems: list[str]) -> None:
        """Read the pieces of cells that are not packed whole; forget the others."""
        wanted = [
            path
            for stage in self._store.specification.stages[:-1]
            for path in self._store.log.paths(stage)
            if self._may_be_open(path, finished)
        ]
        here = set(wanted)
        self._pieces = {path: piece for path, piece in self._pieces.items() if path in here}
        commits = _read_commits(
            self._store, [each for each in wanted if each not in self._pieces], problems
        )
        whole: dict[str, list[str]] = defaultdict(list)
        for path, commit in commits.items():
            if commit.object is None or commit.stage.holds_pictures:
                try:
                    self._pieces[path] = _Piece(commit, _fields_of(self._dropped_pairs(commit)))
                except (DataError, FileNotFoundError) as error:
                    problems.append(f"{commit.stage} of {commit.shard}: {error}")
            else:
                whole[commit.object.path].append(path)
        for place, data in self._store.objects.read_many(list(whole)):
            for path in whole[place]:
                try:
                    rows = _checked_rows(data, commits[path], place)
                    self._pieces[path] = _Piece(commits[path], _fields_of(rows))
                except DataError as error:
                    problems.append(str(error))

    def _may_be_open(self, path: str, finished: Mapping[str, Spans]) -> bool:
        """Whether a record is about a cell of which not all samples are packed, by its path."""
        unit = path.split("/")[-2]
        slice_id, _, number = unit.partition("-p")
        if not is_cell(unit) or not number.isdigit():
            return False
        start, held = int(number) * self._store.cell_samples, finished.get(slice_id)
        return held is None or not held.hold(start, start + self._store.cell_samples)

    def _dropped_pairs(self, commit: Commit) -> list[Rejected]:
        """What a stage of pictures dropped; its archive is long, and nothing else is read of it."""
        dropped = any(not verdict.output for verdict in commit.verdicts.values())
        if commit.object is None or not dropped:
            return []
        with self._store.objects.open(commit.object.path) as file:
            return read_pair_rows(file, name=commit.object.path)[1]

    def _part(self, name: str, samples: Mapping[str, list[str]]) -> SamplePart:
        """A shard, of the pieces about each of its samples."""
        version = digest([name, dict(samples)])
        if version in self._parts:
            return self._parts[version]
        names = self._class_names()
        rows: dict[str, ManifestRow] = {}
        for key in sorted(samples):
            row = self._row(name, key, [self._pieces[path] for path in samples[key]], names)
            if row is not None:
                rows[key] = row
        data = encode_manifest([*rows.values()])
        return SamplePart(name, SampleColumns.read(data, name), version, rows=rows, texts=data)

    def _row(
        self, shard: str, key: str, pieces: list[_Piece], names: Mapping[int, str]
    ) -> ManifestRow | None:
        """What is known of a sample; None if nothing was made for it yet."""
        fields: dict[str, Any] = {}
        reached, waits = "", ""
        for stage in self._store.specification.stages[:-1]:
            own = [each for each in pieces if each.commit.stage is stage]
            decided = [each for each in own if key in each.commit.verdicts]
            if not decided:
                asked = (each.commit.undelivered.get(key) for each in own)
                waits = waits or next((f"{stage}: {why}" for why in asked if why), "")
                continue
            piece = max(decided, key=lambda each: (each.commit.created, each.commit.key))
            fields |= piece.fields.get(key, {})
            reached, waits = str(stage), ""
            if not piece.commit.verdicts[key].output:
                break
        if not reached:
            return None
        dropped = fields.get("status")
        ids = tuple(fields.get("class_ids", ()))
        common = {
            "key": key,
            "shard": shard,
            "index": index_of(key),
            "seed": 0,
            "class_ids": ids,
            "class_names": tuple(names.get(each, f"class {each}") for each in ids),
        }
        if dropped:
            return ManifestRow.model_validate(fields | common)
        about = {"stage": reached, "reason": OPEN, "detail": waits}
        return OpenRow.model_validate(fields | common | about)

    def _class_names(self) -> dict[int, str]:
        try:
            return {each.class_id: each.name for each in load_vocabulary(self._store.vocabulary)}
        except InputError:  # of another version; their numbers do
            return {}


def _read_commits(store: Store, paths: list[str], problems: list[str]) -> dict[str, Commit]:
    """Read records, by where they lie; one that is gone by now is left out."""
    found: dict[str, Commit] = {}
    for path, data in store.objects.read_many(paths):
        if data is not None:
            try:
                found[path] = read_commit(data, path)
            except DataError as error:
                problems.append(str(error))
    return found


def _checked_rows(data: bytes | None, commit: Commit, place: str) -> list[Record]:
    ref = commit.object
    if data is None or ref is None or hashlib.sha256(data).hexdigest() != ref.sha256:
        message = (
            f"{place} of {commit.stage} of {commit.shard} is gone or not what was committed; "
            "verify the dataset"
        )
        raise DataError(message)
    return read_rows(data, name=place)


def _fields_of(rows: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """What rows say, as fields of a manifest's row by sample key."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        match row:
            case Prompt():
                found[row.key] = {
                    "text": row.text,
                    "counterfactual_text": row.counterfactual_text,
                    "writer": row.writer,
                    "class_ids": tuple(dict.fromkeys(each.class_id for each in row.mentions)),
                }
            case Detection():
                found[row.key] = {
                    "instance_class_ids": tuple(box.class_id for box in row.boxes),
                    "instance_scores": tuple(box.score for box in row.boxes),
                    "instance_ious": tuple(mask.predicted_iou for mask in row.masks),
                }
            case MaskSample():
                found[row.key] = {
                    "width": row.width,
                    "height": row.height,
                    "instance_class_ids": tuple(each.class_id for each in row.instances),
                    "instance_scores": tuple(each.score for each in row.instances),
                    "instance_ious": tuple(each.predicted_iou for each in row.instances),
                }
            case Rejected():
                found[row.key] = {
                    "status": "failed" if row.reason.is_failure else "rejected",
                    "stage": str(row.stage),
                    "reason": str(row.reason),
                    "detail": row.detail,
                }
            case _:
                pass
    return found
