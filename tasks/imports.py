"""Imports: the step that brings a folder of real images with label maps into the engine's tars.

`python -m tasks.imports --config job.json` does it in a process of its own.

A folder is read by the reader of its benchmark, which knows its strange forms, and only once: a
training reads tars. Labels become those of the vocabulary. A class that the vocabulary lacks
becomes background: its pixels show none of the classes that were looked for and have a name here,
and that is what background says (`LabelledImage.judged_class_ids`).
"""

import hashlib
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt16
from pydantic import BaseModel

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.benchmarks.folders import LabelledImages
from models.threads import usable_cores
from storage.checked_tars import open_tar
from storage.class_sets import BenchmarkClasses
from storage.codecs import decode_image, encode_image, encode_label_map
from storage.disk_errors import explained
from storage.errors import DataError, EngineError, InputError
from storage.files import TEMP_SUFFIX, remove, write_whole
from storage.identity import digest
from storage.imports import (
    IMPORT_FILE,
    OWN_FOLDER,
    ImportedTar,
    ImportRecord,
    read_import,
    read_imported_tar,
)
from storage.job_files import run_job_file
from storage.labelled_images import LabelledImage, RealImage, pack_real_images
from storage.locks import LOCK_FILE, hold_folder
from storage.paths import local_path
from storage.picture_headers import image_format
from storage.records import BACKGROUND_LABEL, IGNORE_LABEL
from storage.vocabulary import Vocabulary, load_vocabulary
from tasks.steps import RunStep
from tasks.training import write_document

IMAGES_PER_TAR = 500
_VERSION = 1
"""Raised when the same folder would give other tars."""
_SHOWN_FAULTS = 10
_QUALITY = 100
"""Of a JPEG that is written anew: it was compressed once, and is not to lose anything more."""

_log = logging.getLogger(__name__)


class ImportJob(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What is imported, and where to."""

    benchmark: BenchmarkConfig
    """The folder, how it lies on disk, and the split."""
    vocabulary: str
    """Name of the vocabulary that the labels are brought to."""
    imports: str
    """Folder for imports; each has one of its own below it."""


class RealImport(RunStep[Path]):
    """The step that imports a folder of real images.

    Its folder is named after what is in the images' folder and what it becomes. So several runs
    share it, and a folder whose files change is imported anew.

    Args:
        job: What is imported, and where to.
    """

    kind = "import"

    def __init__(self, job: ImportJob) -> None:
        self.job = job
        self._opened: LabelledImages | None = None
        self._folder: Path | None = None

    @property
    def label(self) -> str:
        """A short description of the work."""
        return f"import of {self.job.benchmark.name} {self.job.benchmark.split}"

    @property
    def folder(self) -> Path:
        """Where the tars are.

        Raises:
            DataError: If the split's list is damaged.
            InputError: If files are missing, or the classes are not the vocabulary's.
        """
        if self._folder is None:
            source, own = self._source(), self.job.benchmark
            identity = [
                _VERSION,
                own.name,
                source.split,
                source.contents(),
                source.classes.model_dump(mode="json"),
                load_vocabulary(self.job.vocabulary).digest,
            ]
            name = f"{own.name}-{own.split}-{digest(identity)[:12]}"
            self._folder = local_path(self.job.imports, "imports") / name
        return self._folder

    def find(self) -> Path | None:
        """The folder of a finished import, whose tars are what they were.

        Raises:
            DataError: If the split's list or the import's record is damaged.
            InputError: If files are missing, or the classes are not the vocabulary's.
        """
        folder = self.folder
        if not (folder / IMPORT_FILE).is_file():
            return None
        record = read_import(folder)
        whole = record is not None and all(
            _is_whole(folder / name, tar) for name, tar in record.tars.items()
        )
        return folder if whole else None

    def work(self) -> Path:
        """Import in this process; goes on where an interrupted import stopped.

        Raises:
            DataError: If files of the split are damaged, hold a label that is no class, or show no
                class at all.
            InputError: If files are missing or the disk is full.
            LeaseHeldError: If somebody else imports there.
        """
        folder = self.folder
        with explained(folder, "write", place="folder for imports"), hold_folder(folder):
            return self.find() or _import(self._source(), self.job, folder)

    def program(self) -> list[str]:
        """`python -m tasks.imports`."""
        document = write_document(self.job.model_dump_json(indent=1), self.folder, self.kind)
        return [sys.executable, "-m", "tasks.imports", "--config", str(document)]

    def collect(self) -> Path:
        """The folder.

        Raises:
            DataError: If its record is damaged.
            InputError: If it holds no finished import.
        """
        if read_import(self.folder) is None:
            message = f"the import left nothing in {self.folder}: run the same command again"
            raise InputError(message)
        return self.folder

    def _source(self) -> LabelledImages:
        if self._opened is None:
            source = open_benchmark(self.job.benchmark)
            if not isinstance(source, LabelledImages) or not source.classes.background:
                message = (
                    f"{self.job.benchmark.name} has no whole label maps with background: import "
                    "voc21, context60, coco_object or miniature"
                )
                raise InputError(message)
            _require_classes(source.classes, self.job.vocabulary)
            source.check()
            self._opened = source
        return self._opened


@dataclass(frozen=True)
class _Target:
    """What labels become.

    Attributes:
        vocabulary: Where classes get their numbers.
        table: The stored label of each label of the data set.
        judged: Classes that were looked for.
        prefix: Begins the keys.
    """

    vocabulary: Vocabulary
    table: UInt16[np.ndarray, " labels"]
    judged: tuple[int, ...]
    prefix: str

    @classmethod
    def of(cls, classes: BenchmarkClasses, vocabulary: Vocabulary, folder: Path) -> "_Target":
        """What the labels of a class set become in a folder."""
        table = np.full(IGNORE_LABEL + 1, BACKGROUND_LABEL, np.uint16)
        table[IGNORE_LABEL] = IGNORE_LABEL
        for position, class_id in enumerate(classes.class_ids):
            if class_id is not None:
                table[position + 1] = class_id + 1
        judged = tuple(sorted({each for each in classes.class_ids if each is not None}))
        return cls(vocabulary, table, judged, digest(folder.name)[:8])


def _require_classes(classes: BenchmarkClasses, vocabulary: str) -> None:
    """Refuse a data set whose classes another vocabulary has."""
    if classes.vocabulary != vocabulary:
        message = (
            f"the classes of {classes.name} belong to the vocabulary {classes.vocabulary}, the run "
            f"has {vocabulary}: choose a profile with {classes.vocabulary}, or leave the source out"
        )
        raise InputError(message)


def _is_whole(path: Path, tar: ImportedTar) -> bool:
    """Whether a tar is what was imported; it is hashed once, and then known by its file's times."""
    try:
        open_tar(path, tar.sha256).close()
    except EngineError:
        return False
    return True


def _import(source: LabelledImages, job: ImportJob, folder: Path) -> Path:
    """Make the tars that are not done, and the record of all."""
    own = folder / OWN_FOLDER
    own.mkdir(exist_ok=True)
    remove(folder / IMPORT_FILE)
    for path in folder.rglob(f".*{TEMP_SUFFIX}"):  # of imports that were killed
        if not path.name.startswith(f".{LOCK_FILE}."):
            remove(path)
    target = _Target.of(source.classes, load_vocabulary(job.vocabulary), folder)
    done: dict[str, ImportedTar] = {}
    faults: list[str] = []
    starts = range(0, len(source.keys), IMAGES_PER_TAR)
    with ThreadPoolExecutor(usable_cores()) as pool:
        for number, start in enumerate(starts):
            name = f"train-{number:06d}.tar"
            known = read_imported_tar(own / f"{name}.json")
            if known is None or not _is_whole(folder / name, known):
                images = _read_images(source, target, start, pool, faults)
                if faults:
                    continue  # the others are still to be told
                known = _write_tar(folder / name, images)
                write_whole(own / f"{name}.json", known.model_dump_json().encode())
            done[name] = known
            _log.info("%d of %d tars imported to %s", number + 1, len(starts), folder)
    _refuse_faults(faults, source)
    _require_shown(done, source)
    record = ImportRecord(
        layout=job.benchmark.name,
        split=source.split,
        vocabulary=job.vocabulary,
        truth=source.truth,
        unnamed=_unnamed(source.classes),
        tars=done,
    )
    write_whole(folder / IMPORT_FILE, record.model_dump_json(indent=1).encode())
    return folder


def _read_images(
    source: LabelledImages,
    target: _Target,
    start: int,
    pool: ThreadPoolExecutor,
    faults: list[str],
) -> list[RealImage]:
    """Read the images of a tar; what is wrong with some is added to the faults."""

    def read(index: int) -> RealImage | str:
        try:
            return _read_image(source, target, index)
        except EngineError as error:
            return str(error)

    images: list[RealImage] = []
    for found in pool.map(read, range(start, min(start + IMAGES_PER_TAR, len(source.keys)))):
        if isinstance(found, str):
            faults.append(found)
        else:
            images.append(found)
    return images


def _read_image(source: LabelledImages, target: _Target, index: int) -> RealImage:
    key = source.keys[index]
    sample = source.sample(key)
    labels = target.table[sample.labels]
    shown = [int(each) for each in np.unique(labels)]
    ids = tuple(each - 1 for each in shown if each not in {BACKGROUND_LABEL, IGNORE_LABEL})
    image = LabelledImage(
        key=f"{target.prefix}{index:08d}",
        class_ids=ids,
        class_names=tuple(target.vocabulary[class_id].name for class_id in ids),
        image_bytes=_image_bytes(source.image_bytes(key), sample.image),
        mask_bytes=encode_label_map(labels),
        judged_class_ids=target.judged,
    )
    return RealImage(image, index, key)


def _image_bytes(data: bytes, seen: np.ndarray) -> bytes:
    """The file's own bytes, if a training sees by them what is scored; else the picture anew."""
    try:
        if np.array_equal(decode_image(data), seen):
            return data
    except DataError:
        pass  # turned, in print colours, transparent: the reader of photographs takes more
    return encode_image(seen, image_format(data), quality=_QUALITY)


def _write_tar(path: Path, images: Sequence[RealImage]) -> ImportedTar:
    data = pack_real_images(images)
    write_whole(path, data)
    shown = Counter(name for image in images for name in image.labelled.class_names)
    return ImportedTar(
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        samples=len(images),
        images_by_class=dict(sorted(shown.items())),
    )


def _refuse_faults(faults: Sequence[str], source: LabelledImages) -> None:
    """Tell everything that is wrong with the files at once."""
    if faults:
        shown = "; ".join(faults[:_SHOWN_FAULTS])
        left = len(faults) - _SHOWN_FAULTS
        more = f"; and {left} more" if left > 0 else ""
        total = len(source.keys)
        message = f"{len(faults)} of {total} images cannot be trained on: {shown}{more}"
        raise DataError(message)


def _require_shown(done: dict[str, ImportedTar], source: LabelledImages) -> None:
    """Refuse label maps that show no class."""
    if not any(tar.images_by_class for tar in done.values()):
        message = (
            f"the label maps of {source.classes.name} {source.split} show no class of the "
            f"vocabulary in {len(source.keys)} images: are these masks of 0 and 255 instead of "
            "labels, or of another data set?"
        )
        raise DataError(message)


def _unnamed(classes: BenchmarkClasses) -> tuple[str, ...]:
    pairs = zip(classes.names, classes.class_ids, strict=True)
    return tuple(name for name, class_id in pairs if class_id is None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Import as a JSON file says; returns the exit code."""
    return run_job_file(ImportJob, _work, "python -m tasks.imports", arguments)


def _work(job: ImportJob) -> None:
    RealImport(job).work()


if __name__ == "__main__":
    sys.exit(main())
