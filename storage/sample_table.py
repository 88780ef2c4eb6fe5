"""The table of a dataset's samples: found by what is known of them, in any order, page by page.

It has every planned sample of every finished shard, whatever became of it, by the manifests, those
samples of other shards that a stage has decided, and what people said of them since.
"""

import threading
from collections import OrderedDict
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from storage.acts import ActsRead
from storage.checks import read_whole
from storage.corrections import CORRECTIONS, Correction, holding
from storage.exclusions import EXCLUSIONS, Exclusion, latest
from storage.manifest import ManifestRow, read_manifest_row
from storage.marks import MARKS, Mark, current_marks
from storage.open_shards import OpenShards
from storage.sample_columns import TextColumn
from storage.sample_parts import SamplePart, read_finished_parts
from storage.sample_queries import (
    FoundSamples,
    SampleFacts,
    SampleQuery,
    SampleView,
    Snapshot,
)
from storage.store import Store

__all__ = ["SampleTable"]

_MOST_FOUND = 16


class SampleTable:
    """The samples of a dataset; may be asked from any thread.

    Args:
        store: The dataset; nothing is read before `refresh`.

    Attributes:
        exclusions: All that was said of what is left out, as far as it was heard.
        marks: The same of flags and notes.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._view = SampleView()
        self._open = OpenShards(store)
        self._problems: tuple[str, ...] = ()
        self.exclusions, self.marks = ActsRead(EXCLUSIONS), ActsRead(MARKS)
        self._corrected = ActsRead(CORRECTIONS)
        self._texts: dict[str, TextColumn] = {}
        self._found: OrderedDict[str, FoundSamples] = OrderedDict()

    def refresh(self) -> None:
        """Look what there is now; what is known already is not read again.

        Raises:
            DataError: A file of the exclusions, marks or corrections is damaged; names it. The
                samples are those of now all the same.
        """
        with self._lock:
            known = {part.version: part for part in self._view.samples.parts if part.commit}
            finished, problems = read_finished_parts(self._store, known)
            commits = [part.commit for part in finished if part.commit]
            still_open, more = self._open.look(commits)
            self._problems = (*problems, *more)
            parts = tuple(sorted([*finished, *still_open], key=lambda each: each.shard))
            kept = {part.version for part in parts}
            self._texts = {each: text for each, text in self._texts.items() if each in kept}
            self._show(SampleView(Snapshot(parts), self._view.said))
            self.hear()

    def hear(self) -> None:
        """Read what was said of samples since.

        Raises:
            DataError: A file is damaged; names it. What was known before stays.
        """
        with self._lock:
            said, objects = self._view.said, self._store.objects
            try:
                if self.marks.look(objects):
                    said = replace(said, marks=current_marks(self.marks.lines))
                if self.exclusions.look(objects):
                    lines = [*self.exclusions.lines]
                    scores = {each.key: each.score for each in lines if each.score is not None}
                    said = replace(said, exclusions=latest(lines), agreements=scores)
                if self._corrected.look(objects):
                    said = replace(said, corrections=holding(self._corrected.lines))
            finally:
                if said is not self._view.said:
                    self._show(SampleView(self._view.samples, said))

    @property
    def view(self) -> SampleView:
        """The samples, and what was said of them, as far as both are known."""
        return self._view

    @property
    def problems(self) -> tuple[str, ...]:
        """What of the dataset could not be read."""
        return self._problems

    @property
    def written(self) -> frozenset[str]:
        """Keys of the samples in tars."""
        return self._view.samples.written

    @property
    def shards(self) -> list[str]:
        """Names of the finished shards."""
        return [part.shard for part in self._view.samples.parts if part.commit]

    @property
    def open_shards(self) -> list[str]:
        """Names of the shards that are not packed yet, or not with all of their samples."""
        return [part.shard for part in self._view.samples.parts if not part.commit]

    def __len__(self) -> int:
        return len(self._view.samples.columns)

    def fates(self) -> dict[str, int]:
        """How many samples were written, are open, and were dropped for each reason."""
        return self._view.samples.columns.fates.counts()

    def classes(self) -> list[tuple[int, str, int]]:
        """Classes by name: vocabulary index, display name, and how many samples have it."""
        columns = self._view.columns
        numbers, counts = np.unique(columns.class_ids, return_counts=True)
        pairs = zip(numbers.tolist(), counts.tolist(), strict=True)
        found = [(number, columns.names[number], count) for number, count in pairs]
        return sorted(found, key=lambda each: (each[1].casefold(), each[0]))

    def find(self, query: SampleQuery, start: int, count: int) -> tuple[int, list[SampleFacts]]:
        """Find samples.

        Args:
            query: Which are wanted, and in which order.
            start: How many are passed over.
            count: How many are given, at most.

        Returns:
            How many there are, and what is known of those between.

        Raises:
            DataError: A manifest whose texts are wanted is gone or damaged.
        """
        found = self.found(query)
        return len(found), found.facts(start, count)

    def found(self, query: SampleQuery) -> FoundSamples:
        """Find samples, to go back to them later; as long as nothing changes, the same object.

        Raises:
            DataError: A manifest whose texts are wanted is gone or damaged.
        """
        with self._lock:
            name = query.model_dump_json()
            if name not in self._found:
                chosen = self._view.chosen(query)
                if words := query.words.split():
                    chosen &= self._with_words(words)
                rows = self._view.ordered(chosen, query)
                self._found[name] = FoundSamples(self._view, rows)
            self._found.move_to_end(name)
            if len(self._found) > _MOST_FOUND:
                self._found.popitem(last=False)
            return self._found[name]

    def facts(self, key: str) -> SampleFacts | None:
        """What is known of a sample; None if there is none of that key."""
        view = self._view
        row = view.samples.rows.get(key)
        return None if row is None else view.facts(row)

    def correction(self, key: str) -> Correction | None:
        """The masks that people drew for a sample; None if those of the tar count."""
        return self._view.said.corrections.get(key)

    def history(self, key: str) -> list[Exclusion | Mark | Correction]:
        """All that was ever said of a sample: exclusions, then marks, then corrections."""
        lines = (*self.exclusions.lines, *self.marks.lines, *self._corrected.lines)
        return [line for line in lines if line.key == key]

    def part(self, key: str) -> SamplePart | None:
        """The shard of a sample; None if there is no such sample."""
        samples = self._view.samples
        row = samples.rows.get(key)
        return None if row is None else samples.part_of(row)

    def index(self, key: str) -> int | None:
        """Position of a sample in its slice; None if there is no such sample."""
        samples = self._view.samples
        row = samples.rows.get(key)
        return None if row is None else int(samples.columns.index[row])

    def row(self, key: str) -> ManifestRow | None:
        """What the manifest, or the stages so far, say of a sample as made; None for no sample.

        Raises:
            DataError: The manifest is gone or damaged.
        """
        part = self.part(key)
        if part is None:
            return None
        if part.commit is None:
            return part.rows.get(key)
        if part.commit.manifest is None:
            return None
        data = read_whole(self._store.objects, part.commit, part.commit.manifest)
        return read_manifest_row(data, key, name=part.commit.manifest.path)

    def _show(self, view: SampleView) -> None:
        self._view = view
        self._found.clear()

    def _with_words(self, words: list[str]) -> Bool[np.ndarray, " samples"]:
        """Which samples have words in their texts, which are read now if they were not before."""
        parts = self._view.samples.parts
        for part in parts:
            if part.version not in self._texts:
                self._texts[part.version] = self._read_texts(part)
        found = [self._texts[part.version].has(words) for part in parts]
        return np.concatenate([np.empty(0, bool), *found])

    def _read_texts(self, part: SamplePart) -> TextColumn:
        if part.commit is None or part.commit.manifest is None:
            return TextColumn(part.texts, part.shard)
        ref = part.commit.manifest
        return TextColumn(read_whole(self._store.objects, part.commit, ref), ref.path)
