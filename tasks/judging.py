"""Judging: how far trained students agree with the masks of a dataset, shard by shard.

Every shard has a file of its own, named after what it was asked with, so that what was interrupted
goes on, and what was asked before is found.

    <out>/judged/<16 hex>.json    the agreements of a shard by one student
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from evaluation.scoring.agreement import Agreement
from evaluation.scoring.config import ScoringConfig
from models.devices import pick_device
from storage.corrections import content_digest, iterate_corrected_images
from storage.errors import DataError, InputError
from storage.files import write_whole
from storage.folds import Fold
from storage.identity import digest
from storage.records import Record, read_record
from storage.store import Store
from tasks.folds import judge_samples
from tasks.held_out import dataset_classes, held_out_predictor
from tasks.subjects import TrainedStudent
from training.data import find_shards
from training.shard_cache import ShardFile

__all__ = ["StudentJudge", "find_judges", "judge_shards"]

JUDGED_FOLDER = "judged"

_FOLD_NAME = re.compile(r"fold-([1-9][0-9]*)-of-([1-9][0-9]*)")


class StudentJudge(Record, frozen=True):
    """A trained student, and which samples it is asked about."""

    run: str
    """Folder of its run."""
    fold: Fold | None = None
    """The part of the dataset that it was not trained on; None for one that is asked about all."""


class ShardAgreements(Record, frozen=True):
    """How far a student agrees with the masks of a shard: the contents of a file."""

    shard: str
    """Path or URL of the tar."""
    samples: dict[str, Agreement]
    """By sample key; samples whose mask shows no class are not there."""


def find_judges(run: Path) -> tuple[StudentJudge, ...]:
    """The student of a training run, or those of a noise learning, each for its own part.

    Args:
        run: Folder of a training, or the one that `magicseg denoise` works in.

    Raises:
        InputError: There is no such folder, or parts of a noise learning are missing.
    """
    if not run.is_dir():
        message = f"{run} is not a folder, expected that of a training run or of a noise learning"
        raise InputError(message)
    folds: dict[int, dict[int, Path]] = {}
    for folder in sorted(run.iterdir()):
        if match := _FOLD_NAME.fullmatch(folder.name):
            folds.setdefault(int(match[2]), {})[int(match[1])] = folder
    if not folds:
        return (StudentJudge(run=str(run)),)
    if len(folds) > 1:
        message = f"{run} holds folds of {len(folds)} noise learnings, expected those of one"
        raise InputError(message)
    [(count, folders)] = folds.items()
    if sorted(folders) != list(range(1, count + 1)):
        message = (
            f"{run} holds {len(folders)} folds of {count}: run 'magicseg denoise' to its end first"
        )
        raise InputError(message)
    return tuple(
        StudentJudge(run=str(folder), fold=Fold(number=number - 1, of=count))
        for number, folder in sorted(folders.items())
    )


def judge_shards(
    dataset: str,
    judges: Sequence[StudentJudge],
    scoring: ScoringConfig,
    *,
    out: Path,
    watch: Callable[[int, int], None],
    device: str = "auto",
) -> dict[str, Agreement]:
    """Ask students about the masks of a dataset's good shards.

    Args:
        dataset: Its root.
        judges: Who is asked.
        scoring: How they predict: templates, windows, background rule, threshold.
        out: Folder for the answers, which must be the caller's alone.
        watch: Told how many of how many shards are judged.
        device: Where they compute.

    Returns:
        By sample key; samples that no judge is asked about or whose mask shows no class are left
        out.

    Raises:
        DataError: If a shard or a student is damaged.
        InputError: If a run is not trained, or weights are missing.
    """
    shards = find_shards(dataset)
    found: dict[str, Agreement] = {}
    total = len(judges) * len(shards)
    for number, judge in enumerate(judges):
        asking = _Asking(dataset, judge, scoring, device)
        for place, shard in enumerate(shards):
            found |= asking.find_or_judge(shard, out / JUDGED_FOLDER)
            watch(number * len(shards) + place + 1, total)
    return found


class _Asking:
    """A judge at work; its network is loaded for the first shard that it has not judged yet."""

    def __init__(
        self, dataset: str, judge: StudentJudge, scoring: ScoringConfig, device: str
    ) -> None:
        self._subject = TrainedStudent(run=judge.run)
        self._fold, self._scoring, self._device = judge.fold, scoring, device
        self._classes = dataset_classes(dataset, Store.open(dataset).vocabulary)
        self._stands_for = [
            self._subject.describe().fingerprint,
            self._classes.class_ids,
            judge.fold,
            scoring,
        ]
        self._predictor = None

    def find_or_judge(self, shard: ShardFile, folder: Path) -> dict[str, Agreement]:
        content = content_digest(shard.identity, (), shard.corrected)
        place = folder / f"{digest([*self._stands_for, content])[:16]}.json"
        if (known := _read(place)) is not None:
            return known.samples
        judged = ShardAgreements(shard=shard.path, samples=dict(self._judge(shard)))
        write_whole(place, judged.model_dump_json(indent=1).encode())
        return judged.samples

    def _judge(self, shard: ShardFile) -> Iterator[tuple[str, Agreement]]:
        if self._predictor is None:
            device = pick_device(self._device)
            self._predictor = held_out_predictor(
                self._subject, self._classes, self._scoring, device
            )
        samples = (
            each
            for each in iterate_corrected_images(shard.path, shard.identity, shard.corrected)
            if self._fold is None or self._fold.has(each.key)
        )
        yield from judge_samples(samples, self._predictor, self._classes, against="dataset")


def _read(place: Path) -> ShardAgreements | None:
    """What was judged before; a file that somebody has cut is judged again."""
    if not place.is_file():
        return None
    try:
        return read_record(ShardAgreements, place.read_bytes(), str(place), way_out="remove it")
    except DataError:
        return None
