"""What the page says in HTML; whatever comes from outside is escaped."""

import html
from collections.abc import Mapping, Sequence

from evaluation.reports.sheets import class_colour
from flows.student_page.looking import WordRow


def note(text: str, *, wrong: bool = False) -> str:
    """A line of text above the pictures."""
    kind = ' class="wrong" role="alert"' if wrong else ""
    return f"<p{kind}>{html.escape(text)}</p>" if text else ""


def words_table(found: Mapping[str, Sequence[WordRow]]) -> str:
    """The words with what each student found of them.

    Args:
        found: For each student, by name, all words in the same order.
    """
    several = len(found) > 1
    heads = ["word"]
    for name in found:
        of = f", {name}" if several else ""
        heads += [f"area{of}", f"pixels{of}", f"mean score{of}", f"best score{of}"]
    head = "".join(f'<th scope="col">{html.escape(each)}</th>' for each in heads)
    lines = [
        f"<tr><td>{_swatch(own[0].label)}{html.escape(own[0].word)}</td>"
        f"{''.join(map(_cells, own))}</tr>"
        for own in zip(*found.values(), strict=True)
    ]
    return (
        f'<table class="words-table"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _swatch(label: int) -> str:
    red, green, blue = class_colour(label)
    return f'<span class="swatch" style="background:rgb({red},{green},{blue})"></span>'


def _cells(row: WordRow) -> str:
    kind = "" if row.area else ' class="none"'
    mean = "" if row.mean_score is None else f"{row.mean_score:.3f}"
    values = (f"{row.share:.1%}", f"{row.area:,}", mean, f"{row.best_score:.3f}")
    return "".join(f"<td{kind}>{value}</td>" for value in values)
