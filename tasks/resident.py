"""Models that stay in this process: each is built once, and callers take turns on a device."""

import fcntl
import gc
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from models.devices import pick_device
from models.labelling.config import DetectorConfig, SegmenterConfig
from models.labelling.detectors import GroundingDino
from models.labelling.segmenters import Sam
from models.painting.config import PainterConfig
from models.painting.painters import DiffusionPairPainter
from models.protocols import Detector, PairPainter, PromptWriter, Segmenter
from models.writing.writers import WriterConfig, build_writer
from storage.ledger import Ledger
from storage.objects import open_objects

_building = threading.RLock()


def painter(config: PainterConfig) -> PairPainter:
    """The painter of a config."""
    with _building:
        return _painter(config)


def detector(config: DetectorConfig) -> Detector:
    """The detector of a config."""
    with _building:
        return _detector(config)


def segmenter(config: SegmenterConfig) -> Segmenter:
    """The segmenter of a config."""
    with _building:
        return _segmenter(config)


def writer(config: WriterConfig, root: str) -> PromptWriter:
    """The writer of a config for a dataset, with the ledger of the calls that were paid for it."""
    with _building:
        return _writer(config, root)


@cache
def _writer(config: WriterConfig, root: str) -> PromptWriter:
    return build_writer(config, Ledger(open_objects(root)))


_painter = cache(DiffusionPairPainter)
_detector = cache(GroundingDino)
_segmenter = cache(Sam)


def release() -> None:
    """Let go of all models, so that a training on the same device has their memory."""
    with _building:
        for built in (_writer, _painter, _detector, _segmenter):
            built.cache_clear()
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def turn(device: str) -> Iterator[None]:
    """Wait for a device and keep it until the block ends.

    Threads of this process take turns on every device. Processes take turns on a GPU, by a lock
    that the kernel frees with the process; on CPUs they run side by side.

    Args:
        device: As in a model's config.
    """
    place = pick_device(device)
    with _device_lock(str(place)):
        if place.type != "cuda":
            yield
            return
        path = Path(tempfile.gettempdir()) / f"magicseg-{str(place).replace(':', '-')}.lock"
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


@cache
def _device_lock(_device: str) -> threading.RLock:
    return threading.RLock()
