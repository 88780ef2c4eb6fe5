"""Relabelling: the step that puts a student's predictions in the place of a dataset's masks.

Dataset Diffusion (arXiv 2309.14303, section 3.4) trains on its masks, relabels its own images with
what was learned, and trains again. `python -m tasks.relabelling --config job.json` does the first
of that in a process of its own.
"""

import dataclasses
import hashlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from jaxtyping import UInt8, UInt16
from pydantic import BaseModel, Field

from evaluation.scoring.background import apply_background
from evaluation.scoring.config import Background, ScoringConfig
from evaluation.scoring.phrases import background_words, text_rows
from evaluation.scoring.predictors import StudentPredictor
from models.devices import pick_device
from models.masks import mask_box
from models.student.config import StudentConfig
from models.student.text_embeddings import TextEncoder
from models.student.trained import describe_student, load_student
from storage.codecs import decode_image, encode_label_map, encode_rle
from storage.corrections import content_digest, iterate_corrected
from storage.disk_errors import explained
from storage.errors import DataError, InputError
from storage.files import remove, write_whole
from storage.identity import digest
from storage.job_files import run_job_file
from storage.locks import hold_folder, refuse_other_files
from storage.paths import local_path
from storage.records import Instance
from storage.shards import Sample, pack
from storage.vocabulary import Vocabulary, load_vocabulary
from tasks.steps import RunStep
from tasks.training import write_document
from training.data import ShardFile, find_shards

__all__ = ["Relabelling", "RelabellingJob"]

RELABELLING_FILE = "relabelling.json"
_DIGITS = 4
_log = logging.getLogger(__name__)


class RelabellingJob(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What is relabelled, and by whom."""

    dataset: Annotated[str, Field(min_length=1)]
    """Root of a dataset, or a folder of tars."""
    vocabulary: str
    """Name of the vocabulary that its labels index."""
    run: Annotated[str, Field(min_length=1)]
    """Folder of the training run whose student labels."""
    scoring: ScoringConfig = ScoringConfig()
    """Templates, windows, background rule and threshold; the rest of it is not read."""
    out: Annotated[str, Field(min_length=1)]
    """Folder for the relabelled tars."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""


class RelabelledTar(BaseModel, frozen=True, extra="forbid"):
    """A tar of relabelled samples."""

    sha256: str
    samples: int
    lost: int


class RelabellingRecord(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What a finished relabelling made."""

    identity: str
    """Digest of everything that the labels depend on."""
    tars: dict[str, RelabelledTar]
    """Each tar: its digest, its samples, and those that it lost because nothing was found."""


class Relabelling(RunStep[Path]):
    """The step that relabels a dataset.

    A pixel is the class of its sample that the student finds there, or background by the scoring
    settings' rule; classes that were not asked for are no candidates. A sample of whose classes
    nothing is found is left out. Texts and both pictures stay.

    Args:
        job: What is relabelled, and by whom.
    """

    kind: ClassVar[str] = "relabel"

    def __init__(self, job: RelabellingJob) -> None:
        self.job = job

    @property
    def label(self) -> str:
        """A short description of the work."""
        return f"relabelling of {self.job.dataset}"

    @property
    def folder(self) -> Path:
        """Where the tars are."""
        return local_path(self.job.out, "out")

    def find(self) -> Path | None:
        """The folder, if it holds all tars of the same dataset, student and settings.

        Raises:
            DataError: If the record or the checkpoint is damaged.
            InputError: If there is no dataset or no checkpoint.
        """
        record = _read_record(self.folder)
        if record is None or record.identity != self._identity(find_shards(self.job.dataset)):
            return None
        whole = all(_is_whole(self.folder / name, tar) for name, tar in record.tars.items())
        return self.folder if whole else None

    def work(self) -> Path:
        """Relabel in this process; an interrupted relabelling goes on with the next tar.

        Raises:
            DataError: If a shard or the checkpoint is damaged.
            InputError: If there is no dataset or no checkpoint, the folder holds something else, or
                the student finds nothing at all.
            LeaseHeldError: If somebody else relabels there.
        """
        folder = self.folder
        marks, early = (RELABELLING_FILE, "*.tar.json"), (f"{self.kind}-*.json", f"{self.kind}.log")
        refuse_other_files(folder, "a relabelled dataset", marks=marks, early=early)
        with explained(folder, "write", place="folder for relabelled tars"), hold_folder(folder):
            return self.find() or self._relabel(folder)

    def program(self) -> list[str]:
        """`python -m tasks.relabelling`."""
        document = write_document(self.job.model_dump_json(indent=1), self.folder, self.kind)
        return [sys.executable, "-m", "tasks.relabelling", "--config", str(document)]

    def collect(self) -> Path:
        """The folder.

        Raises:
            InputError: If it holds no finished relabelling.
        """
        if _read_record(self.folder) is None:
            message = f"relabelling left nothing in {self.folder}: run the same command again"
            raise InputError(message)
        return self.folder

    def _identity(self, shards: Sequence[ShardFile]) -> str:
        return digest(
            {
                "shards": [
                    [
                        content_digest(each.identity, (), each.corrected),
                        sorted(each.excluded),
                    ]
                    for each in shards
                ],
                "student": describe_student(self.job.run)["fingerprint"],
                "templates": self.job.scoring.templates,
                "inference": self.job.scoring.inference.model_dump(mode="json"),
            }
        )

    def _relabel(self, folder: Path) -> Path:
        shards = find_shards(self.job.dataset)
        identity = self._identity(shards)
        (folder / RELABELLING_FILE).unlink(missing_ok=True)
        vocabulary = load_vocabulary(self.job.vocabulary)
        predict = _Predictor(self.job, vocabulary)
        done: dict[str, RelabelledTar] = {}
        for number, shard in enumerate(shards):
            name = f"train-{number:06d}.tar"
            known = _known_tar(folder, name, identity)
            done[name] = known or _write_tar(folder, name, shard, predict, vocabulary, identity)
            _log.info("%d of %d shards relabelled in %s", number + 1, len(shards), folder)
        for path in folder.glob("*.tar"):  # of another dataset or student: trainings would read it
            if path.name not in done:
                remove(path)
        if not any(tar.samples for tar in done.values()):
            message = (
                f"the student of {self.job.run} finds nothing in {self.job.dataset}: train it "
                "longer, or lower the threshold of the scoring settings"
            )
            raise InputError(message)
        record = RelabellingRecord(identity=identity, tars=done)
        write_whole(folder / RELABELLING_FILE, record.model_dump_json(indent=1).encode())
        return folder


class _Predictor:
    """A student that is asked for the classes of each sample alone."""

    def __init__(self, job: RelabellingJob, vocabulary: Vocabulary) -> None:
        device = pick_device(job.device)
        student, meta = load_student(job.run)
        clip = StudentConfig.model_validate(meta["config"]["student"])
        encoder = TextEncoder.load(clip.clip, clip.revision).to(device)
        inference = job.scoring.inference
        words = ()
        if inference.background is Background.WORDS:
            words = background_words(job.scoring.background_words)
        phrases = [record.embedding_phrases for record in vocabulary]
        rows = text_rows(encoder, phrases, words, job.scoring)
        self._predictor = StudentPredictor(student.to(device), rows, inference)
        self._inference = inference

    def __call__(self, sample: Sample) -> tuple[UInt16[np.ndarray, "height width"], np.ndarray]:
        image: UInt8[np.ndarray, "height width 3"] = decode_image(
            sample.image_bytes, name=sample.member("image")
        )
        found = self._predictor.predict(image, sample.class_ids)
        labels = apply_background(
            found, self._inference.background, self._inference.threshold, background=True
        )
        return labels.astype(np.uint16), found.best


def _write_tar(
    folder: Path,
    name: str,
    shard: ShardFile,
    predict: _Predictor,
    vocabulary: Vocabulary,
    identity: str,
) -> RelabelledTar:
    kept: list[Sample] = []
    total = 0
    for sample in iterate_corrected(shard.path, shard.identity, shard.corrected):
        if sample.key in shard.excluded:
            continue
        total += 1
        found = _relabelled(sample, *predict(sample), vocabulary)
        kept += [] if found is None else [found]
    data = pack(kept)
    tar = RelabelledTar(
        sha256=hashlib.sha256(data).hexdigest(), samples=len(kept), lost=total - len(kept)
    )
    if kept:
        write_whole(folder / name, data)
    else:
        remove(folder / name)
    note = RelabellingRecord(identity=identity, tars={name: tar})
    write_whole(folder / f"{name}.json", note.model_dump_json().encode())
    return tar


def _relabelled(
    sample: Sample,
    labels: UInt16[np.ndarray, "height width"],
    scores: np.ndarray,
    vocabulary: Vocabulary,
) -> Sample | None:
    """A sample with other masks; None if no class of it was found."""
    shown = [class_id for class_id in sample.class_ids if (labels == class_id + 1).any()]
    if not shown:
        return None
    return dataclasses.replace(
        sample,
        class_ids=tuple(shown),
        class_names=tuple(vocabulary[class_id].name for class_id in shown),
        instances=tuple(_instance(class_id, labels == class_id + 1, scores) for class_id in shown),
        mask_bytes=encode_label_map(labels),
    )


def _instance(class_id: int, mask: np.ndarray, scores: np.ndarray) -> Instance:
    score = round(float(scores[mask].mean()), _DIGITS)
    return Instance(
        class_id=class_id,
        score=score,
        predicted_iou=score,
        xyxy=mask_box(mask),
        area=int(mask.sum()),
        rle=encode_rle(mask),
    )


def _known_tar(folder: Path, name: str, identity: str) -> RelabelledTar | None:
    """What an interrupted relabelling of the same data has finished."""
    note = _read(folder / f"{name}.json")
    if note is None or note.identity != identity:
        return None
    tar = note.tars[name]
    return tar if _is_whole(folder / name, tar) else None


def _is_whole(path: Path, tar: RelabelledTar) -> bool:
    """Whether a tar is what was written; one without samples is not there."""
    return path.is_file() and _sha256(path) == tar.sha256 if tar.samples else not path.exists()


def _read_record(folder: Path) -> RelabellingRecord | None:
    return _read(folder / RELABELLING_FILE)


def _read(path: Path) -> RelabellingRecord | None:
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return RelabellingRecord.model_validate_json(text)
    except ValueError as error:
        message = f"{path} is no record of a relabelling: delete it and run again"
        raise DataError(message) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Relabel as a JSON file says; returns the exit code."""
    return run_job_file(RelabellingJob, _work, "python -m tasks.relabelling", arguments)


def _work(job: RelabellingJob) -> None:
    Relabelling(job).work()


if __name__ == "__main__":
    sys.exit(main())
