"""What another dataset has made of the same samples, under the keys of this one.

A sample's key begins with the id of its slice, which is another one in every recipe. So nothing is
copied as it is: what was made of a sample there is taken over if its seed and classes, everything
that the stage depends on, and what the stage read of it are the same but for the key.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence

from storage.checks import DamagedError
from storage.pairs import EncodedPair
from storage.plan import CellPart, DatasetSpec, cell_parts
from storage.records import PlannedSample, Record, Rejected, Stage
from storage.rows import write_rows
from storage.slices import Slice
from storage.store import Store
from tasks.cells import CellState, SampleKeys, look_up, short_digest
from tasks.declarations import Made, read_pictures_of, read_rows_of

_log = logging.getLogger(__name__)


class Reuse:
    """Another dataset, of which what fits is taken over.

    Args:
        source: The dataset.
        spec: What fixes this dataset's plan.
        classes: The slice, as this dataset names it.
    """

    def __init__(self, source: Store, spec: DatasetSpec, classes: Slice) -> None:
        self._source = source
        self._spec = spec
        self._classes = source.specification.named(classes)

    def made(self, stage: Stage, keys: SampleKeys, state: CellState) -> Made | None:
        """What the other dataset has of the samples that a stage has to make.

        Args:
            stage: The stage.
            keys: Knows what a sample's output depends on.
            state: How far a cell of this dataset is.

        Returns:
            What is taken over, under this dataset's keys; None if there is nothing. What is
            damaged there is left to be made here, and the log says so.
        """
        missing = {sample.index: sample for sample in state.missing(stage)}
        if not missing:
            return None
        there = look_up(keys, self._source, self._like(state.part), as_read=True)
        try:
            twins = self._twins(keys.reads[stage], state, there, stage)
            own = {key: missing[index].key for index, key in twins.items() if index in missing}
            return self._taken(stage, there, own) if own else None
        except DamagedError as error:
            _log.warning(
                "not taken from %s, and made again here: %s; 'magicseg verify' mends that dataset",
                self._source.root,
                error,
            )
            return None

    def _like(self, part: CellPart) -> CellPart:
        """The same samples as the other dataset names them."""
        first, last = part.samples[0].index, part.samples[-1].index
        (found,) = cell_parts(self._spec, self._classes, first, last + 1)
        return found

    def _twins(
        self, inputs: Sequence[Stage], state: CellState, there: CellState, stage: Stage
    ) -> dict[int, str]:
        """Keys there of samples that are decided there from the same inputs, by index."""
        decided = [each for each in there.reached(stage) if each.key in there.found[stage]]
        own_keys = {each.index: each.key for each in state.part.class_sets}
        rows = {
            each: read_rows_of(self._source, there, each, [one.key for one in decided])
            for each in inputs
        }

        def is_same(sample: PlannedSample) -> bool:
            own = own_keys[sample.index]
            return all(
                own in state.found[each]
                and state.found[each][own].output == _output(_under(rows[each][sample.key], own))
                for each in inputs
            )

        return {each.index: each.key for each in decided if is_same(each)}

    def _taken(self, stage: Stage, there: CellState, own: Mapping[str, str]) -> Made:
        rows = [
            _under(row, own[key])
            for key, row in read_rows_of(self._source, there, stage, list(own)).items()
        ]
        if not stage.holds_pictures:
            return Made.of_rows(rows)
        pairs: list[EncodedPair] = [
            dataclasses.replace(pair, key=own[pair.key])
            for pair in read_pictures_of(self._source, there, stage, list(own))
        ]
        return Made.of_pairs(pairs, [row for row in rows if isinstance(row, Rejected)])


def _under(row: Record, key: str) -> Record:
    return row.model_copy(update={"key": key})


def _output(row: Record) -> str:
    """What identifies a stage's output of a sample, as pieces have it."""
    return "" if isinstance(row, Rejected) else short_digest(write_rows([row]))
