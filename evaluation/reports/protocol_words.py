"""Protocols as text: a whole one, or how it differs from others."""

from collections.abc import Callable, Sequence
from typing import Any

from evaluation.scoring.config import Background
from evaluation.scoring.measured import Protocol
from evaluation.scoring.point_results import PointProtocol
from evaluation.scoring.points import Binarise, way_words
from evaluation.scoring.results import ScoreProtocol

_Told = tuple[tuple[str, ...], Callable[[Any], str]]
"""Fields of a protocol, and the words for them."""


def protocol_words(protocol: ScoreProtocol) -> str:
    """Say how a number on label maps was measured: background, text, view and preset."""
    rule = _rule_words(protocol.background_rule, protocol.threshold)
    parts = [rule, protocol.text, protocol.view]
    if protocol.unseen:
        parts.append(_split_words(protocol))
    if protocol.preset:
        parts.append(f"preset {protocol.preset} (changed: {_changes(protocol)})")
    return "; ".join(parts)


def point_protocol_words(protocol: PointProtocol) -> str:
    """Say how a number on points was measured: mean, threshold, scores, text, view and preset."""
    mean = f"mean over {way_words(protocol.aggregate, both=protocol.with_background)} IoU"
    rule = f"predicted where {_compared(protocol)}"
    parts = [mean, rule, f"score: {protocol.scores}", protocol.text, protocol.view]
    if protocol.coverage:
        parts.append(protocol.coverage)
    if protocol.preset:
        parts.append(f"preset {protocol.preset}, changed: {_changes(protocol)}")
        parts.append(f"without: {', '.join(protocol.preset_omits) or 'nothing'}")
    return "; ".join(parts)


def difference_words(own: Protocol, others: Sequence[Protocol]) -> list[str]:
    """Say how a protocol differs from others, as briefly as possible; empty if it does not.

    Args:
        own: On label maps or on points.
        others: Of the same kind.
    """
    told = _ON_LABELS if isinstance(own, ScoreProtocol) else _ON_POINTS
    words = [
        say(own)
        for names, say in told
        if any(getattr(own, name) != getattr(other, name) for other in others for name in names)
    ]
    return [each for each in words if each]


def _rule_words(rule: Background, threshold: float) -> str:
    """Say when a pixel is background."""
    limit = f"{threshold:g}"
    return {
        Background.RAW: f"background where the best sigmoid score < {limit}",
        Background.SOFTMAX: f"background where the best probability < {limit}",
        Background.CONSTANT: f"background where the best score <= {limit}",
        Background.WORDS: f"background where its words win or the best probability < {limit}",
        Background.GROUPVIT: (
            f"background where the best of the five nearest classes, probability among all times "
            f"probability among the five, < {limit} and < the image's best"
        ),
        Background.NONE: "no background rule",
    }[rule]


def _split_words(protocol: ScoreProtocol) -> str:
    """Say which classes count as unseen, and what was taken from the others."""
    if not protocol.unseen:
        return "no unseen classes"
    lowered = f"scores of seen classes lowered by {protocol.seen_offset:g}"
    many = len(protocol.unseen)
    return f"{many} unseen classes, {lowered if protocol.seen_offset else 'no offset'}"


def _compared(protocol: PointProtocol) -> str:
    value = {
        Binarise.SCORE: "the score",
        Binarise.MIN_MAX: "the score, stretched to [0, 1] over the image,",
    }[protocol.binarise]
    return f"{value} is {'>' if protocol.strict else '>='} {protocol.threshold:g}"


def _changes(protocol: Protocol) -> str:
    return ", ".join(protocol.preset_changes) or "nothing"


def _way(protocol: Protocol) -> str:
    """The preset with its changes, or the rule where there is none."""
    if protocol.preset:
        changed = f" (changed: {_changes(protocol)})" if protocol.preset_changes else ""
        return f"{protocol.preset}{changed}"
    if isinstance(protocol, PointProtocol):
        return _compared(protocol)
    return f"{protocol.background_rule.value} {protocol.threshold:g}"


def _unless_preset(name: str) -> Callable[[Any], str]:
    """A field that the preset fixes, where there is none."""
    return lambda protocol: "" if protocol.preset else getattr(protocol, name)


_PRESET = ("preset", "preset_changes", "threshold")
_ON_BOTH: tuple[_Told, ...] = (
    (("benchmark",), lambda protocol: protocol.benchmark),
    (("split",), lambda protocol: f"split {protocol.split}"),
    (("num_images",), lambda protocol: f"{protocol.num_images:,} images"),
    (("text",), _unless_preset("text")),
    (("view",), _unless_preset("view")),
)
_ON_LABELS: tuple[_Told, ...] = (
    *_ON_BOTH,
    ((*_PRESET, "background_rule"), _way),
    (("unseen", "seen_offset"), _split_words),
    (("average",), lambda protocol: f"mean over the {protocol.average}"),
    (("truth",), lambda protocol: f"truth: {protocol.truth}"),
    (("class_names",), lambda protocol: f"{len(protocol.class_names):,} classes"),
    (("background",), lambda p: f"{'with' if p.background else 'without'} background"),
)
_ON_POINTS: tuple[_Told, ...] = (
    *_ON_BOTH,
    ((*_PRESET, "binarise", "strict"), _way),
    (
        ("aggregate", "with_background"),
        lambda protocol: way_words(protocol.aggregate, both=protocol.with_background),
    ),
    (("coverage",), lambda protocol: protocol.coverage),
    (("candidates",), lambda protocol: f"candidates {protocol.candidates.value}"),
    (("scores",), _unless_preset("scores")),
    (("num_classes",), lambda protocol: f"{protocol.num_classes:,} classes"),
)
