"""How long a browser takes to load a report about a run of 100 classes, and how large it is.

The run is fabricated: drawn pictures of 256 pixels with two of 100 classes each, and predictions
that confuse neighbours in the list; they go through the scoring that every run goes through. The
peer is one page with all pictures that were kept of it as PNG, truth and prediction over them, in
the size in which they were kept; the limit is an empty page. A page is loaded in Chromium from the
disk, in turns, each in a fresh context; the time is that of the load event. Every request is
listed: none leaves the file.
"""

import argparse
import io
import json
import os
import shutil
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.results_file import write_results
from evaluation.benchmarks.contract import BenchmarkSample
from evaluation.reports.page import write_report
from evaluation.reports.sheets import overlay
from evaluation.scoring.background import ScoreMap
from evaluation.scoring.config import Background, ScoringConfig
from evaluation.scoring.kept_pictures import read_pictures
from evaluation.scoring.on_labels import score_predictor
from evaluation.scoring.protocols import describe_protocol
from evaluation.scoring.results import Scores, Subject
from storage.class_sets import BenchmarkClasses
from storage.codecs import decode_image, decode_label_map

CLASSES = 100
IMAGES = 400
STEPS = 2000
SIDE = 256
REPEATS = 5
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")


@dataclass(frozen=True)
class DrawnSplit:
    """A split of drawn pictures with many classes, as the scoring takes one."""

    count: int
    classes: BenchmarkClasses
    split: str = "val"
    truth: str = "drawn discs"
    published_as: str = ""
    coverage: str = ""
    keys: Sequence[str] = field(default_factory=tuple)

    @classmethod
    def of(cls, count: int, num_classes: int) -> "DrawnSplit":
        """So many pictures of so many classes."""
        names = tuple(f"kind {number:03}" for number in range(num_classes))
        classes = BenchmarkClasses(
            name="drawn",
            names=names,
            phrases=tuple((name,) for name in names),
            vocabulary="miniature",
            class_ids=(None,) * num_classes,
            background=True,
        )
        return cls(count, classes, keys=tuple(f"picture_{n:06}" for n in range(count)))

    def sample(self, key: str) -> BenchmarkSample:
        """Draw a picture; again it is the same."""
        number = int(key.rpartition("_")[2])
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        image = np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        image, labels = image.copy(), np.zeros((SIDE, SIDE), np.uint16)
        rows, columns = np.mgrid[:SIDE, :SIDE]
        for class_id in (number % len(self.classes.names), rng.integers(len(self.classes.names))):
            top, left = rng.uniform(0.25, 0.75, 2) * SIDE
            disc = np.hypot(rows - top, columns - left) < rng.uniform(0.1, 0.3) * SIDE
            image[disc] = image[disc] // 2 + rng.integers(0, 127, 3, dtype=np.uint8)
            labels[disc] = class_id + 1
        return BenchmarkSample(key, image, labels)

    def __len__(self) -> int:
        """The number of pictures."""
        return self.count

    def __iter__(self) -> Iterator[BenchmarkSample]:
        """The pictures in order."""
        return map(self.sample, self.keys)

    def missing_files(self) -> list[Path]:
        """None: they are drawn."""
        return []

    def contents(self) -> str:
        """Stands for the pictures."""
        return f"drawn {self.count} of {len(self.classes.names)}"

    def check(self) -> None:
        """Nothing can be missing."""


class NeighbourConfuser:
    """Finds what is there, a part of it under the name of the next class, in a shifted place."""

    def __init__(self, split: DrawnSplit, seed: int) -> None:
        self._truths = iter(split)
        self._seed = seed
        self._number = len(split.classes.names)

    def predict(self, image: np.ndarray, candidates: Sequence[int] | None = None) -> ScoreMap:
        """The next picture's answer."""
        del image, candidates
        sample = next(self._truths)
        rng = np.random.default_rng((self._seed, int(sample.key.rpartition("_")[2])))
        found = np.roll(sample.labels, rng.integers(0, 30), axis=1).astype(np.int32)
        for label in np.unique(found[found > 0]).tolist():
            if rng.random() < 0.3:
                upper = found[: int(rng.integers(SIDE))]
                upper[upper == label] = 0
            if rng.random() < 0.3:
                found[found == label] = label % self._number + 1
        sure = np.where(found > 0, 0.9, 0.1).astype(np.float32)
        return ScoreMap(sure, np.where(found > 0, found - 1, 0).astype(np.int32))


def fabricate_scored_run(
    out: Path, *, images: int = IMAGES, classes: int = CLASSES, seed: int = 0
) -> Scores:
    """Write a run with a curve and scores on a drawn split.

    Args:
        out: Its folder, made here.
        images: Pictures of the split.
        classes: Its classes.
        seed: Another one confuses other things.
    """
    out.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    rows = [
        {"step": s, "loss": 4 / s**0.3 + 0.1 * rng.random(), "lr": 1e-4, "seconds": 0.25}
        for s in range(1, STEPS + 1)
    ]
    (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    split = DrawnSplit.of(images, classes)
    config = ScoringConfig()
    protocol = describe_protocol(
        split, config, background_rule=Background.RAW, threshold=0.5, text="none", view="whole"
    )
    subject = Subject(kind="student", name="student", fingerprint=f"{seed:064}")
    return score_predictor(
        NeighbourConfuser(split, seed),
        split,
        subject=subject,
        protocol=protocol,
        config=config,
        out=out / "scores",
    )


def plain_page(run: Path, out: Path) -> Path:
    """Every kept picture as PNG in the size in which it was kept."""
    parts = ["<!doctype html><title>plain</title>"]
    for file in sorted(run.rglob("pictures-*.parquet")):
        for kept in read_pictures(file).values():
            image = decode_image(kept.image)
            maps = [decode_label_map(data) for data in (kept.truth, kept.prediction)]
            parts += map(_png, (image, *(overlay(image, labels) for labels in maps)))
    out.write_text("\n".join(parts))
    return out


def _png(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return f'<img src="data:image/png;base64,{b64encode(buffer.getvalue()).decode()}" alt="">'


def load_times(pages: dict[str, Path], repeats: int) -> dict[str, tuple[list[float], set[str]]]:
    """Milliseconds until the load event of each page, and the schemes of its requests."""
    from playwright.sync_api import sync_playwright

    found: dict[str, tuple[list[float], set[str]]] = {name: ([], set()) for name in pages}
    place = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=place, args=list(QUIET))
        for _ in range(repeats):
            for name, page in pages.items():
                times, schemes = found[name]
                context = browser.new_context(viewport={"width": 1300, "height": 1000})
                opened = context.new_page()
                opened.on("request", lambda request, own=schemes: own.add(request.url[:5]))
                opened.goto(page.absolute().as_uri(), wait_until="load")
                times.append(
                    opened.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
                )
                context.close()
        browser.close()
    return found


def main() -> None:
    """Fabricate, write the page, load all of them, and write the rows."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        run, other = folder / "run", folder / "other"
        fabricate_scored_run(run)
        fabricate_scored_run(other, seed=1)
        started = time.process_time()
        page = write_report(None, [run], folder / "page.html")
        seconds = time.process_time() - started
        two = write_report(None, [run], folder / "two.html", compare=other)
        empty = folder / "empty.html"
        empty.write_text("<!doctype html><title>empty</title>")
        pages = {"report": page, "two runs": two}
        pages |= {"every picture as PNG": plain_page(run, folder / "plain.html")}
        pages |= {"empty page": empty}
        rows: list[dict[str, Any]] = []
        for name, (times, schemes) in load_times(pages, REPEATS).items():
            rows.append(
                {
                    "what": name,
                    "megabytes": round(pages[name].stat().st_size / 1e6, 2),
                    "load_median_ms": round(median(times), 1),
                    "load_worst_ms": round(max(times), 1),
                    "requests_to": sorted(scheme.partition(":")[0] for scheme in schemes),
                }
            )
        rows[0]["write_cpu_s"] = round(seconds, 2)
        setting = {"classes": CLASSES, "images": IMAGES, "repeats": REPEATS}
        write_results("report_page", rows, ("magicseg-engine", "playwright"), setting=setting)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
