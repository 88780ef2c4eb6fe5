"""Exclusions as a page shows them: how many finished samples are left out, who said so, and why."""

from collections import Counter
from dataclasses import dataclass

from storage.exclusions import count_excluded, latest, read_exclusions
from storage.store import Store

_REASONS = 12
_LISTED = 60


@dataclass(frozen=True)
class LeftOutReason:
    """Samples that are left out for one reason.

    Attributes:
        by: Who judged: by hand, or noise learning.
        why: The reason, in words.
        samples: How many.
    """

    by: str
    why: str
    samples: int


@dataclass(frozen=True)
class LeftOut:
    """The exclusions of a dataset.

    Attributes:
        samples: Samples of finished shards that are left out.
        reasons: Most frequent first.
        more_reasons: Reasons that are not among them.
        keys: The first keys, by name.
    """

    samples: int
    reasons: list[LeftOutReason]
    more_reasons: int
    keys: list[str]


def describe_left_out(store: Store) -> LeftOut:
    """Say what is left out of a dataset.

    Raises:
        DataError: A file of the exclusions or a manifest is damaged.
    """
    samples = sum(sum(by.values()) for by in count_excluded(store).values())
    words = {
        key: line
        for key, line in latest(read_exclusions(store.objects)).items()
        if line.act == "exclude"
    }
    counted = Counter((line.by, line.why) for line in words.values())
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return LeftOut(
        samples=samples,
        reasons=[LeftOutReason(by, why, count) for (by, why), count in ordered[:_REASONS]],
        more_reasons=max(0, len(ordered) - _REASONS),
        keys=sorted(words)[:_LISTED],
    )
