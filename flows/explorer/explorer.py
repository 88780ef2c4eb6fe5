"""The dataset behind the explorer's page: questions and their answers, without a server."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from flows.explorer.curation import Change, Choice, Curator, ManyChange, Undo
from flows.explorer.descriptions import describe_facts, describe_sample, describe_table
from flows.explorer.pictures import mask_picture, thumbnail
from flows.explorer.seen_lists import SeenLists
from storage.corrections import correct_row, stale_words, undo_hint
from storage.documents import explain
from storage.errors import EngineError, InputError
from storage.manifest import ManifestRow
from storage.sample_queries import SampleQuery
from storage.sample_table import SampleTable
from storage.store import Store
from storage.stored_samples import SampleReader, StoredSample

MOST_LISTED = 500
"""Samples that are listed at one time."""

IGNORED_PIXELS = "ignored"
"""What the mask of ignored pixels is called; others are called by their class's number."""


class Explorer:
    """Answers questions about a dataset; may be asked from any thread.

    Args:
        store: The dataset.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._table = SampleTable(store)
        self._reader = SampleReader(store)
        self._lists = SeenLists()
        self.curator = Curator(store, self._table)

    def refresh(self) -> dict[str, Any]:
        """Look what there is now, and describe it; damage is told among the problems."""
        problems: list[str] = []
        self._reader.forget()
        try:
            self._table.refresh()
        except EngineError as error:  # the samples are shown all the same
            problems.append(str(error))
        described = describe_table(self._table, self._store.root)
        described["problems"] = problems + described["problems"]
        return described

    def find(self, asked: str, start: int, count: int) -> dict[str, Any]:
        """List samples.

        Args:
            asked: A `SampleQuery` as JSON.
            start: How many are passed over.
            count: How many are listed, at most.

        Raises:
            DataError: A manifest whose texts are wanted is gone or damaged.
            InputError: The question is none.
        """
        try:
            query = SampleQuery.model_validate_json(asked)
        except ValidationError as error:
            message = f"the filter cannot be read ({explain(SampleQuery, error)})"
            raise InputError(message) from error
        found = self._table.found(query)
        self._lists.keep(found)
        listed = [describe_facts(each) for each in found.facts(start, min(count, MOST_LISTED))]
        return {"found": len(found), "list": found.name, "start": start, "samples": listed}

    def sample(self, key: str) -> dict[str, Any]:
        """Describe a sample in full.

        Raises:
            DataError: Its manifest is gone or damaged.
            InputError: There is no such sample any more.
        """
        unheard: list[str] = []
        try:
            self._table.hear()
        except EngineError as error:  # the sample is shown all the same
            unheard.append(str(error))
        facts = self._table.facts(key)
        stored, row = self._read(key)
        if facts is None:
            raise _gone(key)
        names = {number: name for number, name, _ in self._table.classes()}
        said = [
            line.model_dump(mode="json", exclude={"objects", "ignored"})
            for line in self._table.history(key)
        ]
        described = describe_sample(facts, row, stored, names)
        return described | {"notes": [*unheard, *described["notes"]], "history": said}

    def facts(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """Describe samples as a list does; those that are gone are left out."""
        found = [self._table.facts(key) for key in keys]
        return [describe_facts(each) for each in found if each is not None]

    def change(self, change: Change) -> dict[str, Any]:
        """Say something of a sample, and describe it as a list does.

        Raises:
            InputError: It cannot be said, see `Curator.change`.
        """
        act = self.curator.change(change)
        facts = self._table.facts(change.key)
        if facts is None:
            raise _gone(change.key)
        return describe_facts(facts) | {"act": act}

    def outlook(self, choice: Choice) -> dict[str, Any]:
        """Tell how many samples a change would change, and what of the others.

        Raises:
            InputError: The list is not known.
        """
        outlook = self.curator.outlook(self._chosen(choice), choice.act)
        return {
            "count": len(outlook.keys),
            "already": outlook.already,
            "dropped": outlook.dropped,
            "gone": outlook.gone,
        }

    def change_many(self, change: ManyChange) -> dict[str, Any]:
        """Say something of many samples, as one act.

        Raises:
            InputError: It cannot be said, see `Curator.change_many`.
        """
        act, count = self.curator.change_many(self._chosen(change), change)
        return {"act": act, "count": count}

    def undo(self, undo: Undo) -> dict[str, Any]:
        """Take an act back.

        Raises:
            InputError: There is no such act.
        """
        return {"count": self.curator.undo(undo.act)}

    def thumbnail(self, key: str) -> bytes:
        """A small JPEG of a sample's image; empty if there is no image.

        Raises:
            DataError: The image cannot be read.
            InputError: There is no such sample any more.
        """
        part, index = self._table.part(key), self._table.index(key)
        if part is None or index is None:
            raise _gone(key)
        image = self._reader.image(part, key, index)
        return thumbnail(image, key) if image else b""

    def picture(self, key: str, kind: str) -> bytes:
        """A stored picture of a sample; empty if it is not there.

        Args:
            key: Of the sample.
            kind: ``image`` or ``counterfactual``.

        Raises:
            DataError: Its manifest is gone or damaged.
            InputError: There is no such sample any more.
        """
        stored, _ = self._read(key)
        return stored.image if kind == "image" else stored.counterfactual

    def mask(self, key: str, name: str) -> bytes:
        """A mask as a PNG to lay over the image; empty if there is none.

        Args:
            key: Of the sample.
            name: Number of a class, or `IGNORED_PIXELS`.

        Raises:
            DataError: The mask cannot be read.
            InputError: There is no such sample any more.
        """
        class_id = None if name == IGNORED_PIXELS else int(name)
        stored, _ = self._read(key)
        mask = stored.mask(class_id)
        return b"" if mask is None else mask_picture(mask, class_id)

    def _chosen(self, choice: Choice) -> Sequence[str]:
        if bool(choice.list) == bool(choice.keys):
            message = (
                f"the list is {choice.list!r}, with {len(choice.keys)} keys, expected the name of "
                "a list or some keys, and not both"
            )
            raise InputError(message)
        if choice.list:
            return self._lists.keys(choice.list)
        for key in choice.keys:
            if self._table.facts(key) is None:
                raise _gone(key)
        return choice.keys

    def _read(self, key: str) -> tuple[StoredSample, ManifestRow]:
        part, row = self._table.part(key), self._table.row(key)
        if part is None or row is None:
            raise _gone(key)
        stored, correction = self._reader.read(part, row), self._table.correction(key)
        if correction is None:
            return stored, row
        if not correction.fits(row):
            note = f"{stale_words(correction)}; {undo_hint(self._store.root, key)}"
            return replace(stored, notes=(*stored.notes, note)), row
        return stored.corrected(correction), correct_row(row, correction)


def _gone(key: str) -> InputError:
    return InputError(f"there is no sample {key!r} in the dataset any more; reload the page")
