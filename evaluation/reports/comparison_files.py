"""Files of a comparison of labellers: JSON, Markdown, a picture, and a page with all of it."""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.reports.ablation_tables import Spread, spread_words
from evaluation.reports.comparisons import Comparison, LabelledSet
from evaluation.reports.page_templates import page_template
from evaluation.reports.sheets import LabelledScene, draw_labelled
from storage.files import write_whole
from storage.tables import read_table

COMPARISON_JSON = "comparison.json"
COMPARISON_MARKDOWN = "comparison.md"
COMPARISON_PAGE = "comparison.html"
COMPARISON_PICTURE = "comparison.png"

_TILE = 128
_PUBLISHED_TABLE = "IV"
_NOTES = (
    "IoU with the first labeller: over the samples that both datasets have, class by class; the "
    "pictures are the same, painted once. Uncertain pixels are left out.",
    "IoU with exact masks: on drawn scenes, which are labelled like painted ones; a labeller that "
    "reads attention is given where the painter looks when it is shown them, noised.",
    "Scores in percent: each seed, their mean, and in brackets the sample standard deviation. A "
    "seed is other pictures and another training; the benchmarks stay.",
)
_PUBLISHED_NOTE = (
    "Published: table IV of MagicSeg (arXiv 2603.19575), one run each; not measured here, and "
    "other data, models and benchmarks."
)


@dataclass(frozen=True)
class TextTable:
    """A table of texts.

    Attributes:
        title: What it shows.
        heads: Of its columns.
        rows: From top to bottom.
    """

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def comparison_grids(comparison: Comparison) -> list[TextTable]:
    """All tables: what was labelled, what was learned, and what was published."""
    return [_labels(comparison), _learned(comparison), _published()]


def format_comparison(comparison: Comparison) -> str:
    """The tables as Markdown."""
    parts = [_markdown(grid) for grid in comparison_grids(comparison)]
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in _notes(comparison))]) + "\n"


def write_comparison(comparison: Comparison, scenes: Sequence[LabelledScene], folder: Path) -> Path:
    """Write a comparison; each file appears whole or not at all.

    Args:
        comparison: Results, as far as they are.
        scenes: The same pictures with each labeller's masks; may be none.
        folder: Where the files go.

    Returns:
        The page.
    """
    write_whole(folder / COMPARISON_JSON, comparison.model_dump_json(indent=1).encode() + b"\n")
    write_whole(folder / COMPARISON_MARKDOWN, format_comparison(comparison).encode())
    picture = draw_labelled(scenes, comparison.labellers, tile=_TILE) if scenes else b""
    if picture:
        write_whole(folder / COMPARISON_PICTURE, picture)
    page = folder / COMPARISON_PAGE
    write_whole(page, _page(comparison, picture).encode())
    return page


def _labels(comparison: Comparison) -> TextTable:
    heads = (
        "labeller",
        "seed",
        "samples",
        "dropped",
        f"in {comparison.labellers[0]}'s too",
        "IoU with these",
        "IoU with exact masks, one thing",
        "two things",
        "seconds a sample",
    )
    rows = [
        _label_row(each)
        for name in comparison.labellers
        for each in comparison.sets
        if each.labeller == name
    ]
    return TextTable("What each labeller makes of the same pictures", heads, tuple(rows))


def _label_row(own: LabelledSet) -> tuple[str, ...]:
    dropped = ", ".join(f"{why} {count}" for why, count in sorted(own.dropped.items()))
    return (
        own.labeller,
        str(own.seed),
        f"{own.written} of {own.requested}",
        dropped or "none",
        str(own.common),
        _percent(own.agreement),
        _percent(own.exact),
        _percent(own.exact_two),
        f"{own.seconds:.3f}",
    )


def _learned(comparison: Comparison) -> TextTable:
    heads = ["learns", "from"]
    for name in comparison.benchmarks:
        seeds = ", ".join(map(str, comparison.seeds))
        metric = comparison.metrics.get(name, "mIoU")
        heads += [f"{metric} on {name}, seeds {seeds}", "mean (sd)"]
    rows: list[tuple[str, ...]] = []
    for subject in comparison.subjects:
        for labeller in comparison.labellers:
            cells = [subject, labeller]
            for name in comparison.benchmarks:
                cells += spread_words(_spread(comparison, subject, labeller, name))
            rows.append(tuple(cells))
    return TextTable("What is learned from it", tuple(heads), tuple(rows))


def _spread(comparison: Comparison, subject: str, labeller: str, benchmark: str) -> Spread:
    by_seed = {
        each.seed: each
        for each in comparison.trained
        if (each.subject, each.labeller) == (subject, labeller)
    }
    own = [by_seed[seed] for seed in comparison.seeds]
    return Spread(
        values=tuple(each.scores.get(benchmark) for each in own),
        states=tuple(each.state for each in own),
    )


def _published() -> TextTable:
    rows = tuple(
        (row["method"], row["dataset"], row["value"] or "-", row["notes"])
        for row in read_table("published_results.csv")
        if row["table"] == _PUBLISHED_TABLE
    )
    return TextTable("Published", ("network", "benchmark", "mIoU", "trained on"), rows)


def _notes(comparison: Comparison) -> Iterator[str]:
    yield from (*_NOTES, _PUBLISHED_NOTE)
    for each in comparison.unfinished:
        what = f"{each.subject} on {each.labeller}, seed {each.seed}"
        yield f"{each.state}: {what}{f': {each.error}' if each.error else ''}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _markdown(grid: TextTable) -> str:
    lines = [f"### {grid.title}", "", _line(grid.heads), "|" + "---|" * len(grid.heads)]
    return "\n".join([*lines, *map(_line, grid.rows)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _page(comparison: Comparison, picture: bytes) -> str:
    return page_template("comparison.html.jinja").render(
        comparison=comparison,
        grids=comparison_grids(comparison),
        notes=list(_notes(comparison)),
        picture=f"data:image/png;base64,{b64encode(picture).decode()}" if picture else "",
    )
