"""Examination: every file of a split is opened, and the truth looked at, before a pass begins.

A pass over a benchmark takes hours; a label map that cannot be read near its end, or a truth
without any class, must not be found out by it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.benchmarks.contract import Benchmark, scored_names
from evaluation.benchmarks.open_images import OpenImages
from evaluation.scoring.progress import ScoringProgress
from models.threads import usable_cores
from storage.class_sets import BenchmarkClasses
from storage.errors import DataError, EngineError
from storage.records import IGNORE_LABEL

__all__ = ["Examination", "examine_files", "require_sound"]

MUCH_VOID = 0.5
"""Share of ignored pixels above which the number is about a small part of the images."""
_MUCH_WITHOUT_BACKGROUND = 0.98
"""The same where background is ignored too, as it is on most pixels of photographs."""
_SHOWN_FAULTS = 10


@dataclass(frozen=True)
class Examination:
    """What the files of a split hold.

    Attributes:
        name: Benchmark and split.
        num_images: Images that were opened, or tried.
        faults: What is wrong with files, one text for each image that cannot be scored.
        classes: The class set.
        pixels: Pixels of each label in scoring order, `IGNORE_LABEL` among them; empty for points.
        images: Images that show each label.
    """

    name: str
    num_images: int
    faults: tuple[str, ...]
    classes: BenchmarkClasses
    pixels: Counter[int]
    images: Counter[int]

    @property
    def found(self) -> dict[str, int]:
        """Images that show each class, by its name; background is none."""
        names, first = scored_names(self.classes), 1 if self.classes.background else 0
        labels = sorted(label for label in self.images if first <= label < len(names))
        return {names[label]: self.images[label] for label in labels}

    @property
    def void_share(self) -> float:
        """Share of ignored pixels in [0, 1]."""
        return self.pixels[IGNORE_LABEL] / max(1, self.pixels.total())

    @property
    def nonsense(self) -> str:
        """Why the truth can be none; empty if it can."""
        if not self.pixels or self.found:
            return ""
        return (
            f"the truth of {self.name} shows no class at all in {self.num_images:,} images: "
            f"{self.void_share:.0%} of the pixels are ignored, all others background. Are these "
            "masks of 0 and 255 instead of labels, or of another benchmark?"
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the number should know about the truth."""
        found = []
        limit = MUCH_VOID if self.classes.background else _MUCH_WITHOUT_BACKGROUND
        if self.void_share > limit:
            found.append(f"{self.void_share:.0%} of the pixels are ignored by the truth")
        if len(self.found) == 1 and len(self.classes.names) > 1:
            [name] = self.found
            found.append(f"the truth shows one class alone, {name}")
        return tuple(found)


def examine_files(
    benchmark: Benchmark | OpenImages, keys: Sequence[str] | None = None
) -> Examination:
    """Open the files of a split, side by side, and count what the truth shows.

    Args:
        benchmark: The split.
        keys: Names of the images to open; all of them by default.

    Returns:
        What was found. Faults of files are in it, and raise nothing.
    """
    faults: list[str] = []
    pixels, images = Counter[int](), Counter[int]()
    count = 0
    for found in _opened(benchmark, benchmark.keys if keys is None else keys):
        count += 1
        if isinstance(found, str):
            faults.append(found)
        else:
            pixels.update(found)
            images.update(found.keys())
    name = f"{benchmark.classes.name} {benchmark.split}"
    return Examination(name, count, tuple(faults), benchmark.classes, pixels, images)


def require_sound(benchmark: Benchmark | OpenImages) -> Examination:
    """Refuse a split that cannot be scored to the end, or whose truth is none.

    Raises:
        DataError: Files are damaged (all of them are counted, the first are named), or the truth
            shows no class.
        InputError: Files are missing.
    """
    benchmark.check()
    found = examine_files(benchmark)
    if found.faults:
        shown = "; ".join(found.faults[:_SHOWN_FAULTS])
        left = len(found.faults) - _SHOWN_FAULTS
        more = f"; and {left} more, all listed by 'magicseg doctor --deep'" if left > 0 else ""
        message = (
            f"{len(found.faults)} of {found.num_images} images cannot be scored: {shown}{more}"
        )
        raise DataError(message)
    if found.nonsense:
        raise DataError(found.nonsense)
    return found


def _opened(
    benchmark: Benchmark | OpenImages, keys: Sequence[str]
) -> Iterator[dict[int, int] | str]:
    """For each image the pixels of each label, or what is wrong with its files."""
    if len(keys):
        _count(benchmark, keys[0])  # what is read when first asked for is read once, not by all
    progress = ScoringProgress(f"opening {benchmark.split}", len(keys))
    with ThreadPoolExecutor(usable_cores()) as pool:
        try:
            read = pool.map(lambda key: _count(benchmark, key), keys)
            for number, found in enumerate(read, start=1):
                yield found
                progress.step(number)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _count(benchmark: Benchmark | OpenImages, key: str) -> dict[int, int] | str:
    try:
        return _labels_of(benchmark.sample(key))
    except EngineError as error:
        return str(error)


def _labels_of(sample: Any) -> dict[int, int]:
    labels = getattr(sample, "labels", None)  # points have none
    if labels is None:
        return {}
    counts = np.bincount(labels.ravel())
    return {int(label): int(counts[label]) for label in np.flatnonzero(counts)}
