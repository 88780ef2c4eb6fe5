"""What is trained on: generated datasets, and folders of real images."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from evaluation.benchmarks.contract import BenchmarkConfig
from storage.paths import local_path
from tasks.imports import ImportJob, RealImport

__all__ = ["DataSource"]

RealLayout = Literal["voc21", "context60", "coco_object", "miniature"]
"""Data sets whose label maps say of every pixel what it shows, or that it shows none of them."""

IMPORTS_FOLDER = "imports"
"""Name of the folder, in a run's, with real images in the engine's format."""

_TRAIN = "train"
_SPLIT = r"^[\w-]+$"


class DataSource(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """A source of samples to train on."""

    path: Annotated[str, Field(min_length=1)]
    """Root of a dataset, a folder of tars, or with a layout the folder of real images."""
    layout: RealLayout | None = None
    """How real images lie in the folder: `voc21`, `context60`, `coco_object` or `miniature`, as
    benchmarks of these names do. Empty for what was generated."""
    split: str | None = Field(default=None, pattern=_SPLIT, validate_default=True)
    """Which part of real images; `train` if empty."""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Its share of the samples drawn is this by the sum of all weights."""

    @field_validator("split")
    @classmethod
    def _only_of_real(cls, value: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("layout", _TRAIN) is not None:  # an unknown layout is an error already
            return value or _TRAIN
        if value is not None:
            message = "what was generated has no splits: leave out split, or name the layout"
            raise ValueError(message)
        return None

    def real_import(self, vocabulary: str, imports: str) -> RealImport | None:
        """The step that brings real images into the engine's format; None if they are generated.

        Args:
            vocabulary: Name of the vocabulary that labels are brought to.
            imports: Folder for imports.

        Raises:
            InputError: If the path is none of this machine.
        """
        if self.layout is None:
            return None
        root = local_path(self.path, "the folder of real images")
        benchmark = BenchmarkConfig(name=self.layout, root=root, split=self.split or _TRAIN)
        return RealImport(ImportJob(benchmark=benchmark, vocabulary=vocabulary, imports=imports))
