"""Committed shards as batches: a pure function of the seed and the position in the run.

Every position of a run has its sample, its view and its names, however many processes, threads or
restarts there are. A sample is read at once, decoded, and kept if all fit in memory.
"""

import math
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, chain
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import UInt8

from storage.checked_tars import open_tar
from storage.codecs import decode_image, decode_label_map
from storage.corrections import current_classes
from storage.current_samples import CurrentSamples
from storage.errors import DataError, InputError
from storage.exclusions import excluded_keys, excluded_of, written_keys
from storage.folds import Fold
from storage.imports import ImportRecord, read_import
from storage.layout import SPEC_PATH
from storage.objects import open_objects
from storage.paths import local_path
from storage.records import BACKGROUND_LABEL, IGNORE_LABEL
from storage.sample_keys import UniqueKeys
from storage.sample_members import (
    SampleParts,
    check_real,
    check_sample,
    read_about,
    sample_parts,
)
from storage.shards import read_index
from storage.store import Store
from storage.vocabulary import Vocabulary
from training.augmentation import LabelledPair, augment
from training.batch_room import Batch, BatchRoom
from training.config import AugmentationConfig, NegativesConfig, TrainingConfig
from training.disturbances import disturb
from training.epochs import Epochs, MixedEpochs
from training.negatives import Exclusions
from training.sampling import remap, sample_subsets
from training.shard_cache import ShardCache, ShardFile
from training.shard_index import ShardIndex
from training.splicing import SampleTile, draw_grid, draw_tiles, splice

_PREFETCH = 3
_SPLICING = 1
"""Tells the generator of a splice from that of the view."""
_LAYOUTS = {
    "miniature": ("JPEGImages", "benchmark.json"),
    "voc21": ("JPEGImages", "SegmentationClass"),
    "context60": ("JPEGImages", "SegmentationClassContext"),
    "coco_object": ("images", "annotations"),
}
"""Files and folders by which data sets that can be imported are known."""

Members = dict[str, tuple[int, int]]
"""Offset and size of each member of a sample, by extension."""


@dataclass(frozen=True)
class Stored:
    """A decoded sample.

    Attributes:
        pair: Images and labels as stored.
        class_ids: Vocabulary indices of its classes.
        text: What the positive image shows; empty for a real image.
        judged_class_ids: Classes that were looked for in a real image; None means all.
        other_class_ids: Classes that were found in a generated image though nobody asked for them.
    """

    pair: LabelledPair
    class_ids: tuple[int, ...]
    text: str
    judged_class_ids: tuple[int, ...] | None = None
    other_class_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class BatchPlan:
    """How samples become batches.

    Attributes:
        side: Side of the views in pixels.
        classes_per_image: Names an image, m.
        negatives: Names that are kept out of an image's negatives.
        augmentation: Random views.
        padding: Colour outside an image.
        seed: Seed of every random choice.
        mixed_shards: Shards whose samples are mixed at a time; None means all.
        shares: How often each source is drawn, see `training.shares`; empty for a single one.
        left_out: Vocabulary indices of the names that have no masks: what their pixels show is not
            looked at.
        names_known: Whether they are names of every image all the same, for a student that labels
            what is background by itself. If not, they are names of none, and their pixels are of
            unknown class, as ZegCLIP has it.
    """

    side: int
    classes_per_image: int
    negatives: NegativesConfig
    augmentation: AugmentationConfig
    padding: tuple[int, int, int]
    seed: int
    mixed_shards: int | None = None
    shares: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()
    names_known: bool = False


def find_sources(config: TrainingConfig) -> list[list[ShardFile]]:
    """List the tars of each source of a run, see `find_shards`.

    Raises:
        InputError: If one of them has nothing to train on, or two are the same.
    """
    places = [source.dataset for source in config.drawn]
    for place in places:
        if places.count(place) > 1:
            message = f"{place} is named as a source twice: name it once, with the sum of weights"
            raise InputError(message)
    use_degraded = config.degraded_shards == "use"
    return [
        find_shards(place, use_degraded=use_degraded, held_out=config.held_out) for place in places
    ]


def find_shards(
    dataset: str, *, use_degraded: bool = False, held_out: Fold | None = None
) -> list[ShardFile]:
    """List the tars to train on, in order of their names, each with what is left out of it.

    Args:
        dataset: Root of a dataset, of which committed shards alone are listed, or a local folder
            with tars.
        use_degraded: Whether shards below the dataset's minimum yield are listed too.
        held_out: A part of the dataset that is left out besides what people excluded; what noise
            learning excluded is not, because it is about to judge again.

    Raises:
        InputError: If there is nothing to train on, or a part is held out of something else than a
            dataset.
    """
    if open_objects(dataset).size(SPEC_PATH) is not None:
        return _committed_shards(dataset, held_out, use_degraded=use_degraded)
    if held_out is not None:
        message = f"{dataset} is no dataset, expected one: parts of a folder cannot be held out"
        raise InputError(message)
    if "://" not in dataset and (recorded := read_import(local_path(dataset, "the dataset"))):
        return _imported_shards(local_path(dataset), recorded)
    is_url = "://" in dataset
    tars = [] if is_url else sorted(local_path(dataset, "the dataset").glob("[!.]*.tar"))
    if not tars:
        message = f"{dataset} is neither a dataset nor a folder with tars{_near_miss(dataset)}"
        raise InputError(message)
    sizes = [tar.stat().st_size for tar in tars]
    return [
        ShardFile(str(tar.absolute()), f"{tar.name}:{size}", size)
        for tar, size in zip(tars, sizes, strict=True)
    ]


def _imported_shards(folder: Path, record: ImportRecord) -> list[ShardFile]:
    return [
        ShardFile(str((folder / name).absolute()), tar.sha256, tar.size, tar.samples)
        for name, tar in sorted(record.tars.items())
    ]


def _near_miss(dataset: str) -> str:
    """What lies there instead of tars, and what to do about it."""
    folder = None if "://" in dataset else local_path(dataset, "the dataset")
    if folder is not None and folder.is_file():
        return ", but a file: name the folder that it is in"
    if folder is not None and folder.is_dir():
        for layout, marks in _LAYOUTS.items():
            if all((folder / mark).exists() for mark in marks):
                return f", but looks like {layout}: train on it by --data {layout}:{dataset}"
        compressed = sorted(each.name for each in folder.glob("*.tar.*"))
        compressed += sorted(each.name for each in folder.glob("*.tgz"))
        if compressed:
            return f": {compressed[0]} is compressed, unpack it to a plain .tar"
        below = sorted(each.parent for each in folder.glob("*/*.tar"))
        if below:
            return f", but {below[0]} is: name that"
    return ": generate the dataset first"


def _committed_shards(
    dataset: str, held_out: Fold | None, *, use_degraded: bool
) -> list[ShardFile]:
    store = Store.open(dataset)
    shards, excluded = store.shards(), _left_out(store, held_out)
    current = CurrentSamples(store)
    files = [
        ShardFile(
            shard.path,
            ref.sha256,
            ref.size,
            shard.samples,
            excluded_of(store, shard.commit, excluded),
            own,
            shard.commit.slice_id,
            partial(current_classes, store, shard.commit, own) if shard.commit.manifest else None,
        )
        for shard in shards
        if shard.path is not None
        and (ref := shard.commit.object) is not None
        and (use_degraded or not shard.degraded)
        for own in (current.corrections(shard.commit),)
    ]
    if not files:
        message = (
            f"{dataset} has {len(shards)} committed shards of which none can be trained on: "
            "generate more, or set degraded_shards to 'use' if their yield is merely low"
        )
        raise InputError(message)
    return files


def _left_out(store: Store, held_out: Fold | None) -> frozenset[str]:
    if held_out is None:
        return excluded_keys(store.objects)
    part = {key for key in written_keys(store) if held_out.has(key)}
    return excluded_keys(store.objects, judges=("hand",)) | part


class SampleFiles:
    """Random access to the samples of some shards.

    Local shards are read where they are, a sample by one read. Remote ones are fetched whole into
    the cache, since a request for every sample of every epoch costs more in time and money.

    Args:
        shards: The tars.
        vocabulary: What their class indices mean.
        cache_bytes: Decoded samples are kept if all of them need no more than this.
        shard_cache: Where remote shards are kept.
        left_out: Samples of which all classes are among these are skipped. Where no manifest says
            which classes samples have, the JSON of each one is read at once for that.

    Raises:
        DataError: If a local tar is not what was committed by its size, or it has no record and is
            cut, or a sample in it misses a member, or two such tars hold a sample of one key. The
            tars of records are looked into when they are opened first.
        InputError: If a shard is remote and there is no cache, or a local one is gone.
    """

    def __init__(
        self,
        shards: Sequence[ShardFile],
        vocabulary: Vocabulary,
        *,
        cache_bytes: int = 0,
        shard_cache: ShardCache | None = None,
        left_out: Iterable[int] = (),
    ) -> None:
        self.vocabulary = vocabulary
        self._left_out = frozenset(left_out)
        self._shards = list(shards)
        self._cache = shard_cache
        self._indexes: dict[int, ShardIndex] = {}
        self._opening = [threading.Lock() for _ in shards]
        self._keys = UniqueKeys()
        self._mingled = _mingled(shards)
        self.sizes = tuple(self._count(number) for number in range(len(shards)))
        self._ends = list(accumulate(self.sizes))
        self._cache_bytes = cache_bytes
        self._kept: dict[int, Stored] = {}
        self._corrections = {
            (shard.path, each.key): each for shard in shards for each in shard.corrected
        }

    def __len__(self) -> int:
        return sum(self.sizes)

    def __getitem__(self, index: int) -> Stored:
        """Read and decode a sample, or take it from memory.

        Raises:
            DataError: If its bytes cannot be decoded, or its shard is not what was committed.
            InputError: If it names its classes otherwise than the vocabulary.
            TransientError: If an object store does not answer.
        """
        if index in self._kept:
            return self._kept[index]
        stored = self._decode(index)
        if self._can_keep(stored):
            self._kept[index] = stored
        return stored

    def prefetch(self, numbers: Iterable[int]) -> None:
        """Begin to fetch remote shards, by their numbers."""
        if self._cache is not None:
            remote = (self._shards[n] for n in numbers if self._shards[n].is_remote)
            self._cache.prefetch(remote)

    def _can_keep(self, stored: Stored) -> bool:
        size = sum(part.nbytes for part in vars(stored.pair).values() if part is not None)
        return size * len(self) <= self._cache_bytes

    def _count(self, number: int) -> int:
        """Samples of a shard, from its record if that can be."""
        shard = self._shards[number]
        if shard.is_remote and self._cache is None and shard.num_samples is not None:
            message = f"{shard.path} is in an object store: give a shard_cache to keep it in"
            raise InputError(message)
        if self._is_read_at_once(shard):
            return len(self._index(number))
        if self._left_out and shard.classes is not None:
            return len(self._shown(shard, shard.classes()))
        return cast("int", shard.num_samples) - len(shard.excluded)

    def _is_read_at_once(self, shard: ShardFile) -> bool:
        """Whether a shard is looked into before anything is asked for."""
        if shard.num_samples is None or (self._left_out and shard.classes is None):
            return True
        if shard.is_remote:
            return False
        # what is wrong at first sight is told at once
        path = Path(shard.path)
        there = path.is_file() and path.stat().st_size == shard.num_bytes
        return not there or shard.series in self._mingled

    def _is_vouched_for(self, shard: ShardFile) -> bool:
        """Whether records say that no other shard has its keys."""
        return all(each.series for each in self._shards) and shard.series not in self._mingled

    def _shown(self, shard: ShardFile, classes: Mapping[str, tuple[int, ...]]) -> set[str]:
        """Keys of the samples of a shard that are trained on, by their classes."""
        return {
            key
            for key, class_ids in classes.items()
            if key not in shard.excluded
            and (not class_ids or not self._left_out.issuperset(class_ids))
        }

    def _read_index(self, shard: ShardFile) -> dict[str, Members]:
        """Index a shard; one that the cache lets go before it is opened is fetched again."""
        while True:
            local = self._local(shard)
            try:
                # the cache has compared what it fetched
                identity = "" if shard.is_remote else shard.identity
                return read_index(local, identity, real=not shard.is_remote)
            except InputError:
                if str(local) == shard.path or Path(local).exists():
                    raise

    def _index(self, number: int) -> ShardIndex:
        """Where the samples of a shard are; the shard is looked into if it has not been."""
        with self._opening[number]:
            if number not in self._indexes:
                self._indexes[number] = self._open(self._shards[number])
            return self._indexes[number]

    def _open(self, shard: ShardFile) -> ShardIndex:
        """Look into a shard, and hold what is there against its record."""
        found = self._read_index(shard)
        if shard.num_samples not in {None, len(found)}:
            message = (
                f"{shard.path} holds {len(found)} samples, but its commit record says "
                f"{shard.num_samples}: verify the dataset"
            )
            raise DataError(message)
        if not self._is_vouched_for(shard):
            self._keys.add(found, shard.path)
        if strange := sorted(shard.excluded.difference(found)):
            raise _other_samples(shard, strange[0])
        wanted = found.keys() - shard.excluded
        if self._left_out:
            wanted = self._shown(shard, self._classes(shard, found))
        return ShardIndex({key: members for key, members in found.items() if key in wanted})

    def _classes(
        self, shard: ShardFile, found: Mapping[str, Members]
    ) -> Mapping[str, tuple[int, ...]]:
        """Classes of each sample of a shard: from its manifest, or from the samples themselves."""
        if shard.classes is None:
            return {key: self._own_classes(shard, key, found[key]) for key in found}
        classes = shard.classes()
        if strange := sorted(classes.keys() ^ found.keys()):
            raise _other_samples(shard, strange[0])
        return classes

    def _own_classes(self, shard: ShardFile, key: str, members: Members) -> tuple[int, ...]:
        extension = sample_parts(members).about
        data = self._read(shard, *members[extension])
        return read_about(data, extension, key, shard.path).class_ids

    def _local(self, shard: ShardFile) -> str | Path:
        return self._cache.fetch(shard) if self._cache and shard.is_remote else shard.path

    def _read(self, shard: ShardFile, offset: int, size: int) -> bytes:
        if self._cache is not None and shard.is_remote:
            return self._cache.read_range(shard, offset, size)
        with open_tar(shard.path, shard.identity) as file:
            file.seek(offset)
            return file.read(size)

    def _decode(self, index: int) -> Stored:
        number = bisect_right(self._ends, index)
        shard = self._shards[number]
        found = self._index(number)
        place = index - self._ends[number] + self.sizes[number]
        key, which, places = found.keys[place], found.parts(place), found.extents(place)
        first = min(offset for offset, _ in places)
        last = max(offset + size for offset, size in places)
        # The members of a sample lie side by side, so that one read brings them all.
        span = self._read(shard, first, last - first)
        if len(span) != last - first:
            message = f"{shard.path}: sample {key} was cut after it was indexed; verify the dataset"
            raise DataError(message)
        part = {
            extension: span[offset - first : offset - first + size]
            for extension, (offset, size) in zip(which.every, places, strict=True)
        }
        return self._decoded(part, which, key, shard.path)

    def _decoded(
        self, part: Mapping[str, bytes], which: SampleParts, key: str, where: str
    ) -> Stored:
        """Decode the members of a sample."""

        def picture(extension: str) -> UInt8[np.ndarray, "height width 3"]:
            return decode_image(part[extension], name=f"{where}: {key}.{extension}")

        if which.twin is None:
            about = check_real(part, key, where)
            text, judged, others = "", about.judged_class_ids, ()
        else:
            about = check_sample(part, key, where)
            text, judged = about.text, None
            others = tuple(sorted({each.class_id for each in about.others or ()}))
        labels = decode_label_map(part[which.mask], name=f"{where}: {key}.{which.mask}")
        classes = about
        if correction := self._corrections.get((where, key)):
            correction.require_pictures(part[which.image], part[which.mask])
            labels, classes = correction.label_map(), correction
        twin = None if which.twin is None else picture(which.twin)
        pair = LabelledPair(picture(which.image), twin, labels)
        self.vocabulary.check_names(classes.class_ids, classes.class_names, where)
        return Stored(pair, classes.class_ids, text, judged, others)


def _mingled(shards: Sequence[ShardFile]) -> set[str]:
    """Series of which there are shards in several folders: two may hold a sample of one key.

    Within a folder a record vouches for that. Where the series is not known it may be any.
    """
    folders: dict[str, set[str]] = {}
    for shard in shards:
        folders.setdefault(shard.series, set()).add(shard.folder)
    several = len({shard.folder for shard in shards}) > 1
    return {series for series, own in folders.items() if len(own) > 1 or (several and not series)}


def _other_samples(shard: ShardFile, key: str) -> DataError:
    return DataError(
        f"{shard.path} and its manifest do not have the same samples: {key} is in one of them "
        "alone; verify the dataset"
    )


class Batches:
    """Batches by position.

    Args:
        samples: Where samples come from.
        plan: How they become batches.
        sources: Number of shards of each source, in the order of the samples' shards, if the plan
            has shares.

    Raises:
        InputError: If there is no sample, in one of the sources or at all.
    """

    def __init__(self, samples: SampleFiles, plan: BatchPlan, sources: Sequence[int] = ()) -> None:
        if not len(samples) and plan.left_out:
            message = (
                "no sample of the shards shows a class that is not left out, expected at least "
                "one: leave out fewer names, or train on more data"
            )
            raise InputError(message)
        if not len(samples):
            message = "the shards hold no sample, expected at least one: generate the dataset first"
            raise InputError(message)
        self.samples = samples
        self.plan = plan
        self._epochs = _epochs(samples, plan, sources)
        self._exclusions = Exclusions(samples.vocabulary, plan.negatives)
        self._needed: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def batch(self, first: int, size: int) -> Batch:
        """Make the batch of `size` positions from `first` on; the same whenever it is asked for."""
        self._enter(first, ())
        room = self._room(size)
        for place in range(size):
            self._fill(room, place, first + place)
        return room.batch()

    def stream(
        self, firsts: Iterator[Sequence[int]], size: int, threads: int, *, pinned: bool = False
    ) -> Generator[list[Batch]]:
        """Make lists of batches ahead of their use; each lasts until the next one is asked for.

        Args:
            firsts: First positions of the batches of each step.
            size: Samples a batch.
            threads: Threads that make views; 0 makes them when they are asked for.
            pinned: Whether batches are in pinned memory.
        """
        if not threads:
            for step in firsts:
                yield [self.batch(first, size) for first in step]
            return
        free: list[BatchRoom] = []
        with ThreadPoolExecutor(threads, "views") as pool:
            ahead: deque[list[_Begun]] = deque()

            def begin(first: int) -> None:
                room = free.pop() if free else self._room(size, pinned=pinned)
                before = [work for each in chain(*ahead) for work in each.work]
                entered = pool.submit(self._enter_and_fill, room, first, before)
                rest = (pool.submit(self._fill, room, k, first + k) for k in range(1, size))
                ahead[-1].append(_Begun(room, [entered, *rest]))

            try:
                for step in firsts:
                    ahead.append([])
                    for first in step:
                        begin(first)
                    if len(ahead) > _PREFETCH:
                        yield from _handed(ahead.popleft(), free)
                while ahead:
                    yield from _handed(ahead.popleft(), free)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _room(self, size: int, *, pinned: bool = False) -> BatchRoom:
        plan = self.plan
        left_out = () if plan.names_known else plan.left_out
        names = min(plan.classes_per_image, len(self.samples.vocabulary) - len(left_out))
        return BatchRoom(size, plan.side, names, pinned=pinned)

    def _enter_and_fill(
        self, room: BatchRoom, first: int, before: Sequence["Future[None]"]
    ) -> None:
        """Make the first sample of a batch, after seeing to the shards that the batch needs."""
        self._enter(first, before)
        self._fill(room, 0, first)

    def _enter(self, position: int, before: Sequence["Future[None]"]) -> None:
        """Fetch the window of a position and the next one, as soon as the first is entered.

        What is no longer needed may go then, so that all who read the last window must be through.

        Args:
            position: Where a batch begins.
            before: What is made for earlier batches; threads began with it before.
        """
        needed = self._epochs.needed(position)
        if needed != self._needed:
            wait(before)
            self._needed = needed
            self.samples.prefetch(dict.fromkeys(n for window in needed for n in window))

    def _fill(self, room: BatchRoom, place: int, position: int) -> None:
        """Write what a position of the run shows into its place."""
        own, plan = self._draw(position), self.plan
        number = len(self.samples.vocabulary)
        subset = sample_subsets(
            [own.class_ids],
            number,
            plan.classes_per_image,
            np.array([own.seed], np.uint64),
            [own.excluded],
            () if plan.names_known else plan.left_out,
        )
        [names], [active] = subset.class_ids, subset.active
        present = remap(own.pair.labels, names, number, room.targets(place))
        room.put(place, own.pair, names, active=active, present=present)

    def _draw(self, position: int) -> "_Drawn":
        """What a position of the run shows."""
        epoch, index = self._epochs.place(position)
        plan, config = self.plan, self.plan.augmentation
        shown = self._spliced(position, epoch, index) if config.splice else self._tile(index)
        rng = np.random.default_rng((plan.seed, epoch, index))
        view = augment(shown.pair, plan.side, config, rng, padding=plan.padding)
        return _Drawn(
            pair=disturb(view, config, rng),
            class_ids=shown.class_ids,
            excluded=shown.excluded,
            seed=int(rng.integers(2**63)),
        )

    def _tile(self, index: int) -> SampleTile:
        stored = self.samples[index]
        pair, class_ids = self._taught(stored)
        excluded = self._exclusions.of(
            stored.class_ids,
            stored.text,
            judged=stored.judged_class_ids,
            others=stored.other_class_ids,
        )
        return SampleTile(pair, class_ids, excluded)

    def _spliced(self, position: int, epoch: int, index: int) -> SampleTile:
        """The sample of a position, maybe with others of the positions after it around it."""
        plan, config = self.plan, self.plan.augmentation
        # its own generator: the views of samples that are not spliced stay what they were
        rng = np.random.default_rng((plan.seed, epoch, index, _SPLICING))
        grid = draw_grid(config, rng)
        if grid == (1, 1):
            return self._tile(index)
        most = min(plan.classes_per_image, len(self.samples.vocabulary))
        tiles = draw_tiles(
            lambda after: self._tile(self._epochs.place(position + after)[1]), grid, most, rng
        )
        side = math.ceil(config.max_scale * plan.side)
        return splice(tiles, grid, side, padding=plan.padding)

    def _taught(self, stored: Stored) -> tuple[LabelledPair, tuple[int, ...]]:
        """A sample without the masks of left-out names, and the names that it must have.

        The masks are gone before a view is chosen, which may look at them.

        Raises:
            InputError: If it has more of these names than an image may have.
        """
        left_out = self.plan.left_out
        if not left_out:
            return stored.pair, stored.class_ids
        seen = tuple(class_id for class_id in stored.class_ids if class_id not in left_out)
        hidden = np.isin(stored.pair.labels, np.add(left_out, 1))
        shown = BACKGROUND_LABEL if self.plan.names_known else IGNORE_LABEL
        labels = np.where(hidden, np.uint16(shown), stored.pair.labels)
        pair = replace(stored.pair, labels=labels)
        if not self.plan.names_known:
            return pair, seen
        names, most = seen + left_out, self.plan.classes_per_image
        if len(names) > most:
            message = (
                f"classes_per_image is {most}, expected at least {len(names)}: an image has "
                f"{len(seen)} classes, and the {len(left_out)} left-out names are known in the "
                "second half of the training"
            )
            raise InputError(message)
        return pair, names


def _epochs(samples: SampleFiles, plan: BatchPlan, sources: Sequence[int]) -> Epochs | MixedEpochs:
    """The order of the samples: of one source, or of several by their shares."""
    if len(plan.shares) < 2:
        return Epochs(plan.seed, samples.sizes, plan.mixed_shards)
    ends = list(accumulate(sources))
    sizes = tuple(
        samples.sizes[end - count : end] for count, end in zip(sources, ends, strict=True)
    )
    for number, own in enumerate(sizes, start=1):
        if not sum(own):
            message = f"the shards of source {number} hold no sample: leave the source out"
            raise InputError(message)
    return MixedEpochs(plan.seed, sizes, plan.shares, plan.mixed_shards)


@dataclass(frozen=True)
class _Begun:
    """A batch that is being made, and what makes its samples, in their order."""

    room: BatchRoom
    work: list["Future[None]"]

    def batch(self) -> Batch:
        """Wait for it; the first error of its samples is raised."""
        for each in self.work:
            each.result()
        return self.room.batch()


def _handed(step: list[_Begun], free: list[BatchRoom]) -> Generator[list[Batch]]:
    """Hand out the batches of a step; their room is free when the next step is asked for."""
    yield [each.batch() for each in step]
    free += (each.room for each in step)


@dataclass(frozen=True)
class _Drawn:
    """A random view, its classes, what must not be their negatives, and the seed of its names."""

    pair: LabelledPair
    class_ids: tuple[int, ...]
    excluded: tuple[int, ...]
    seed: int
