"""Committed shards as batches: a pure function of the seed and the position in the run.

Every position of a run has its sample, its view and its names, however many processes, threads or
restarts there are. A sample is read by one range request, decoded, and kept if all fit in memory.
"""

import json
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from storage.codecs import decode_image, decode_label_map
from storage.errors import DataError, InputError
from storage.objects import open_objects
from storage.shards import read_index
from storage.store import SPEC_PATH, Store
from storage.vocabulary import Vocabulary
from training.augmentation import AugmentationConfig, View, augment
from training.negatives import Exclusions, NegativesConfig
from training.sampling import IGNORE, remap, sample_subsets

_PREFETCH = 3


@dataclass(frozen=True)
class ShardFile:
    """A tar to train on.

    Attributes:
        path: Absolute path or URL.
        identity: Digest, or name and size, of its contents.
    """

    path: str
    identity: str


@dataclass(frozen=True)
class Stored:
    """A decoded sample.

    Attributes:
        view: Images and labels as stored.
        class_ids: Vocabulary indices of its classes.
        text: What the positive image shows.
    """

    view: View
    class_ids: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Batch:
    """What one pass through the network is computed from, on the CPU.

    Attributes:
        image: Positive images, RGB levels.
        counterfactual: Counterfactual images of the same views.
        targets: Position of each pixel's class in the image's names, or a negative number.
        class_ids: Vocabulary indices of the names, the image's own first.
        active: Names that may teach the image anything.
        num_present: (image, class) pairs of which the targets show at least one pixel.
    """

    image: UInt8[Tensor, "batch 3 side side"]
    counterfactual: UInt8[Tensor, "batch 3 side side"]
    targets: Int[Tensor, "batch side side"]
    class_ids: Int[Tensor, "batch m"]
    active: Bool[Tensor, "batch m"]
    num_present: int


@dataclass(frozen=True)
class ViewPlan:
    """How samples become batches.

    Attributes:
        side: Side of the views in pixels.
        classes_per_image: Names an image, m.
        negatives: Names that are kept out of an image's negatives.
        augmentation: Random views.
        padding: Colour outside an image.
        seed: Root of every random choice.
    """

    side: int
    classes_per_image: int
    negatives: NegativesConfig
    augmentation: AugmentationConfig
    padding: tuple[int, int, int]
    seed: int


def find_shards(dataset: str, *, use_degraded: bool = False) -> list[ShardFile]:
    """List the tars to train on, in order of their names.

    Args:
        dataset: Root of a dataset, of which committed shards alone are listed, or a local folder
            with tars.
        use_degraded: Whether shards below the dataset's minimum yield are listed too.

    Raises:
        InputError: If there is nothing to train on.
    """
    if open_objects(dataset).size(SPEC_PATH) is not None:
        return _committed_shards(dataset, use_degraded=use_degraded)
    tars = sorted(Path(dataset).expanduser().glob("*.tar"))
    if not tars:
        msg = f"{dataset} is neither a dataset nor a folder with tars: generate the dataset first"
        raise InputError(msg)
    return [ShardFile(str(tar.absolute()), f"{tar.name}:{tar.stat().st_size}") for tar in tars]


def _committed_shards(dataset: str, *, use_degraded: bool) -> list[ShardFile]:
    shards = Store.open(dataset).shards()
    files = [
        ShardFile(shard.path, shard.sha256)
        for shard in shards
        if shard.path is not None and (use_degraded or not shard.degraded)
    ]
    if not files:
        msg = (
            f"{dataset} has {len(shards)} committed shards of which none can be trained on: "
            "generate more, or set degraded_shards to 'use' if their yield is merely low"
        )
        raise InputError(msg)
    return files


class SampleFiles:
    """Random access to the samples of some shards.

    Args:
        shards: The tars.
        vocabulary: What their class indices mean.
        cache_bytes: Decoded samples are kept if all of them need no more than this.

    Raises:
        DataError: If a tar is cut, or a sample misses a member.
    """

    def __init__(
        self, shards: Sequence[ShardFile], vocabulary: Vocabulary, *, cache_bytes: int = 0
    ) -> None:
        self.vocabulary = vocabulary
        self._places = [shard.path.rpartition("/")[::2] for shard in shards]
        self._folders = {folder: open_objects(folder) for folder, _ in self._places}
        self._entries: list[tuple[int, dict[str, tuple[int, int]]]] = []
        for number, shard in enumerate(shards):
            for key, members in read_index(shard.path).items():
                _check_members(shard.path, key, members)
                self._entries.append((number, members))
        self._cache_bytes = cache_bytes
        self._kept: dict[int, Stored] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Stored:
        """Read and decode a sample, or take it from memory.

        Raises:
            DataError: If its bytes cannot be decoded.
            InputError: If it names its classes otherwise than the vocabulary.
        """
        if index in self._kept:
            return self._kept[index]
        stored = self._decode(index)
        size = sum(part.nbytes for part in vars(stored.view).values())
        if size * len(self) <= self._cache_bytes:
            self._kept[index] = stored
        return stored

    def _decode(self, index: int) -> Stored:
        number, members = self._entries[index]
        folder, name = self._places[number]
        first = min(offset for offset, _ in members.values())
        last = max(offset + size for offset, size in members.values())
        # The members of a sample lie side by side, so that one request fetches them all.
        span = self._folders[folder].read_range(name, first, last - first)
        part = {e: span[o - first : o - first + size] for e, (o, size) in members.items()}
        suffix = "png" if "png" in part else "jpg"
        view = View(
            decode_image(part[suffix]),
            decode_image(part[f"cf.{suffix}"]),
            decode_label_map(part["mask.png"]),
        )
        fields = json.loads(part["json"])
        return Stored(view, self._class_ids(fields, f"{folder}/{name}"), fields["text"])

    def _class_ids(self, fields: dict[str, Any], where: str) -> tuple[int, ...]:
        for class_id, name in zip(fields["class_ids"], fields["class_names"], strict=True):
            known = self.vocabulary[class_id].name if class_id < len(self.vocabulary) else "nothing"
            if known != name:
                msg = (
                    f"{where} calls class {class_id} {name!r}, but the vocabulary "
                    f"{self.vocabulary.name!r} has {known!r} there: train with the dataset's own"
                )
                raise InputError(msg)
        return tuple(fields["class_ids"])


class Batches:
    """Batches by position.

    Args:
        samples: Where samples come from.
        plan: How they become batches.

    Raises:
        InputError: If there is no sample.
    """

    def __init__(self, samples: SampleFiles, plan: ViewPlan) -> None:
        if not len(samples):
            msg = "the shards hold no sample, expected at least one: generate the dataset first"
            raise InputError(msg)
        self.samples = samples
        self.plan = plan
        self._exclusions = Exclusions(samples.vocabulary, plan.negatives)

    def batch(self, first: int, size: int, pool: ThreadPoolExecutor | None = None) -> Batch:
        """Make the batch of `size` positions from `first` on; the same whenever it is asked for."""
        positions = range(first, first + size)
        drawn = list(pool.map(self._draw, positions) if pool else map(self._draw, positions))
        number = len(self.samples.vocabulary)
        subsets = sample_subsets(
            [own.class_ids for own in drawn],
            number,
            self.plan.classes_per_image,
            np.array([own.seed for own in drawn], np.uint64),
            [own.excluded for own in drawn],
        )
        targets = remap(np.stack([own.view.labels for own in drawn]), subsets, number)
        return Batch(
            image=_channels_first([own.view.image for own in drawn]),
            counterfactual=_channels_first([own.view.counterfactual for own in drawn]),
            targets=torch.from_numpy(targets),
            class_ids=torch.from_numpy(np.ascontiguousarray(subsets.class_ids)),
            active=torch.from_numpy(subsets.active),
            num_present=sum(_count_present(own_targets) for own_targets in targets),
        )

    def stream(
        self, firsts: Iterator[Sequence[int]], size: int, threads: int
    ) -> Generator[list[Batch]]:
        """Make lists of batches ahead of their use.

        Args:
            firsts: First positions of the batches of each step.
            size: Samples a batch.
            threads: Threads that make views; 0 makes them when they are asked for.
        """
        if not threads:
            for step in firsts:
                yield [self.batch(first, size) for first in step]
            return
        with ThreadPoolExecutor(threads) as pool, ThreadPoolExecutor(1) as assembler:
            ahead: deque[Future[list[Batch]]] = deque()

            def assemble(step: Sequence[int]) -> list[Batch]:
                return [self.batch(first, size, pool) for first in step]

            try:
                for step in firsts:
                    ahead.append(assembler.submit(assemble, step))
                    if len(ahead) > _PREFETCH:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def _draw(self, position: int) -> "_Drawn":
        """What a position of the run shows."""
        epoch, place = divmod(position, len(self.samples))
        index = int(_order(self.plan.seed, epoch, len(self.samples))[place])
        stored = self.samples[index]
        rng = np.random.default_rng((self.plan.seed, epoch, index))
        plan = self.plan
        return _Drawn(
            view=augment(stored.view, plan.side, plan.augmentation, rng, padding=plan.padding),
            class_ids=stored.class_ids,
            excluded=self._exclusions.of(stored.class_ids, stored.text),
            seed=int(rng.integers(2**63)),
        )


@dataclass(frozen=True)
class _Drawn:
    """A view with its classes, what must not be their negatives, and the seed of its names."""

    view: View
    class_ids: tuple[int, ...]
    excluded: tuple[int, ...]
    seed: int


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of an epoch."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def _count_present(targets: np.ndarray) -> int:
    """Classes with a pixel in one image."""
    counts = np.bincount(targets.ravel() - IGNORE)
    return int(np.count_nonzero(counts[-IGNORE:]))


def _channels_first(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def _check_members(path: str, key: str, members: dict[str, tuple[int, int]]) -> None:
    suffix = "png" if "png" in members else "jpg"
    missing = {suffix, f"cf.{suffix}", "mask.png", "json"} - members.keys()
    if missing:
        msg = f"{path}: sample {key} has no {', '.join(sorted(missing))}: verify the dataset"
        raise DataError(msg)
