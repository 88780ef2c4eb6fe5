"""Scores and yields as tables for a terminal."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from evaluation.reports.protocol_words import protocol_words
from evaluation.scoring.point_results import PointScores
from evaluation.scoring.points import Aggregate
from evaluation.scoring.results import Scores


def score_table(measured: Sequence[Scores]) -> Table:
    """Scores as a table, with the protocol of each number."""
    table = Table(
        "subject", "benchmark", "mIoU", "foreground", "pixels", "background rule", "images"
    )
    for scores in measured:
        protocol = scores.protocol
        foreground = scores.foreground_miou
        table.add_row(
            scores.subject.name,
            f"{protocol.benchmark} {protocol.split}",
            f"{100 * scores.miou:.1f}",
            "-" if foreground is None else f"{100 * foreground:.1f}",
            f"{100 * scores.pixel_accuracy:.1f}",
            f"{protocol.background_rule.value} {protocol.threshold:g}",
            str(protocol.num_images),
        )
    hows = {
        f"{scores.subject.name} on {scores.protocol.benchmark}: {protocol_words(scores.protocol)}; "
        f"mean over the {scores.protocol.average}"
        for scores in measured
    }
    hows |= {
        f"truth of {scores.protocol.benchmark} {scores.protocol.split}: {scores.protocol.truth}"
        for scores in measured
    }
    warnings = {
        f"Beware, {scores.protocol.benchmark} {scores.protocol.split}: {each}"
        for scores in measured
        for each in scores.warnings
    }
    lines = [*dict.fromkeys(_group_lines(measured)), *sorted(hows), *sorted(warnings)]
    table.caption = Text("\n".join(lines), justify="left")
    return table


def _group_lines(measured: Sequence[Scores]) -> Iterator[str]:
    """Means over groups of classes, in percent with their number; then what others published."""
    for scores in measured:
        found = [
            f"{group.name} {100 * group.miou:.1f} ({group.num_classes:,})"
            for group in scores.groups
            if group.miou is not None
        ]
        if found:
            yield f"{scores.subject.name} on {scores.protocol.benchmark}: {', '.join(found)}"
    for scores in measured:
        for other in scores.published_groups:
            values = ", ".join(f"{name} {value:.1f}" for name, value in other.values.items())
            yield f"{other.method} on {scores.protocol.benchmark}, published: {values}"


def point_table(measured: Sequence[PointScores]) -> Table:
    """Scores on points as a table: the headline, every way to average, and the protocol."""
    ways = [(aggregate, both) for aggregate in Aggregate for both in (False, True)]
    names = [f"{aggregate.value}{' + bg' if both else ''}" for aggregate, both in ways]
    table = Table("subject", "points", "p-mIoU", *names, "rule")
    for scores in measured:
        protocol = scores.protocol
        found = {(each.aggregate, each.with_background): each.p_miou for each in scores.averages}
        shown = [found[way] for way in ways]
        sign = ">" if protocol.strict else ">="
        table.add_row(
            scores.subject.name,
            f"{protocol.benchmark} {protocol.split} ({protocol.num_images:,})",
            f"{100 * scores.p_miou:.1f}",
            *("-" if value is None else f"{100 * value:.1f}" for value in shown),
            f"{protocol.candidates.value}, {protocol.binarise.value} {sign} {protocol.threshold:g}",
        )
    return table


def yield_table(written: int, requested: int, dropped: dict[str, int]) -> Table:
    """Where the samples of a run went, as a table."""
    table = Table("fate", "samples", "share", title=f"{requested} samples")
    for fate, count in [("written", written), *sorted(dropped.items())]:
        table.add_row(fate, str(count), f"{count / max(requested, 1):.0%}")
    return table
