"""The report: one self-contained HTML page about a dataset and the runs made from it.

The page fetches nothing: pictures are data URIs, charts are inline SVG, and every text from outside
is escaped. A section without data says what is missing and which command makes it.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain
from pathlib import Path

from evaluation.reports.boards import Scored, make_boards
from evaluation.reports.close_ups import CloseUps, WithoutImages, make_close_ups
from evaluation.reports.costs import dataset_costs, run_costs
from evaluation.reports.dataset_facts import describe_dataset
from evaluation.reports.gallery import quadruplet_card
from evaluation.reports.left_out import describe_left_out
from evaluation.reports.markdown import format_page
from evaluation.reports.page_contents import Page
from evaluation.reports.page_templates import page_template
from evaluation.reports.point_boards import make_point_boards
from evaluation.reports.predictions import make_predictions
from evaluation.reports.sheets import pick_samples
from evaluation.reports.text_quality import (
    TEXT_HEADS,
    TextQuality,
    measure_texts,
    texts_of,
)
from evaluation.reports.tiles import Tile, score_tiles
from evaluation.reports.training_curves import draw_training
from evaluation.reports.two_runs import RunParts, TwoRuns, compare_two_runs
from evaluation.reports.yields import Yields, count_yields
from evaluation.scoring.image_counts import BY_IMAGE_AGAIN
from evaluation.scoring.measured import read_measured
from evaluation.scoring.point_results import PointScores
from storage.card import known_class_names
from storage.corrections import count_corrected
from storage.errors import InputError
from storage.files import write_whole
from storage.locks import hold_file
from storage.metrics import METRICS_FILE, MetricsRow, read_metrics
from storage.shards import Sample
from storage.store import Store
from storage.vocabulary import load_vocabulary

MAX_PAGE_BYTES = 3_000_000
"""Largest page; its pictures are made smaller until it fits."""

MAX_MARKDOWN_BYTES = 1_000_000
"""Largest report in Markdown: Prefect keeps it in its database."""

_SIDES = (224, 160, 112, 72)
_NUM_QUADRUPLETS = 18
_TEXT_SHARDS = 8
_COMMANDS = {
    "generate": "magicseg generate",
    "train": "magicseg train",
    "evaluate": "magicseg evaluate",
    "verify": "magicseg verify",
    "by_image": BY_IMAGE_AGAIN,
    "exclude": "magicseg exclusions add",
    "undo": "magicseg exclusions undo",
    "rank": "magicseg rank",
}


@dataclass
class _Sources:
    """Everything that was read before anything is drawn."""

    title: str
    store: Store | None
    samples: list[Sample]
    yields: Yields | None
    texts: tuple[TextQuality, ...] = ()
    corrected: int = 0
    points: list[PointScores] = field(default_factory=list)
    runs: list[RunParts] = field(default_factory=list)
    compared: bool = False
    close_ups: tuple[list[CloseUps], WithoutImages] = field(
        default_factory=lambda: ([], WithoutImages([]))
    )

    @property
    def scored(self) -> list[Scored]:
        """The scores of all runs on label maps."""
        return [each for run in self.runs for each in run.scored]

    @property
    def metrics(self) -> list[tuple[str, Sequence[MetricsRow]]]:
        """The training logs of all runs."""
        return [each for run in self.runs for each in run.metrics]


def write_report(
    dataset_root: str | Path | None,
    runs: Sequence[Path],
    out: Path,
    *,
    title: str = "",
    compare: Path | None = None,
) -> Path:
    """Write the report of a dataset and of the runs made from it.

    Args:
        dataset_root: Path or URL of a dataset; None for a report about runs alone.
        runs: Folders with `metrics.jsonl` and `scores-*.json`, in any depth.
        out: The HTML file to write; it is smaller than `MAX_PAGE_BYTES`.
        title: Heading of the page; the dataset's name when empty.
        compare: Another run that the only one is put side by side with.

    Returns:
        The file.

    Raises:
        InputError: If there is no dataset at the root, a run folder does not exist or holds nothing
            of a run, something else than a page is called like the file to write, or there is not
            exactly one other run to compare with.
        DataError: If a shard, a scores file or a metrics file cannot be read.
        LeaseHeldError: If somebody else writes the same file.
    """
    target = Path(os.path.realpath(out))  # a link stays one
    _check_target(target)
    with hold_file(target):
        sources = _read_sources(dataset_root, runs, title, compare)
        sources.close_ups = make_close_ups(sources.scored)
        _write_page(sources, target)
    return out


def format_report(
    dataset_root: str | Path | None,
    runs: Sequence[Path],
    *,
    title: str = "",
    max_bytes: int = MAX_MARKDOWN_BYTES,
) -> str:
    """The report as Markdown, for places that show no HTML: tables, and pictures as data URIs.

    Args:
        dataset_root: As `write_report` takes it.
        runs: As `write_report` takes them.
        title: As `write_report` takes it.
        max_bytes: Largest text; pictures are made smaller, then left out, until it fits.

    Raises:
        InputError: As `write_report` raises it.
        DataError: As `write_report` raises it.
    """
    sources = _read_sources(dataset_root, runs, title)
    sources.close_ups = make_close_ups(sources.scored, pictures=False)
    for side in _SIDES:
        text = format_page(_page(sources, side))
        if len(text.encode()) <= max_bytes:
            return text
    return format_page(_page(sources, _SIDES[-1]), pictures=False)


def _write_page(sources: _Sources, out: Path) -> None:
    page = _render(sources, _SIDES[0])
    for side in _SIDES[1:]:
        if len(page.encode()) <= MAX_PAGE_BYTES:
            break
        page = _render(sources, side)
    write_whole(out, page.encode())


def _check_target(out: Path) -> None:
    """Refuse to put a page in the place of something else."""
    if out.is_dir():
        message = f"{out} is a folder, expected the file to write such as {out / 'report.html'}"
        raise InputError(message)
    if out.is_symlink() or (out.exists() and not out.is_file()):
        message = f"{out} is no ordinary file, expected a page or a new name: give another one"
        raise InputError(message)
    if not out.exists():
        return
    with out.open("rb") as file:
        start = file.read(1000).lstrip().lower()
    if start and not start.startswith((b"<!doctype html", b"<html")):
        message = f"{out} is there and is no HTML page; it would be replaced: give another name"
        raise InputError(message)


def _read_sources(
    root: str | Path | None, runs: Sequence[Path], title: str, compare: Path | None = None
) -> _Sources:
    if compare is not None:
        if len(runs) != 1:
            message = f"two runs can be compared, and {len(runs)} came beside {compare}: give one"
            raise InputError(message)
        runs = [*runs, compare]
    store = None if root is None else Store.open(root)
    name = title or (str(root).rstrip("/").rsplit("/", 1)[-1] if root else "Runs")
    sources = _Sources(
        title=name, store=store, samples=[], yields=None, compared=compare is not None
    )
    if store is not None:
        shards = store.shards()
        manifests = (store.manifest(shard.commit) for shard in shards)
        # what the stages made, whatever people have corrected since
        sources.yields = count_yields(chain.from_iterable(manifests))
        sources.corrected = sum(count_corrected(store).values())
        sources.texts = _measure(store)
        sources.samples = pick_samples(store, _NUM_QUADRUPLETS)
    for run, label in zip(runs, _run_names(runs), strict=True):
        parts, points = _read_run(run, label)
        sources.runs.append(parts)
        sources.points += points
    return sources


def _run_names(runs: Sequence[Path]) -> list[str]:
    """The names of folders, with as much of their paths as tells them apart."""
    places = [run.absolute() for run in runs]
    for depth in range(1, max((len(place.parts) for place in places), default=1) + 1):
        names = ["/".join(place.parts[-depth:]) for place in places]
        if len(set(names)) == len(set(places)):
            return names
    return [str(place) for place in places]


def _read_run(run: Path, name: str) -> tuple[RunParts, list[PointScores]]:
    """What a run holds; scores on points apart."""
    if not run.is_dir():
        message = f"{run} is not a folder, expected a run with {METRICS_FILE} or scores"
        raise InputError(message)
    measured = sorted(run.rglob("scores-*.json"))
    curves = sorted(run.rglob(METRICS_FILE))
    if not measured and not curves:
        message = (
            f"{run} holds neither {METRICS_FILE} nor scores, expected the folder of a run: "
            "train or evaluate first, or give another folder"
        )
        raise InputError(message)
    scored: list[Scored] = []
    points: list[PointScores] = []
    for path in measured:
        scores = read_measured(path)
        if isinstance(scores, PointScores):
            points.append(scores)
        else:
            scored.append(Scored(scores, path.parent))
    metrics = [
        (str(path.parent.relative_to(run.parent)), read_metrics(path.parent)) for path in curves
    ]
    return RunParts(name, run, scored, metrics), points


def _measure(store: Store) -> tuple[TextQuality, ...]:
    """Measure the texts of some shards from all over the dataset."""
    shards = store.shards()
    step = -(-len(shards) // _TEXT_SHARDS) or 1
    rows = chain.from_iterable(store.manifest(shard.commit) for shard in shards[::step])
    try:
        vocabulary = load_vocabulary(store.vocabulary)
    except InputError:  # one that this version does not know
        vocabulary = None
    return measure_texts(texts_of(rows), vocabulary)


def _render(sources: _Sources, side: int) -> str:
    template = page_template("report.html.jinja")
    return template.render(page=_page(sources, side), text_heads=TEXT_HEADS)


def _compared(sources: _Sources, side: int) -> TwoRuns | None:
    if not sources.compared:
        return None
    first, second = sources.runs
    return compare_two_runs(first, second, side)


def _page(sources: _Sources, side: int) -> Page:
    dataset = None
    if sources.store is not None and sources.yields is not None:
        dataset = describe_dataset(sources.store, sources.yields, sources.texts)
    names = known_class_names(sources.store) if sources.store is not None else {}
    predictions, classes = make_predictions(sources.scored, side)
    close_ups, without_images = sources.close_ups
    left_out = None if sources.store is None else describe_left_out(sources.store)
    costs = [None if sources.store is None else dataset_costs(sources.store)]
    costs.append(run_costs(sources.metrics, sources.scored))
    dataset_tiles = [] if dataset is None else [*dataset.tiles]
    if left_out is not None and left_out.samples:
        dataset_tiles.append(Tile(f"{left_out.samples:,}", "of them excluded"))
    if sources.corrected:
        dataset_tiles.append(Tile(f"{sources.corrected:,}", "masks corrected by people"))
    made = datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC")
    return Page(
        title=sources.title,
        subtitle=dataset.root if dataset else "No dataset, runs only.",
        made=f"Made {made} by MagicSeg Engine {version('magicseg-engine')}.",
        tiles=[
            *dataset_tiles,
            *score_tiles([each.scores for each in sources.scored]),
        ],
        commands=_COMMANDS,
        dataset=dataset,
        quadruplets=[quadruplet_card(sample, side, names) for sample in sources.samples],
        benchmarks=make_boards(sources.scored),
        points=make_point_boards(sources.points),
        predictions=predictions,
        prediction_classes=classes,
        close_ups=close_ups,
        without_images=without_images,
        left_out=left_out,
        costs=[each for each in costs if each is not None],
        two_runs=_compared(sources, side),
        trainings=[draw_training(name, rows) for name, rows in sources.metrics if rows],
    )
