"""A report as Markdown: tables, and pictures as data URIs; charts are left to the page.

Every text from outside is escaped, so that it is neither markup nor a cell of its own.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from evaluation.reports.dataset_facts import DatasetFacts
from evaluation.reports.gallery import Picture, Piece
from evaluation.reports.page_contents import Page
from evaluation.reports.text_quality import TEXT_HEADS
from evaluation.scoring.results import PublishedResult

_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#!~&$])")
_QUADRUPLETS = 6
_PUBLISHED = "published, not measured here"


def format_page(page: Page, *, pictures: bool = True) -> str:
    """Write a report as Markdown.

    Args:
        page: What it says.
        pictures: Whether it shows any.
    """
    parts = [
        f"# {escaped(page.title)}",
        escaped(page.subtitle),
        "\n".join(f"* **{escaped(tile.value)}** {escaped(tile.label)}" for tile in page.tiles),
        *_scores(page),
        *(_predictions(page) if pictures else ()),
        *_confusions(page),
        *_trainings(page),
        *(_quadruplets(page) if pictures else ()),
        *(_yield(page.dataset) if page.dataset else ()),
        *_left_out(page),
        *_costs(page),
        escaped(page.made),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(text: str) -> str:
    """A text as Markdown shows it, on one line."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


def _scores(page: Page) -> Iterator[str]:
    if not page.benchmarks and not page.points:
        yield f"No scores. `{page.commands['evaluate']}` makes them."
    for board in page.benchmarks:
        yield f"## Scores on {escaped(board.title)}"
        yield escaped(board.note)
        rows = [(r.name, r.kind, r.miou, r.foreground, r.accuracy) for r in board.rows]
        yield _score_table(["mIoU", "foreground", "pixel accuracy"], rows, board.published)
        if board.groups:
            cells = [(row.name, *row.mious) for row in board.groups]
            yield _table(
                ["group of classes", *board.group_columns], cells, numbers=len(board.group_columns)
            )
        for row in board.rows:
            yield f"* {escaped(row.name)}: {escaped(row.protocol)}"
        for note in board.group_notes:
            yield f"* {escaped(note)}"
    for board in page.points:
        yield f"## Scores on {escaped(board.title)}"
        yield escaped(board.note)
        rows = [(row.name, row.kind, row.p_miou, *row.averages) for row in board.rows]
        yield _score_table(["p-mIoU", *board.ways], rows, board.published)
        for row in board.rows:
            yield f"* {escaped(row.name)}: {escaped(row.protocol)}"


def _score_table(
    values: Sequence[str], rows: Sequence[Sequence[str]], published: Iterable[PublishedResult]
) -> str:
    """Measured rows, then published ones, which have the first value alone."""
    blank = ["-"] * (len(values) - 1)
    others = [[each.method, _PUBLISHED, f"{each.value:.1f}", *blank] for each in published]
    return _table(["what", "kind", *values], [*rows, *others], numbers=len(values))


def _predictions(page: Page) -> Iterator[str]:
    if not page.predictions:
        return
    yield "## Predictions"
    heads = [picture.caption for picture in page.predictions[0].pictures]
    yield _picture_table(heads, [row.pictures for row in page.predictions])


def _confusions(page: Page) -> Iterator[str]:
    for view in page.close_ups:
        rows = [(row.words, row.share) for row in (*view.confused, *view.missed)]
        if rows:
            yield f"## Taken for something else: {escaped(view.subject)} on {escaped(view.title)}"
            yield _table(["what", "% of the true pixels"], rows, numbers=1)
    if page.without_images.names:
        names = escaped(", ".join(page.without_images.names))
        again = page.commands["by_image"]
        yield (
            f"No single image is known of {names}: an older version scored it, or the files beside "
            f"the scores are gone. `{again}`"
        )


def _left_out(page: Page) -> Iterator[str]:
    if page.left_out is not None and page.left_out.samples:
        yield "## Left out"
        yield f"{page.left_out.samples:,} written samples are excluded."
        rows = [(row.by, row.why, f"{row.samples:,}") for row in page.left_out.reasons]
        yield _table(["by", "why", "samples"], rows, numbers=1)


def _costs(page: Page) -> Iterator[str]:
    for table in page.costs:
        yield f"## Costs: {escaped(table.title)}"
        yield _table(table.heads, table.rows, numbers=len(table.heads) - 1)
        yield "\n".join(f"* {escaped(note)}" for note in table.notes)


def _trainings(page: Page) -> Iterator[str]:
    for run in page.trainings:
        yield f"## Training: {escaped(run.name)}"
        yield escaped(run.note.partition(" Thin")[0])
        yield _table(["what", "values"], [(chart.title, chart.note) for chart in run.charts])


def _quadruplets(page: Page) -> Iterator[str]:
    shown = page.quadruplets[:_QUADRUPLETS]
    if not shown:
        return
    yield "## Quadruplets"
    lines = [_line(["image", "counterfactual", "masks", "text"]), "|---|---|---|---|"]
    for card in shown:
        pictures = map(_picture, (card.image, card.counterfactual, card.overlay))
        texts = [_joined(card.text), _joined(card.counterfactual_text)]
        lines.append(_line([*pictures, "<br>".join(map(escaped, texts))]))
    yield "\n".join(lines)


def _yield(dataset: DatasetFacts) -> Iterator[str]:
    counts = dataset.yields
    yield "## Yield"
    yield (
        f"{counts.requested:,} requested = {counts.written:,} written + {counts.rejected:,} "
        f"rejected + {counts.failed:,} failed"
    )
    if counts.reasons:
        rows = [(str(stage), str(why), f"{count:,}") for stage, why, count in counts.reasons]
        yield _table(["stage", "reason", "samples"], rows, numbers=1)
    if dataset.texts:
        yield "## Texts"
        numbers = len(TEXT_HEADS) - 1
        yield _table(TEXT_HEADS, (text.cells for text in dataset.texts), numbers=numbers)


def _joined(pieces: Iterable[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def _picture_table(heads: Sequence[str], rows: Sequence[Sequence[Picture]]) -> str:
    lines = [_line(map(escaped, heads)), "|" + "---|" * len(heads)]
    return "\n".join([*lines, *(_line(map(_picture, row)) for row in rows)])


def _picture(picture: Picture) -> str:
    return f"![{escaped(picture.alt)}]({picture.uri})"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """A table whose last so many columns are numbers."""
    rule = "|" + "---|" * (len(heads) - numbers) + "---:|" * numbers
    lines = [_line(map(escaped, heads)), rule]
    return "\n".join([*lines, *(_line(map(escaped, row)) for row in rows)])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
