"""Noise learning: which masks of a dataset a segmenter that never saw them contradicts most.

The idea is DiffuMask's (ICCV 2023, section 3.3): segmenters are trained on all parts of a dataset
but one and predict that one; masks that the predictions contradict are noise. Its released script
ranks the samples of each class apart and keeps the best 30 %; the share is a setting here.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from statistics import fmean
from typing import Literal

from pydantic import Field

from evaluation.scoring.agreement import Agreement
from storage.card import write_card
from storage.exclusions import Exclusion, append_exclusions, latest, read_exclusions
from storage.records import Record
from storage.store import Store

__all__ = ["NoiseRules", "NoiseVerdict"]

_Value = tuple[float, float]
"""IoU of a class, and of all objects of the same sample."""

Ranking = Literal["class", "all"]
"""Whom a sample is compared with."""

Agreements = Mapping[str, Agreement]
"""By sample key."""


class NoiseRules(Record, frozen=True):
    """Which samples stay."""

    keep: float = Field(default=0.7, gt=0, le=1)
    """Share of the judged samples that stay. DiffuMask's script keeps 0.3, of many more images than
    are needed."""
    ranking: Ranking = "class"
    """`class` compares each class of a sample with the same class of others, so that a class that
    is hard for the segmenter loses no more than an easy one; `all` compares IoUs whatever the
    class."""


class NoiseVerdict(Record, frozen=True):
    """What noise learning came to."""

    judged: int
    """Samples that were ranked."""
    dropped: int
    """How many of these are left out."""
    by_hand: int
    """How many would be, but a person took them back."""
    changed: int
    """Samples that are in another state than before."""
    mean_kept: float
    """Mean agreement of those that stay."""
    mean_dropped: float
    """Mean agreement of those that are left out; 0 if none is."""


def find_noise(agreements: Agreements, rules: NoiseRules) -> set[str]:
    """Choose the samples that are left out: those with the lowest rank.

    Under the ranking `all` a sample's rank is the mean IoU of its classes, under `class` the mean
    of the places that these have among all IoUs of their class, from 0 for the lowest to 1. Of
    equal IoUs that is lower whose objects agree less, whatever they are taken for: a segmenter that
    takes many things for others would not tell a wrong mask from its own mistake otherwise.

    Args:
        agreements: Of all judged samples, each with a class at least.
        rules: How many stay, and whom they are compared with.

    Returns:
        Keys; as many as are more than `keep` of the samples, rounded.
    """
    places = _places(agreements) if rules.ranking == "class" else dict[str, float]()
    order = sorted(
        agreements,
        key=lambda key: (
            places.get(key, 0.0),
            agreements[key].score,
            agreements[key].objects,
            key,
        ),
    )
    return set(order[: len(order) - round(rules.keep * len(order))])


def _places(agreements: Agreements) -> dict[str, float]:
    """For each sample, as a mean over its classes, the share of others that agree less.

    Of equals each has the middle of their places, so that a class whose every mask is contradicted
    alike stands in the middle, and not at the end.
    """
    by_class: dict[int, list[_Value]] = {}
    for own in agreements.values():
        for class_id, iou in own.classes.items():
            by_class.setdefault(class_id, []).append((iou, own.objects))
    for each in by_class.values():
        each.sort()
    return {
        key: fmean(_place((iou, own.objects), by_class[k]) for k, iou in own.classes.items())
        for key, own in agreements.items()
    }


def _place(iou: _Value, others: Sequence[_Value]) -> float:
    """Place of a value among all of its class in ascending order, itself among them, in (0, 1)."""
    return (bisect_left(others, iou) + bisect_right(others, iou)) / (2 * len(others))


def apply_noise(
    store: Store, agreements: Agreements, rules: NoiseRules, *, who: str, change: bool = True
) -> NoiseVerdict:
    """Leave the noisy samples of a dataset out, and take back those that are noisy no longer.

    What people said of a sample stands. The same agreements and rules a second time change nothing.

    Args:
        store: The dataset.
        agreements: Of all judged samples.
        rules: Which of them stay.
        who: User and machine.
        change: Whether anything is written.
    """
    noise = find_noise(agreements, rules)
    words = latest(read_exclusions(store.objects))
    at, lines = datetime.now(UTC), list[Exclusion]()
    for key in sorted(agreements):
        word = words.get(key)
        if word is not None and word.by == "hand":
            continue
        excluded = word is not None and word.act == "exclude"
        if excluded != (key in noise):
            score = agreements[key].score
            lines.append(_line(key, score, rules, who=who, at=at, noisy=key in noise))
    if lines and change:
        append_exclusions(store.objects, lines)
    if change:
        write_card(store)  # it may be older than the last act, if somebody was killed in between
    kept = [own.score for key, own in agreements.items() if key not in noise]
    dropped = [agreements[key].score for key in noise]
    spoken = {key for key, word in words.items() if word.by == "hand"}
    return NoiseVerdict(
        judged=len(agreements),
        dropped=len(noise - spoken),
        by_hand=len(noise & spoken),
        changed=len(lines),
        mean_kept=fmean(kept) if kept else 0.0,
        mean_dropped=fmean(dropped) if dropped else 0.0,
    )


def _line(
    key: str, score: float, rules: NoiseRules, *, who: str, at: datetime, noisy: bool
) -> Exclusion:
    among = "of its class" if rules.ranking == "class" else "of all samples"
    verdict = "is not" if noisy else "is"
    return Exclusion(
        key=key,
        act="exclude" if noisy else "include",
        by="noise-learning",
        who=who,
        at=at,
        why=f"the agreement {verdict} among the best {100 * rules.keep:g} % {among}",
        score=score,
    )
