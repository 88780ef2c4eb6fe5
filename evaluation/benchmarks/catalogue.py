"""The catalogue: every benchmark by its name; each layout on disk is a module of its own."""

from collections.abc import Callable

from evaluation.benchmarks.contract import Benchmark, BenchmarkConfig
from evaluation.benchmarks.names import BenchmarkName
from evaluation.benchmarks.open_images import OpenImages

__all__ = ["open_benchmark"]


def open_benchmark(config: BenchmarkConfig) -> Benchmark | OpenImages:
    """Open a benchmark; images are read later, one by one.

    Returns:
        Images with label maps; for `open_images` images with points.

    Raises:
        InputError: If the folder, the split's list or its annotations are not there, or the list is
            empty.
        DataError: If the list or the annotations are damaged.
    """
    if config.name == "open_images":
        return OpenImages(config.root, config.split, config.limit, available=config.available)
    # The readers build on what this module says, so that it can import them here only.
    from evaluation.benchmarks.cityscapes import open_cityscapes
    from evaluation.benchmarks.coco_object import open_coco_object
    from evaluation.benchmarks.coco_stuff import open_coco_stuff
    from evaluation.benchmarks.context import open_context
    from evaluation.benchmarks.lvis import open_lvis
    from evaluation.benchmarks.voc import open_voc

    readers: dict[BenchmarkName, Callable[[BenchmarkConfig], Benchmark]] = {
        "context60": open_context,
        "context59": open_context,
        "coco_object": open_coco_object,
        "coco_stuff": open_coco_stuff,
        "cityscapes": open_cityscapes,
        "lvis": open_lvis,
    }
    return readers.get(config.name, open_voc)(config)
