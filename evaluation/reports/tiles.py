"""Tiles: the few numbers at the head of the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from evaluation.reports.series import make_series
from evaluation.scoring.results import Scores

_KINDS = {"student": "trained", "untrained": "untrained"}


@dataclass(frozen=True)
class Tile:
    """One number.

    Attributes:
        value: The number.
        label: What it is.
    """

    value: str
    label: str


def score_tiles(measured: Sequence[Scores]) -> list[Tile]:
    """The mIoU of the students on the first benchmark: a tile for each protocol, never a mean."""
    if not measured:
        return []
    benchmark = measured[0].protocol.benchmark
    series = make_series(each for each in measured if each.protocol.benchmark == benchmark)
    return [
        Tile(
            f"{100 * fmean(scores.miou for scores in each.scores):.1f}",
            ", ".join([f"mIoU on {benchmark}", _KINDS[kind], *each.words]),
        )
        for kind in _KINDS
        for each in series
        if each.scores[0].subject.kind == kind
    ]
