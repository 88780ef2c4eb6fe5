"""Exclusions as a page shows them: how many finished samples are left out, who said so, and why."""

from collections import Counter
from dataclasses import dataclass

from storage.exclusions import count_reasons, excluded_keys, written_keys
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
    reasons = Counter[tuple[str, str]]()
    for counted in count_reasons(store).values():
        for by, why, number in counted:
            reasons[by, why] += number
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    # of samples that are not packed yet nothing is shown, though it may be known of them
    keys = excluded_keys(store.objects) & written_keys(store) if reasons else frozenset[str]()
    return LeftOut(
        samples=reasons.total(),
        reasons=[LeftOutReason(by, why, count) for (by, why), count in ordered[:_REASONS]],
        more_reasons=max(0, len(ordered) - _REASONS),
        keys=sorted(keys)[:_LISTED],
    )
