"""Close-ups, exclusions, costs and two runs on the page of a report, each by hand."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.report_page import fabricate_scored_run
from evaluation.reports.boards import Scored
from evaluation.reports.close_ups import make_close_ups
from evaluation.reports.costs import run_costs
from evaluation.reports.page import MAX_PAGE_BYTES, format_report, write_report
from evaluation.scoring.measured import read_measured
from evaluation.scoring.results import Scores, write_scores
from storage.errors import DataError, InputError
from storage.exclusions import (
    append_exclusions,
    exclude_samples,
    include_samples,
    read_exclusions,
)
from storage.store import Store


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs on the same 12 drawn pictures of 4 classes."""
    folder = tmp_path_factory.mktemp("runs")
    names = (folder / "first", folder / "second")
    for seed, name in enumerate(names):
        fabricate_scored_run(name, images=12, classes=4, seed=seed)
    return names


def scored(run: Path) -> Scored:
    [path] = run.rglob("scores-*.json")
    scores = read_measured(path)
    assert isinstance(scores, Scores)
    return Scored(scores, path.parent)


def test_every_class_has_its_best_and_its_worst_images(runs: tuple[Path, Path]) -> None:
    each = scored(runs[0])
    [view], without = make_close_ups([each])
    assert without.names == []
    by_name = {row.name: row.iou for row in each.scores.classes}
    assert [row.name for row in view.classes] == sorted(
        (name for name in by_name if name != "background"), key=lambda name: by_name[name] or 0.0
    )
    for row in view.classes:
        assert 1 <= len(row.worst) <= 3
        assert 1 <= len(row.best) <= 3
        assert not {shot.caption for shot in row.best} & {shot.caption for shot in row.worst}
        ious = [float(shot.caption.rpartition(" ")[2]) for shot in (*row.best, *row.worst[::-1])]
        assert ious == sorted(ious, reverse=True)
        assert [shown.caption for shown in row.best[0].pictures] == ["image", "truth", "prediction"]
    assert view.confused
    assert all(" taken for " in row.words and row.shot is not None for row in view.confused)
    shares = [float(row.share) for row in view.confused]
    assert shares == sorted(shares, reverse=True)
    assert {row.words.partition(" ")[0] for row in view.missed} <= {"kind", "background"}


def test_a_share_of_confused_pixels_is_that_of_the_true_class(tmp_path: Path) -> None:
    run = tmp_path / "run"
    fabricate_scored_run(run, images=6, classes=3)
    each = scored(run)
    from evaluation.scoring.image_counts import read_counts

    files = each.scores.images
    assert files is not None
    matrix = read_counts(each.folder / files.counts, 4).matrix(4)
    [view], _ = make_close_ups([each], pictures=False)
    told = {row.words: row.share for row in view.confused}
    for words, share in told.items():
        true, found = (int(name.removeprefix("kind ")) + 1 for name in words.split(" taken for "))
        assert share == f"{100 * matrix[true, found] / matrix[true].sum():.1f}"
    assert all(row.shot is None for row in view.confused)
    assert [row.true_pixels for row in each.scores.classes] == matrix.sum(axis=1).tolist()


def test_scores_of_an_older_version_say_what_is_missing_and_what_adds_it(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    run = shutil.copytree(runs[0], tmp_path / "run")
    each = scored(run)
    write_scores(each.scores.model_copy(update={"images": None}), each.folder)
    page = write_report(None, [run], tmp_path / "r.html").read_text()
    assert "No single image is known of student on drawn val" in page
    assert "magicseg evaluate --run RUN --root BENCHMARK --by-image" in page
    assert "--by-image" in format_report(None, [run])
    # and the same where the files beside the scores are gone
    write_scores(each.scores, each.folder)
    for file in each.folder.glob("pictures-*"):
        file.unlink()
    assert "No single image is known" in write_report(None, [run], tmp_path / "r.html").read_text()


def test_a_damaged_file_beside_the_scores_is_named(runs: tuple[Path, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs[0], tmp_path / "run")
    [file] = run.rglob("pictures-*")
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"pictures-drawn-val-student\.parquet .*--by-image"):
        write_report(None, [run], tmp_path / "r.html")


def test_two_runs_stand_side_by_side(runs: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = (scored(run).scores for run in runs)
    page = write_report(None, [runs[0]], tmp_path / "r.html", compare=runs[1])
    assert page.stat().st_size < MAX_PAGE_BYTES
    text = page.read_text()
    assert "first and second</h2>" in text
    assert f"{100 * (second.miou - first.miou):+.1f}" in text
    assert f"{100 * first.miou:.1f}" in text
    assert "first has no checkpoint, so that its parameters are not known." in text
    assert text.count("mean IoU of its classes") == 8
    assert text.count("<h4>loss</h4>") == 3  # of each run, and of both


def write_checkpoint(run: Path, **config: object) -> None:
    folder = run / "checkpoints" / "step-00000001"
    folder.mkdir(parents=True)
    meta = {"config": {"optimiser": config, "seed": 1}, "dataset": {"digest": "d"}}
    (folder / "checkpoint.json").write_text(json.dumps({"meta": meta, "step": 1}))


def test_parameters_that_differ_are_told(runs: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = (shutil.copytree(run, tmp_path / run.name) for run in runs)
    write_checkpoint(first, steps=100, rate="<b>")
    write_checkpoint(second, steps=200, rate="<b>", momentum=0.9)
    text = write_report(None, [first], tmp_path / "r.html", compare=second).read_text()
    assert "2 parameters differ, 4 are the same" in text
    assert 'optimiser.steps</td><td title="100">100</td><td title="200">200</td>' in text
    assert "optimiser.momentum" in text
    assert '<b>"' not in text
    (second / "checkpoints" / "step-00000001" / "checkpoint.json").write_text('{"meta": []}')
    with pytest.raises(DataError, match=r"checkpoint\.json holds no run"):
        write_report(None, [first], tmp_path / "r.html", compare=second)


def test_other_benchmarks_and_other_protocols_are_not_compared_in_silence(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    other = shutil.copytree(runs[1], tmp_path / "other")
    each = scored(other)
    protocol = each.scores.protocol.model_copy(update={"threshold": 0.3})
    write_scores(each.scores.model_copy(update={"protocol": protocol}), each.folder)
    text = write_report(None, [runs[0]], tmp_path / "r.html", compare=other).read_text()
    assert "Beware: the second was measured in another way: raw 0.3." in text
    protocol = each.scores.protocol.model_copy(update={"split": "test"})
    (each.folder / each.scores.file_name).unlink()
    write_scores(each.scores.model_copy(update={"protocol": protocol}), each.folder)
    text = write_report(None, [runs[0]], tmp_path / "r.html", compare=other).read_text()
    assert "Both runs were scored on no common benchmark." in text
    assert "drawn val, student: first alone; drawn test, student: other alone" in text
    with pytest.raises(InputError, match="two runs can be compared, and 2 came beside"):
        write_report(None, [runs[0], runs[1]], tmp_path / "r.html", compare=other)


def test_exclusions_stand_on_the_page_with_their_reasons(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_dataset()
    text = write_report(root, [], tmp_path / "r.html").read_text()
    assert "Nothing is excluded." in text
    store = Store.open(root)
    keys = [
        row.key
        for shard in store.shards()
        for row in store.manifest(shard.commit)
        if row.status == "written"
    ]
    exclude_samples(store, keys[:3], who="ann", why="half a <cat>")
    exclude_samples(store, keys[3:4], who="ann", why="torn")
    include_samples(store, keys[:1], who="bob", why="whole")
    line = read_exclusions(store.objects)[0]
    append_exclusions(store.objects, [line.model_copy(update={"key": "0" * 16})])  # not packed yet
    text = write_report(root, [], tmp_path / "r.html").read_text()
    assert "3 of 14 written samples are excluded" in text
    assert 'half a &lt;cat&gt;</td><td class="num">2</td>' in text
    assert 'torn</td><td class="num">1</td>' in text
    assert keys[1] in text
    assert "0" * 16 not in text
    assert "<b>3</b><span>of them excluded</span>" in text
    markdown = format_report(root, [])
    assert "3 written samples are excluded." in markdown
    assert "| hand | torn | 1 |" in markdown


def test_costs_are_what_was_recorded_and_nothing_else() -> None:
    log = [{"step": 1, "seconds": 0.5}, {"step": 2}, {"step": 3, "seconds": 1.0}]
    found = run_costs([("one", log), ("two", [{"step": 1}])], [])
    assert found is not None
    assert found.rows == [
        ("training of one", "1.5 s of 2 steps of 3"),
        ("training of two", "not recorded"),
    ]
    assert run_costs([], []) is None
