"""Series: scores of one subject under one protocol, which differ by the seed alone.

Means are taken over a series and over nothing else. One measurement counts once, in however many
folders its file lies.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Generic, TypeVar

from evaluation.reports.protocol_words import difference_words
from evaluation.scoring.measured import Measured
from evaluation.scoring.point_results import PointScores
from evaluation.scoring.results import Scores, Subject

SUBJECT_KINDS = ("student", "untrained", "baseline", "closed-set")
"""Kinds of subjects, in the order in which boards show them."""

_SEED = "seed"
_SHORT = 8

MeasuredT = TypeVar("MeasuredT", Scores, PointScores)


@dataclass(frozen=True)
class Series(Generic[MeasuredT]):
    """Scores that may be averaged.

    Attributes:
        scores: One for each seed.
        subject: What was scored.
        difference: How they differ from other series of the same subject; empty if there is none.
    """

    scores: list[MeasuredT]
    subject: str
    difference: str = ""

    @property
    def words(self) -> list[str]:
        """The words after the subject: how many scores a mean is over, and the difference."""
        mean = f"mean of {len(self.scores)}" if len(self.scores) > 1 else ""
        return [each for each in (mean, self.difference) if each]

    @property
    def name(self) -> str:
        """What a board calls it."""
        return ", ".join([self.subject, *self.words])


def make_series(measured: Iterable[MeasuredT]) -> list[Series[MeasuredT]]:
    """Put scores together that differ by the seed alone, the kinds of subjects in their order.

    Students of one kind are taken for the same but for the seed if their details are; where two of
    them have the same seed they are not, and each is a series of its own.
    """
    alike: defaultdict[Hashable, list[MeasuredT]] = defaultdict(list)
    for each in _distinct(measured):
        alike[_recipe(each)].append(each)
    groups = [part for group in alike.values() for part in _apart(group)]
    groups.sort(key=lambda group: subject_order(group[0].subject))
    rivals: defaultdict[tuple[int, str], list[MeasuredT]] = defaultdict(list)
    for group in groups:
        rivals[subject_order(group[0].subject)].append(group[0])
    series = [
        Series(
            group,
            _subject_words(group[0].subject),
            _difference(group[0], rivals[subject_order(group[0].subject)]),
        )
        for group in groups
    ]
    named = Counter(each.name for each in series)
    return [_with_weights(each) if named[each.name] > 1 else each for each in series]


def subject_order(subject: Subject) -> tuple[int, str]:
    """Students of one kind are one subject; others are what their name says."""
    is_student = subject.kind in {"student", "untrained"}
    return SUBJECT_KINDS.index(subject.kind), "" if is_student else subject.name


def mean_and_deviation(values: Iterable[float | None]) -> str:
    """Mean and sample standard deviation of shares, in percent; missing ones are left out."""
    values = list(values)
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    deviation = f" \u00b1 {100 * stdev(known):.1f}" if len(known) > 1 else ""
    over = f" (of {len(known)})" if len(known) < len(values) else ""
    return f"{100 * fmean(known):.1f}{deviation}{over}"


def _distinct(measured: Iterable[MeasuredT]) -> list[MeasuredT]:
    """One of all scores of the same weights under the same protocol: the newest."""
    newest: dict[Hashable, MeasuredT] = {}
    for each in measured:
        key = (each.subject.kind, each.subject.fingerprint, each.protocol)
        known = newest.setdefault(key, each)
        if each.created > known.created:
            newest[key] = each
    return list(newest.values())


def _recipe(scores: Measured) -> Hashable:
    details = {name: text for name, text in scores.subject.details.items() if name != _SEED}
    thresholds = tuple(point.threshold for point in scores.curve)
    return (*subject_order(scores.subject), *sorted(details.items()), scores.protocol, thresholds)


def _apart(group: list[MeasuredT]) -> list[list[MeasuredT]]:
    """A group as it is, or each by itself if two have the same seed and yet other weights."""
    seeds = [seed for each in group if (seed := each.subject.details.get(_SEED)) is not None]
    return [group] if len(set(seeds)) == len(seeds) else [[each] for each in group]


def _subject_words(subject: Subject) -> str:
    students = {"student": "trained student", "untrained": "untrained student"}
    return students.get(subject.kind, subject.name)


def _difference(own: MeasuredT, rivals: Sequence[MeasuredT]) -> str:
    """How scores differ from others of the same subject: protocol, then details but the seed."""
    words = difference_words(own.protocol, [each.protocol for each in rivals])
    words += [
        f"{name} {text}"
        for name, text in own.subject.details.items()
        if name != _SEED and any(each.subject.details.get(name) != text for each in rivals)
    ]
    return ", ".join(words)


def _with_weights(series: Series[MeasuredT]) -> Series[MeasuredT]:
    weights = f"weights {series.scores[0].subject.fingerprint[:_SHORT]}"
    words = f"{series.difference}, {weights}" if series.difference else weights
    return Series(series.scores, series.subject, words)
