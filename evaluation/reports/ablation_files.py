"""Files of an ablation: its results as JSON, its tables with yields and notes as Markdown."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from evaluation.reports.ablation_tables import (
    Table,
    make_tables,
    spread_words,
    switch_words,
)
from evaluation.reports.ablations import Ablation
from storage.files import write_whole

JSON_NAME = "ablation.json"
MARKDOWN_NAME = "ablation.md"

_PUBLISHED_NOTE = (
    "published: mIoU on COCO-Object in tables V and VI of MagicSeg (arXiv 2603.19575), one run "
    "each, on 40k (V) and 380k (VI) quadruplets of 1,205 classes; not measured here, and other "
    "data, models and benchmark"
)

_NOT_TOLD = frozenset({"benchmark", "split", "class_names"})
"""Fields of a protocol that its name says already, or that are too long for a line."""


def format_ablation(ablation: Ablation) -> str:
    """All tables of a grid, with the yields and the protocol, as Markdown."""
    parts = [_format_table(ablation, table) for table in make_tables(ablation)]
    parts += [_format_yields(ablation), "\n".join(_notes(ablation))]
    return "\n\n".join(parts) + "\n"


def write_ablation(ablation: Ablation, folder: Path) -> tuple[Path, Path]:
    """Write a grid as JSON and as Markdown; each file appears whole or not at all.

    Returns:
        The two files.
    """
    files = (folder / JSON_NAME, folder / MARKDOWN_NAME)
    texts = (ablation.model_dump_json(indent=1) + "\n", format_ablation(ablation))
    for path, text in zip(files, texts, strict=True):
        write_whole(path, text.encode())
    return files


def _format_table(ablation: Ablation, table: Table) -> str:
    seeds = ", ".join(map(str, ablation.seeds))
    heads = [*table.heads]
    for name in ablation.benchmarks:
        heads += [f"{name}, seed{'s' if len(ablation.seeds) > 1 else ''} {seeds}", "mean (sd)"]
    rule = "---|" * len(table.heads) + "---|---:|" * len(ablation.benchmarks) + "---:|"
    lines = [f"### {table.title}", "", _line([*heads, "published"]), f"|{rule}"]
    for row in table.rows:
        cells = list(row.labels)
        for spread in row.spreads:
            cells += spread_words(spread, "+" if table.signed else "")
        sign = "+" if table.signed else ""
        lines.append(_line([*cells, ", ".join(f"{value:{sign}.1f}" for value in row.published)]))
    return "\n".join(lines)


def _format_yields(ablation: Ablation) -> str:
    lines = ["### What the runs were trained on", ""]
    lines += [_line(["prompts", "seed", "samples written", "dropped"]), "|---|---:|---:|---|"]
    for each in ablation.datasets:
        dropped = ", ".join(f"{why} {count}" for why, count in sorted(each.dropped.items()))
        written = f"{each.written} of {each.requested}"
        lines.append(_line([each.prompts, str(each.seed), written, dropped or "none"]))
    return "\n".join(lines)


def _notes(ablation: Ablation) -> Iterator[str]:
    count = f"{len(ablation.seeds)} seed{'s' if len(ablation.seeds) > 1 else ''}"
    yield (
        f"- in percent at {count}: each, their mean, and in brackets the sample standard "
        "deviation; the seed changes dataset and training, the benchmarks stay"
    )
    for name, protocol in ablation.protocols.items():
        told = "; ".join(
            f"{key.replace('_', ' ')}: {value}"
            for key, value in protocol.items()
            if key not in _NOT_TOLD and value not in ("", [], None)
        )
        yield f"- {ablation.metrics[name]} on {name}: {told}"
    yield f"- {_PUBLISHED_NOTE}"
    for cell in ablation.unfinished:
        arm = cell.arm
        loss = f"loss {switch_words(arm)}"
        what = f"{arm.prompts}, m = {arm.classes_per_image}, {loss}, seed {cell.seed}"
        yield f"- {cell.state}: {what}{f': {cell.error}' if cell.error else ''}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
