"""Cells: what is committed of some samples, stage by stage, and what is left to be made."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from storage.commits import Commit
from storage.plan import CellPart
from storage.records import PlannedSample, Reason, Stage
from storage.store import Store

_DIGITS = 16


@runtime_checkable
class SampleKeys(Protocol):
    """Knows what a sample's output depends on."""

    @property
    def inputs(self) -> Mapping[Stage, tuple[Stage, ...]]:
        """The stages that commit pieces, in order, each with those that come first."""
        ...

    @property
    def reads(self) -> Mapping[Stage, tuple[Stage, ...]]:
        """The inputs of each whose output is part of the key."""
        ...

    def key(self, stage: Stage, sample: PlannedSample, inputs: Sequence[str]) -> str:
        """Identify what a stage makes of a sample; `inputs` are the digests of what it reads."""
        ...


@dataclass(frozen=True)
class Decided:
    """What a stage has decided about a sample.

    Attributes:
        piece: The record that says so.
        output: Digest of what was made; empty if the sample was rejected.
    """

    piece: Commit
    output: str


@dataclass(frozen=True)
class Open:
    """Why a sample is not decided although it was worked on.

    Attributes:
        piece: The newest record that says so.
        reason: A service did not deliver, or the sample was rejected and opened again.
    """

    piece: Commit
    reason: Reason


@dataclass
class CellState:
    """How far the wanted samples of a cell are.

    Attributes:
        part: The samples.
        found: What is decided, by stage and sample key.
        keys: The key of every sample that reached a stage.
        undelivered: Why a sample that reached a stage is not decided there, by sample key.
        attempts: How often a sample was left open like that.
    """

    part: CellPart
    found: dict[Stage, dict[str, Decided]] = field(default_factory=dict[Stage, dict[str, Decided]])
    keys: dict[Stage, dict[str, str]] = field(default_factory=dict[Stage, dict[str, str]])
    undelivered: dict[str, Open] = field(default_factory=dict[str, Open])
    attempts: Counter[str] = field(default_factory=Counter[str])

    def reached(self, stage: Stage) -> list[PlannedSample]:
        """The samples that have everything that the stage reads, in plan order."""
        return [sample for sample in self.part.class_sets if sample.key in self.keys[stage]]

    def missing(self, stage: Stage) -> list[PlannedSample]:
        """The samples that reached the stage and are not decided there, in plan order."""
        found = self.found[stage]
        return [sample for sample in self.reached(stage) if sample.key not in found]

    def pieces(self, stage: Stage, keys: Sequence[str]) -> list[Commit]:
        """The records that decided these samples, each once."""
        found = self.found[stage]
        by_key = {found[key].piece.key: found[key].piece for key in keys if key in found}
        return [by_key[key] for key in sorted(by_key)]

    def is_decided(self, sample: PlannedSample) -> bool:
        """Whether every stage that the sample reached has decided about it."""
        stages = [each for each in self.keys if sample.key in self.keys[each]]
        return bool(stages) and sample.key in self.found[stages[-1]]


def look_up(keys: SampleKeys, store: Store, part: CellPart, *, as_read: bool = False) -> CellState:
    """Find what is committed of the samples; changes nothing.

    A verdict counts only under the key that the sample has now: of the same settings, and of
    inputs with the same contents.

    Args:
        keys: Knows the keys.
        store: The dataset.
        part: The samples.
        as_read: Whether a sample has reached a stage as soon as there is what the stage reads of
            it, whatever else it must pass before.
    """
    state = CellState(part)
    for stage, inputs in (keys.reads if as_read else keys.inputs).items():
        expected = _expected(keys, state, stage, inputs)
        found: dict[str, Decided] = {}
        pieces = store.pieces(stage, part.name) if expected else []
        for piece in pieces:
            for name, verdict in piece.verdicts.items():
                if expected.get(name) == verdict.key:
                    found.setdefault(name, Decided(piece, verdict.output))
            state.attempts.update(piece.undelivered.keys())
        state.keys[stage], state.found[stage] = expected, found
        for piece in sorted(pieces, key=lambda piece: (piece.created, piece.key)):
            for name, why in piece.undelivered.items():
                if name in expected and name not in found:
                    state.undelivered[name] = Open(piece, why)
    return state


def _expected(
    keys: SampleKeys, state: CellState, stage: Stage, inputs: Sequence[Stage]
) -> dict[str, str]:
    """The keys of the samples that reached a stage; every text of a class set is written."""
    part = state.part
    expected: dict[str, str] = {}
    for sample in part.samples if inputs else part.class_sets:
        outputs = {
            each: found.output for each in inputs if (found := state.found[each].get(sample.key))
        }
        if len(outputs) == len(inputs) and all(outputs.values()):
            read = [outputs[each] for each in keys.reads[stage]]
            expected[sample.key] = keys.key(stage, sample, read)
    return expected


def short_digest(data: bytes) -> str:
    """16 hex digits of SHA-256: enough to tell the versions of one sample apart."""
    return hashlib.sha256(data).hexdigest()[:_DIGITS]
