"""The names of the benchmarks, apart from everything that reads them: help must come at once."""

from typing import Literal

BenchmarkName = Literal[
    "voc21",
    "voc20",
    "context60",
    "context59",
    "coco_object",
    "coco_stuff",
    "cityscapes",
    "lvis",
    "open_images",
    "miniature",
    "miniature14",
]
