"""Known scores: what a run's folder already holds, judged by the files' contents, not their names.

Scores stand for others if subject, protocol and the benchmark's contents are the same. Folders may
be named by any rule, and the benchmark may lie anywhere.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.benchmarks.contract import Benchmark
from evaluation.benchmarks.folders import LabelledImages
from evaluation.benchmarks.open_images import OpenImages
from evaluation.benchmarks.split_files import spread
from evaluation.scoring.config import ScoringConfig
from evaluation.scoring.measured import Measured, read_measured
from evaluation.scoring.point_results import PointProtocol
from evaluation.scoring.results import Example, ScoreProtocol, Scores, Subject
from storage.codecs import decode_label_map
from storage.errors import DataError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WantedScores:
    """What known scores must match to be used instead of new ones.

    Attributes:
        subject: What is scored; of it the kind and the fingerprint count.
        protocol: How.
        thresholds: Those of the curve.
        num_examples: Label maps that are kept.
        contents: Digest of the benchmark's files.
        old_folders: Names of folders in which files that do not know their benchmark's contents
            are certainly of this one.
        by_image: Whether scores on label maps count only if they know of single images and the
            files are there.
    """

    subject: Subject
    protocol: ScoreProtocol | PointProtocol
    thresholds: tuple[float, ...]
    num_examples: int
    contents: str
    old_folders: Collection[str] = ()
    by_image: bool = False

    @classmethod
    def of(
        cls,
        subject: Subject,
        protocol: ScoreProtocol | PointProtocol,
        benchmark: Benchmark | OpenImages,
        config: ScoringConfig,
        old_folders: Collection[str] = (),
    ) -> "WantedScores":
        """Describe the scores that a pass over a benchmark would give.

        Args:
            subject: What is scored.
            protocol: How.
            benchmark: Images and truth; its files must be there.
            config: Thresholds of the curve and number of examples.
            old_folders: As the attribute.
        """
        has_labels = isinstance(protocol, ScoreProtocol)
        # A closed-set segmenter has no threshold to move.
        has_curve = subject.kind != "closed-set" and (not has_labels or protocol.background)
        return cls(
            subject=subject,
            protocol=protocol,
            thresholds=config.thresholds if has_curve else (),
            num_examples=min(config.num_examples, len(benchmark)) if has_labels else 0,
            contents=benchmark.contents(),
            old_folders=old_folders,
        )

    def allows(self, scores: Measured) -> bool:
        """Whether scores are of this subject and protocol, on whatever images."""
        curve = tuple(point.threshold for point in scores.curve)
        examples = scores.examples if isinstance(scores, Scores) else ()
        return (
            scores.subject.kind == self.subject.kind
            and scores.subject.fingerprint == self.subject.fingerprint
            and scores.protocol == self.protocol
            and np.array_equal(np.round(curve, 6), np.round(self.thresholds, 6))
            and len(examples) == self.num_examples
        )


def find_scores(
    folder: Path, wanted: WantedScores, benchmark: Benchmark | OpenImages
) -> Measured | None:
    """Find scores below a folder that match the wanted ones.

    A file that cannot be read is no reason to stop: its scores are measured again.

    Args:
        folder: All scores of a run.
        wanted: What is wanted.
        benchmark: What it is wanted on, to look at for files that do not know their benchmark.
    """
    for path in sorted(folder.rglob("scores-*.json")):
        try:
            scores = read_measured(path)
        except DataError as error:
            _log.warning("%s", error)
            continue
        if (
            wanted.allows(scores)
            and (not wanted.by_image or _knows_images(scores, path))
            and _is_of(scores, path, wanted, benchmark)
        ):
            return scores
    return None


def _knows_images(scores: Measured, path: Path) -> bool:
    return not isinstance(scores, Scores) or scores.find_images(path.parent) is not None


def _is_of(
    scores: Measured, path: Path, wanted: WantedScores, benchmark: Benchmark | OpenImages
) -> bool:
    """Whether scores were measured on a benchmark of the same contents.

    Older files do not say. Their folder's name may; else the label maps that they keep are held
    against the truth of today.
    """
    if scores.benchmark_digest:
        return scores.benchmark_digest == wanted.contents
    if path.parent.name in wanted.old_folders:
        return True
    if not isinstance(scores, Scores) or not isinstance(benchmark, LabelledImages):
        return False
    keys = spread(benchmark.keys, len(scores.examples))
    return (
        bool(scores.examples)
        and [example.key for example in scores.examples] == list(keys)
        and all(_same_truth(example, path.parent, benchmark) for example in scores.examples)
    )


def _same_truth(example: Example, folder: Path, benchmark: LabelledImages) -> bool:
    try:
        truth = folder / example.truth
        kept = decode_label_map(truth.read_bytes(), name=str(truth))
    except (OSError, DataError) as error:
        _log.warning("%s keeps no label map that can be read: %s", folder, error)
        return False
    return np.array_equal(kept, benchmark.sample(example.key).labels)
