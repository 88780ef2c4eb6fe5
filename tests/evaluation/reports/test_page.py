"""The self-contained HTML page."""

import json
import resource
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.benchmarks.voc import open_voc
from evaluation.reports.page import MAX_PAGE_BYTES, write_report
from evaluation.scoring.background import ScoreMap
from evaluation.scoring.config import Background, ScoringConfig
from evaluation.scoring.on_labels import score_predictor
from evaluation.scoring.results import PublishedResult, ScoreProtocol, Scores, Subject, write_scores
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark
from storage.codecs import decode_label_map, encode_image, encode_label_map
from storage.errors import DataError, InputError
from storage.shards import Sample

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Collects what the tests ask about, and checks that elements close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.urls: list[str] = []
        self.ids: set[str] = set()
        self.marks: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "srcset", "action", "data"}:
                self.urls.append(value or "")
            if name == "id":
                self.ids.add(value or "")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "mark":
            self.marks.append(data)
        if not self._open or self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


class Cats:
    """Sees a cat everywhere, to a degree."""

    def __init__(self, confidence: float) -> None:
        self.confidence = confidence

    def predict(self, image: np.ndarray, candidates: Sequence[int] | None = None) -> ScoreMap:
        best = np.where(image[..., 0] > 120, self.confidence, 0.1).astype(np.float32)
        return ScoreMap(best, np.full(best.shape, 2, np.int32))


def make_scores(tmp_path: Path, out: Path, subject: Subject, confidence: float = 0.7) -> Scores:
    root = write_benchmark(DrawnBenchmarkConfig(num_train=0, num_val=6, num_test=0), tmp_path / "b")
    benchmark = open_voc(BenchmarkConfig(name="miniature", root=root))
    protocol = ScoreProtocol(
        benchmark="miniature",
        split="val",
        num_images=6,
        truth=benchmark.truth,
        class_names=("background", *benchmark.classes.names),
        background=True,
        background_rule=Background.RAW,
        threshold=0.5,
        text="preferred names in the templates single",
        view="short side 64, whole image",
    )
    return score_predictor(
        Cats(confidence),
        benchmark,
        subject=subject,
        protocol=protocol,
        config=ScoringConfig(num_examples=3),
        out=out,
    )


def make_run(tmp_path: Path, name: str = "run") -> Path:
    run = tmp_path / name
    run.mkdir()
    rows = [{"step": s, "loss": 5 / s, "lr": 1e-4, "seconds": 0.5} for s in range(1, 31)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    subjects = (
        *(
            Subject(
                kind="student",
                name=f"seed {seed}",
                fingerprint=letter * 64,
                details={"steps": "30", "seed": str(seed)},
            )
            for seed, letter in enumerate("ab")
        ),
        Subject(kind="untrained", name="before training", fingerprint="c" * 64),
        Subject(kind="baseline", name="Grounding DINO + SAM", fingerprint="d@1 + e@2"),
    )
    for index, subject in enumerate(subjects):
        make_scores(tmp_path, run / "scores", subject, 0.9 - 0.2 * index)
    return run


@pytest.fixture
def page(make_dataset: Callable[..., Path], tmp_path: Path) -> Page:
    out = write_report(make_dataset(), [make_run(tmp_path)], tmp_path / "out" / "report.html")
    assert out.stat().st_size < MAX_PAGE_BYTES
    return Page(out.read_text(encoding="utf-8"))


def test_the_page_fetches_nothing(page: Page) -> None:
    assert page.urls
    assert all(url.startswith(("data:image/jpeg;base64,", "#")) for url in page.urls)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)


def test_every_section_is_there_and_the_links_inside_lead_somewhere(page: Page) -> None:
    assert {url[1:] for url in page.urls if url.startswith("#")} <= page.ids
    for section in ("quadruplets", "yield", "scores", "predictions", "training", "recipe"):
        assert section in page.ids


def test_texts_show_their_class_mentions_and_what_replaced_them(page: Page) -> None:
    assert {"cat", "bus", "balloon", "nothing"} <= set(page.marks)


def test_the_counts_add_up_on_the_page(page: Page) -> None:
    assert "18 requested = 14 written + 3 rejected + 1 failed" in page.text
    assert "\u2713 adds up" in page.text
    for reason in ("text-too-long", "class-not-found", "writer-failed"):
        assert reason in page.text


def test_every_score_stands_with_its_protocol(page: Page) -> None:
    for name in ("seed 0", "seed 1", "before training", "Grounding DINO + SAM"):
        assert name in page.text
    protocol = "background where the best sigmoid score < 0.5; preferred names in the templates"
    assert page.text.count(protocol) == 4
    assert "6 images, 15 classes with background" in page.text
    assert "mean and deviation of 2" in page.text
    assert "steps 30" in page.text


def test_charts_show_the_training_and_the_thresholds(page: Page) -> None:
    assert page.tags.count("svg") == 3
    assert "30 updates in 15 s" in page.text
    assert "learning rate" in page.text
    assert "in use: 0.5" in page.text


def test_predictions_stand_beside_image_and_truth(page: Page) -> None:
    for caption in ("truth", "student", "untrained", "baseline"):
        assert page.words.count(caption) >= 3


def test_texts_from_outside_are_escaped(page: Page) -> None:
    assert "script" not in page.tags
    assert "<script>alert('spec')</script>" in page.text


def test_numbers_of_others_are_marked_as_published(tmp_path: Path) -> None:
    run = tmp_path / "run"
    subject = Subject(kind="student", name="mine", fingerprint="a")
    scores = make_scores(tmp_path, run, subject)
    other = PublishedResult(table="II", method="GroupViT <18>", value=51.2, notes="CC12M")
    write_scores(scores.model_copy(update={"published": (other,)}), run)
    page = Page(write_report(None, [run], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "GroupViT <18> published, not measured here 51.2" in page.text
    assert "table II; CC12M" in page.text


def test_an_empty_page_says_which_commands_fill_it(tmp_path: Path) -> None:
    page = Page(write_report(None, [], tmp_path / "r.html").read_text(encoding="utf-8"))
    for command in ("magicseg generate", "magicseg train", "magicseg evaluate"):
        assert command in page.text


def test_a_dataset_without_runs_and_without_samples_still_gives_a_page(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_dataset(shards=1, planned=4, dropped=4)
    page = Page(write_report(root, [], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "4 requested = 0 written + 3 rejected + 1 failed" in page.text
    assert "No committed sample to show." in page.text


def test_a_missing_dataset_or_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no dataset"):
        write_report(tmp_path / "nowhere", [], tmp_path / "r.html")
    with pytest.raises(InputError, match="absent is not a folder"):
        write_report(None, [tmp_path / "absent"], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_a_lost_example_is_named(tmp_path: Path) -> None:
    run = tmp_path / "run"
    scores = make_scores(tmp_path, run, Subject(kind="student", name="s", fingerprint="f"))
    (run / scores.examples[1].truth).unlink()
    with pytest.raises(DataError, match=r"truth\.png is missing, though the scores name it"):
        write_report(None, [run], tmp_path / "r.html")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (
            np.zeros((5, 5), np.uint16),
            r"prediction\.png has 5 x 5 pixels, expected \d+ x \d+ as its",
        ),
        (None, "hold label 999, expected at most"),
        (b"", r"prediction\.png starts with b''"),
    ],
)
def test_a_damaged_example_is_named(
    tmp_path: Path, labels: np.ndarray | bytes | None, words: str
) -> None:
    run = tmp_path / "run"
    scores = make_scores(tmp_path, run, Subject(kind="student", name="s", fingerprint="f"))
    path = run / scores.examples[0].prediction
    if labels is None:
        labels = np.full_like(decode_label_map(path.read_bytes()), 999)
    path.write_bytes(labels if isinstance(labels, bytes) else encode_label_map(labels))
    with pytest.raises(DataError, match=words):
        write_report(None, [run], tmp_path / "r.html")


def test_a_broken_line_of_a_curve_is_named_and_a_cut_off_last_line_is_left_out(
    tmp_path: Path,
) -> None:
    run, out = tmp_path / "run", tmp_path / "r.html"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n{"st')
    assert "2 updates" in write_report(None, [run], out).read_text(encoding="utf-8")
    (run / "metrics.jsonl").write_text('{"step": 1}\n{"loss": 2}\n{"step": 3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl line 2"):
        write_report(None, [run], out)


def copied(scores: Scores, out: Path, changes: dict[str, object], miou: float) -> None:
    """The same scores under another protocol, with another number."""
    protocol = scores.protocol.model_copy(update=changes)
    write_scores(scores.model_copy(update={"protocol": protocol, "miou": miou}), out)


def test_a_number_at_the_head_is_never_a_mean_over_two_protocols(tmp_path: Path) -> None:
    run = tmp_path / "run"
    subject = Subject(kind="student", name="student", fingerprint="a" * 64)
    scores = make_scores(tmp_path, run / "one", subject)
    copied(scores, run / "one", {}, 0.542)
    copied(scores, run / "two", {"split": "test", "threshold": 0.3}, 0.1)
    page = Page(write_report(None, [run], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "54.2 mIoU on miniature, trained, split val, raw 0.5" in page.text
    assert "10.0 mIoU on miniature, trained, split test, raw 0.3" in page.text
    assert "32.1" not in page.text
    assert "mean of" not in page.text


def test_one_measurement_in_two_folders_counts_once(tmp_path: Path) -> None:
    run = tmp_path / "run"
    subject = Subject(kind="student", name="student", fingerprint="a" * 64)
    scores = make_scores(tmp_path, run / "scores" / "f8c60c7e", subject)
    copied(scores, run / "scores" / "f8c60c7e", {}, 0.542)
    shutil.copytree(run / "scores" / "f8c60c7e", run / "scores" / "31efda8c")
    # The run is named twice too, once by way of the folder around it.
    out = write_report(None, [run, tmp_path / "run" / "scores"], tmp_path / "r.html")
    page = Page(out.read_text(encoding="utf-8"))
    assert page.text.count("54.2 mIoU on miniature, trained ") == 1
    assert "mean of" not in page.text
    assert "mean and deviation" not in page.text


def test_a_report_that_finds_no_room_leaves_the_old_one_as_it_was(tmp_path: Path) -> None:
    out = write_report(None, [make_run(tmp_path)], tmp_path / "r.html")
    before = out.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_report(None, [tmp_path / "run"], out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert out.read_bytes() == before


def test_a_page_shows_eighteen_quadruplets_at_most(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_dataset(shards=4, planned=14, dropped=0)
    page = Page(write_report(root, [], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert sum(url.startswith("data:image") for url in page.urls) == 18 * 3


def large_and_noisy(sample: Sample) -> Sample:
    noise = np.random.default_rng(sample.seed).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    return replace(
        sample,
        image_bytes=encode_image(noise, "png"),
        counterfactual_bytes=encode_image(noise, "png"),
        mask_bytes=encode_label_map(np.full((256, 256), sample.class_ids[0] + 1, np.uint16)),
        instances=(),
    )


def test_pictures_are_made_smaller_until_the_page_fits(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_dataset(shards=1, planned=18, dropped=0, change=large_and_noisy)
    page = write_report(root, [], tmp_path / "r.html")
    assert 500_000 < page.stat().st_size <= MAX_PAGE_BYTES
