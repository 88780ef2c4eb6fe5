"""Folds: the step that asks a segmenter about the part of a dataset that it was not trained on.

`python -m tasks.folds --config job.json` does it in a process of its own.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from evaluation.scoring.agreement import Agreement, find_agreement
from evaluation.scoring.config import ScoringConfig
from models.devices import pick_device
from storage.class_sets import BenchmarkClasses
from storage.codecs import decode_image, decode_label_map
from storage.corrections import content_digest, iterate_corrected_images
from storage.errors import InputError
from storage.exclusions import excluded_keys
from storage.files import write_whole
from storage.folds import Fold
from storage.identity import digest
from storage.job_files import run_job_file
from storage.labelled_images import LabelledImage
from storage.locks import hold_folder
from storage.paths import local_path
from storage.records import Record, read_record
from storage.store import Store
from tasks.held_out import (
    HeldOutPredictor,
    dataset_classes,
    held_out_predictor,
    predict_labels,
)
from tasks.steps import RunStep
from tasks.subjects import ClosedSetRun, TrainedStudent
from tasks.training import write_document
from training.data import find_shards

_FILE = "agreement.json"

Against = Literal["dataset", "sample"]
"""Which classes a prediction may name: all that the dataset shows, or the sample's own."""


class FoldJob(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Which part of a dataset is judged, and by whom."""

    dataset: str
    """Its root."""
    vocabulary: str
    """Name of its vocabulary."""
    fold: Fold
    """The part, which the subject was not trained on."""
    subject: Annotated[TrainedStudent | ClosedSetRun, Field(discriminator="kind")]
    """The segmenter."""
    scoring: ScoringConfig
    """How a student predicts: templates, windows, background rule, threshold."""
    against: Against = "dataset"
    """Which classes a prediction may name."""
    out: str
    """Folder of the agreements."""
    device: str = "auto"
    """Where it runs."""


class FoldAgreements(Record, frozen=True):
    """How far a segmenter agrees with the masks of a part: the contents of ``agreement.json``."""

    fingerprint: str
    """Stands for the segmenter, the samples, and the way of predicting."""
    samples: dict[str, Agreement]
    """By sample key; samples of which the segmenter knows no class are not there."""


class FoldJudging(RunStep[FoldAgreements]):
    """The step that asks a segmenter about the samples that it has not seen.

    Args:
        job: Which samples, and which segmenter.
    """

    kind = "judge-fold"

    def __init__(self, job: FoldJob) -> None:
        self.job = job

    @property
    def label(self) -> str:
        """A short description of the work."""
        return f"agreement on fold {self.job.fold.number + 1} of {self.job.fold.of}"

    @property
    def folder(self) -> Path:
        """Where the agreements are."""
        return local_path(self.job.out)

    def find(self) -> FoldAgreements | None:
        """Agreements that were measured of the same samples by the same segmenter.

        Raises:
            DataError: If a file of the run or of the dataset is damaged.
            InputError: If the segmenter is not trained.
        """
        place = self.folder / _FILE
        if not place.is_file():
            return None
        found = read_record(
            FoldAgreements, place.read_bytes(), str(place), way_out="remove it and run again"
        )
        return found if found.fingerprint == self._fingerprint() else None

    def work(self) -> FoldAgreements:
        """Predict in this process.

        Raises:
            DataError: If a shard or the segmenter is damaged.
            InputError: If weights are missing, or the segmenter knows no class of the dataset.
            LeaseHeldError: If somebody else is at work in the folder.
        """
        with hold_folder(self.folder):
            known = self.find()
            if known is not None:
                return known
            samples = dict(self._judged())
            found = FoldAgreements(fingerprint=self._fingerprint(), samples=samples)
            write_whole(self.folder / _FILE, found.model_dump_json(indent=1).encode())
            return found

    def program(self) -> list[str]:
        """`python -m tasks.folds`."""
        document = write_document(self.job.model_dump_json(indent=1), self.folder, self.kind)
        return [sys.executable, "-m", "tasks.folds", "--config", str(document)]

    def collect(self) -> FoldAgreements:
        """The agreements that the program has written.

        Raises:
            InputError: If there are none.
        """
        found = self.find()
        if found is None:
            message = (
                f"{self.folder} has no agreements of this dataset, expected {_FILE}: run again"
            )
            raise InputError(message)
        return found

    def _fingerprint(self) -> str:
        job = self.job
        student = job.subject.kind == "student"
        excluded = excluded_keys(Store.open(job.dataset).objects, judges=("hand",))
        return digest(
            [
                job.subject.describe().fingerprint,
                [
                    content_digest(shard.identity, (), shard.corrected)
                    for shard in find_shards(job.dataset)
                ],
                sorted(key for key in excluded if job.fold.has(key)),
                job.fold,
                job.against,
                job.scoring if student else None,
            ]
        )

    def _judged(self) -> Iterator[tuple[str, Agreement]]:
        job = self.job
        classes = dataset_classes(job.dataset, job.vocabulary)
        place = pick_device(job.device)
        predictor = held_out_predictor(job.subject, classes, job.scoring, place)
        yield from judge_samples(self._held_out(), predictor, classes, against=job.against)

    def _held_out(self) -> Iterator[LabelledImage]:
        job = self.job
        excluded = excluded_keys(Store.open(job.dataset).objects, judges=("hand",))
        for shard in find_shards(job.dataset):
            for sample in iterate_corrected_images(shard.path, shard.identity, shard.corrected):
                if job.fold.has(sample.key) and sample.key not in excluded:
                    yield sample


def judge_samples(
    samples: Iterable[LabelledImage],
    predictor: HeldOutPredictor,
    classes: BenchmarkClasses,
    *,
    against: Against,
) -> Iterator[tuple[str, Agreement]]:
    """Compare the masks of samples with what a segmenter predicts.

    Args:
        samples: With their masks.
        predictor: The segmenter, made for the classes.
        classes: The classes of the dataset.
        against: Which of them a prediction may name.

    Yields:
        Key and agreement of each sample that shows a class which the segmenter knows.

    Raises:
        DataError: If an image or a label map is damaged.
    """
    for sample in samples:
        labels = decode_label_map(sample.mask_bytes, name=sample.part("mask"))
        image = decode_image(sample.image_bytes, name=sample.part("image"))
        own = [classes.class_ids.index(k) for k in sample.class_ids]
        candidates = own if against == "sample" else None
        found = predict_labels(predictor.predictor, image, candidates, classes, predictor.rule)
        agreement = find_agreement(labels, found, predictor.known)
        if agreement is not None:
            yield sample.key, agreement


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge as a JSON file says; returns the exit code."""
    return run_job_file(FoldJob, _judge, "python -m tasks.folds", arguments)


def _judge(job: FoldJob) -> None:
    FoldJudging(job).work()


if __name__ == "__main__":
    sys.exit(main())
