"""The table of words."""

from collections.abc import Mapping, Sequence

from flows.student_page.looking import WordRow

_HEADS = ("area", "pixels", "mean score", "best score")


def table_heads(names: Sequence[str]) -> list[str]:
    """What stands above the columns; of several students each has its own."""
    several = len(names) > 1
    return [
        "word",
        *(f"{head}, {name}" if several else head for name in names for head in _HEADS),
    ]


def table_cells(found: Mapping[str, Sequence[WordRow]]) -> list[list[str]]:
    """A line a word.

    Args:
        found: For each student, by name, all words in the same order.
    """
    return [
        [own[0].word, *(cell for row in own for cell in _cells(row))]
        for own in zip(*found.values(), strict=True)
    ]


def _cells(row: WordRow) -> tuple[str, ...]:
    mean = "" if row.mean_score is None else f"{row.mean_score:.3f}"
    return f"{row.share:.1%}", f"{row.area:,}", mean, f"{row.best_score:.3f}"
