"""Affinities: the step that trains DiffuMask's AffinityNet on seeds of a dataset's attention maps.

`python -m tasks.affinities --config job.json` does it in a process of its own.
"""

import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from jaxtyping import UInt8, UInt16
from pydantic import BaseModel, Field

from models.attention_maps import unpack_maps
from models.labelling.attention.affinity_config import AffinityRecord, read_affinity_record
from models.labelling.attention.aggregation import diffumask_map
from models.labelling.attention.dense_crf import SEED_CRF
from models.labelling.attention.refinement import field_of
from models.labelling.attention.seeds import field_seeds
from models.labelling.attention.thresholds import seed_constants, seed_levels
from storage.codecs import decode_image
from storage.commits import Commit
from storage.corrections import Correction, content_digest
from storage.current_samples import CurrentSamples
from storage.errors import InputError
from storage.exclusions import excluded_keys
from storage.identity import digest
from storage.job_files import run_job_file
from storage.paths import local_path
from storage.records import BACKGROUND_LABEL, IGNORE_LABEL, Stage
from storage.store import Store
from storage.vocabulary import load_vocabulary
from tasks.steps import RunStep
from tasks.training import write_document
from training.affinity import train_affinity
from training.affinity_config import AffinityConfig
from training.affinity_views import SeededImage

__all__ = ["AffinityJob", "AffinityTraining"]


class AffinityJob(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What a network of affinities is trained on."""

    dataset: Annotated[str, Field(min_length=1)]
    """Root of a dataset whose painter's attention was recorded."""
    cross_resolutions: dict[int, float] = Field(
        default_factory=lambda: {16: 1.0, 32: 1.0, 64: 1.0}, min_length=1
    )
    """Resolutions of attention, and how much each counts, as in the labeller `diffumask`."""
    classes: tuple[str, ...] = ()
    """Names of the classes whose samples are taken; empty means all. The paper has a network for
    each class."""
    config: AffinityConfig = AffinityConfig()
    """Network and recipe."""
    out: Annotated[str, Field(min_length=1)]
    """Folder of the training."""


class AffinityTraining(RunStep[AffinityRecord]):
    """The step that trains a network of affinities.

    Seeds are made as the paper makes them: an adaptive threshold of the class map, and what both of
    its levels agree on after a dense random field (DiffuMask, section 3.3). A mask that somebody
    has corrected is its own seeds: nothing is surer.

    Args:
        job: What it is trained on.
    """

    kind: ClassVar[str] = "train-affinity"

    def __init__(self, job: AffinityJob) -> None:
        self.job = job

    @property
    def label(self) -> str:
        """A short description of the work."""
        return "training of affinities"

    @property
    def folder(self) -> Path:
        """The training's folder."""
        return local_path(self.job.out, "out")

    def find(self) -> AffinityRecord | None:
        """A finished training is found by `work`, which knows what it was trained on."""
        return None

    def work(self) -> AffinityRecord:
        """Train in this process, or go on with an interrupted training.

        Raises:
            DataError: If a shard or the newest checkpoint is damaged.
            InputError: If there is no dataset, its painter's attention was not recorded, a class is
                unknown, or the folder belongs to another training.
            LeaseHeldError: If somebody else trains there.
        """
        items = RecordedSeeds(self.job)
        return train_affinity(
            items,
            self.job.config,
            self.folder,
            classes=items.classes,
            identity=items.identity(),
        )

    def program(self) -> list[str]:
        """`python -m tasks.affinities`."""
        document = write_document(self.job.model_dump_json(indent=1), self.folder, self.kind)
        return [sys.executable, "-m", "tasks.affinities", "--config", str(document)]

    def collect(self) -> AffinityRecord:
        """What the trained network is.

        Raises:
            InputError: If there is none.
        """
        return read_affinity_record(self.folder)


@dataclass(frozen=True)
class _Place:
    """Where a finished sample's picture and maps are, and whose masks its seeds are.

    Attributes:
        piece: What holds them.
        key: Their key there.
        class_ids: Classes of the sample, in the order of the maps if these are read.
        correction: Its corrected mask; None if the seeds are made of the maps.
    """

    piece: Commit
    key: str
    class_ids: tuple[int, ...]
    correction: Correction | None


class RecordedSeeds:
    """The finished samples of a dataset with their seeds, one sample at a time.

    Samples of which only some classes came through are left out, unless they are corrected: which
    maps are theirs is not known any more. So are excluded samples.

    Args:
        job: Which dataset, and which classes.

    Raises:
        InputError: If there is no dataset, no sample with maps, or a class is unknown.
    """

    def __init__(self, job: AffinityJob) -> None:
        self._job = job
        self._store = Store.open(job.dataset)
        self._vocabulary = load_vocabulary(self._store.vocabulary)
        wanted = {self._vocabulary.by_name(name).class_id for name in job.classes}
        self._excluded = excluded_keys(self._store.objects)
        self._places = self._found(wanted)
        if not self._places:
            message = (
                f"{job.dataset} has no finished sample with attention maps"
                f"{f' of {list(job.classes)}' if job.classes else ''} that is not excluded, "
                "expected some: generate it with a labeller that reads attention, or with "
                "pairs.record, or take samples back in with 'magicseg exclusions undo'"
            )
            raise InputError(message)
        self._made: dict[int, bytes] = {}  # packed seeds, which every epoch needs again
        self._kept: tuple[str, Mapping[str, tuple[bytes, bytes]]] = ("", {})

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that samples show."""
        shown = sorted({each for place in self._places for each in place.class_ids})
        return tuple(self._vocabulary[class_id].name for class_id in shown)

    def identity(self) -> dict[str, object]:
        """What images and seeds depend on."""
        about: dict[str, object] = {
            "pieces": sorted({place.piece.key for place in self._places}),
            "samples": len(self._places),
            "cross_resolutions": {str(k): v for k, v in self._job.cross_resolutions.items()},
        }
        corrections = [each.correction for each in self._places if each.correction is not None]
        if corrections:
            about["corrections"] = content_digest("", (), corrections)
        if self._excluded:  # a number would not say which
            about["keys"] = digest(sorted(place.key for place in self._places))
        return about

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int, /) -> SeededImage:
        """Read a sample and make its seeds."""
        place = self._places[number]
        image_bytes, maps_bytes = self._read(place)
        image = decode_image(image_bytes, name=place.key)
        made = self._made.get(number)
        if made is not None:
            labels = np.frombuffer(zlib.decompress(made), np.uint16).reshape(image.shape[:2])
            return SeededImage(image, labels)
        labels = self._seeds(place, image, maps_bytes)
        self._made[number] = zlib.compress(labels.tobytes())
        return SeededImage(image, labels)

    def _seeds(
        self, place: _Place, image: UInt8[np.ndarray, "height width 3"], maps_bytes: bytes
    ) -> UInt16[np.ndarray, "height width"]:
        """Make the seeds of a sample, which takes a second at 512 pixels."""
        if place.correction is not None:
            return place.correction.label_map()
        maps = unpack_maps(maps_bytes, name=f"{place.key}.attention")
        labels = np.full(image.shape[:2], IGNORE_LABEL, np.uint16)
        background = np.ones(image.shape[:2], np.bool_)
        field = field_of(image, SEED_CRF)
        for position, class_id in enumerate(place.class_ids):
            tokens = (maps.mentions or maps.prompt).of_class(position)  # type: ignore[union-attr]
            found = diffumask_map(tokens, self._job.cross_resolutions, image.shape[:2])
            levels = seed_levels(found, seed_constants(self._vocabulary[class_id].name))
            seeds = field_seeds(found, levels, field)
            labels[seeds.foreground] = class_id + 1
            background &= seeds.background
        labels[background] = BACKGROUND_LABEL
        return labels

    def _read(self, place: _Place) -> tuple[bytes, bytes]:
        kept = self._kept  # read once: another thread may go on to another piece meanwhile
        if kept[0] != place.piece.key:
            own = {
                pair.key: (pair.image_bytes, pair.maps_bytes)
                for pair in self._store.pairs(place.piece)
            }
            kept = self._kept = (place.piece.key, own)
        return kept[1][place.key]

    def _found(self, wanted: set[int]) -> list[_Place]:
        current = CurrentSamples(self._store)
        finished: dict[str, tuple[int, ...]] = {}
        corrected: dict[str, Correction] = {}
        for shard in self._store.shards():
            if shard.path is not None:
                finished |= current.classes(shard)
                corrected |= {each.key: each for each in current.corrections(shard.commit)}
        for key in self._excluded:
            finished.pop(key, None)
        places: list[_Place] = []
        for piece in self._store.commits(Stage.PAIRS):
            for pair in self._store.pairs(piece):
                ids, own = finished.get(pair.key, ()), corrected.get(pair.key)
                if not ids or not pair.maps_bytes or (wanted and wanted.isdisjoint(ids)):
                    continue
                if own is not None or _count_classes(pair.maps_bytes) == len(ids):
                    places.append(_Place(piece, pair.key, ids, own))
        return places


def _count_classes(data: bytes) -> int:
    maps = unpack_maps(data)
    tokens = maps.mentions or maps.prompt
    return 0 if tokens is None else max(tokens.classes, default=-1) + 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as a JSON file says; returns the exit code."""
    return run_job_file(AffinityJob, _work, "python -m tasks.affinities", arguments)


def _work(job: AffinityJob) -> None:
    AffinityTraining(job).work()


if __name__ == "__main__":
    sys.exit(main())
