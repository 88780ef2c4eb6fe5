"""What a training run shows in Prefect's user interface: how far it is, its scores, its report."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from evaluation.reports.page import format_report
from evaluation.scoring.measured import Measured, headline
from evaluation.scoring.results import Scores
from flows.durations import duration_text
from flows.live_page import Pace, live_artifact
from storage.metrics import MetricsRow, last_metrics
from tasks.training import StudentTraining

_TRAINED_KINDS = frozenset({"student", "closed-set"})


@contextmanager
def shown_training(step: StudentTraining) -> Iterator[None]:
    """Keep an artifact with the progress of a training up to date until the block ends.

    The training is in another process; what it has logged so far is read from its folder.
    """
    steps, folder = step.config.optimiser.steps, step.folder

    def share(row: MetricsRow | None) -> float:
        return 0.0 if row is None else min(1.0, (row["step"] + 1) / steps)

    pace = Pace.now(share(last_metrics(folder)))

    def look() -> tuple[float, str]:
        row = last_metrics(folder)
        return 100 * share(row), _progress_text(row, steps, share(row), pace)

    with live_artifact("magicseg-training", look):
        yield


def _progress_text(row: MetricsRow | None, steps: int, share: float, pace: Pace) -> str:
    if row is None:
        return "no update yet"
    rate = pace.rate(share)
    facts = {
        "update": f"{row['step'] + 1:,.0f} of {steps:,}",
        "loss": f"{row['loss']:.4g}" if "loss" in row else "not logged",
        "rate": f"{60 * rate * steps:,.1f} updates a minute" if rate > 0 else "not known yet",
        "time left": duration_text((1 - share) / rate) if rate > 0 else "not known yet",
    }
    return "\n".join(f"* {name}: {value}" for name, value in facts.items())


def publish_scores(measured: Sequence[Measured]) -> None:
    """Show scores as a table, with published numbers marked as such."""
    rows = score_rows(measured)
    if rows:
        description = "Scores in percent. Rows marked published were not measured here."
        create_table_artifact(table=rows, key="magicseg-scores", description=description)


def score_rows(measured: Sequence[Measured]) -> list[dict[str, str]]:
    """Measured scores benchmark by benchmark, each followed by what others published on it, once.

    Published numbers stand beside trained segmenters alone: baselines are other methods.
    """
    by_benchmark: dict[str, list[Measured]] = {}
    for scores in measured:
        name = f"{scores.protocol.benchmark} {scores.protocol.split}"
        by_benchmark.setdefault(name, []).append(scores)
    rows: list[dict[str, str]] = []
    for name, group in by_benchmark.items():
        for scores in group:
            metric, value = headline(scores)
            rows.append(_row(scores.subject.name, name, metric, 100 * value, "measured"))
            rows += [
                _row(scores.subject.name, name, f"mIoU, {own.name}", 100 * own.miou, "measured")
                for own in (scores.groups if isinstance(scores, Scores) else ())
                if own.miou is not None
            ]
        trained = next((s for s in group if s.subject.kind in _TRAINED_KINDS), None)
        if trained is not None:
            metric, where = headline(trained)[0], trained.protocol.benchmark
            rows += [
                _row(each.method, where, metric, each.value, "published")
                for each in trained.published
            ]
            rows += [
                _row(each.method, where, f"mIoU, {group}", value, "published")
                for each in (trained.published_groups if isinstance(trained, Scores) else ())
                for group, value in each.values.items()
            ]
    return rows


def _row(subject: str, benchmark: str, metric: str, percent: float, source: str) -> dict[str, str]:
    return {
        "subject": subject,
        "benchmark": benchmark,
        "metric": metric,
        "percent": f"{percent:.1f}",
        "source": source,
    }


def publish_report(dataset: str | None, run: Path, page: Path) -> None:
    """Show the report in Markdown, which opens wherever the user interface does.

    Args:
        dataset: Root of the dataset; nothing if it is a folder of tars.
        run: Folder of the run.
        page: The report in HTML, whose place is named.
    """
    where = f"The page with charts is `{page.absolute()}` on {socket.gethostname()}."
    create_markdown_artifact(
        markdown=f"{where}\n\n{format_report(dataset, [run])}",
        key="magicseg-report",
        description="Scores, predictions and quadruplets of the run",
    )
