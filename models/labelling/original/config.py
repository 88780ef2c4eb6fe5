"""Settings of the original back ends; nothing here needs torch or the packages themselves."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from models.arithmetic import Arithmetic
from models.labelling.config import BoxSegmenterConfig, SpanConfig
from models.labelling.original.files import (
    digest_of,
    files_of_text_encoder,
    find_checkpoint,
    find_settings,
    find_text_encoder,
    original_folder,
    read_settings,
)
from models.labelling.original.packages import (
    require_detector_packages,
    require_segmenter_packages,
)


class OriginalDetectorConfig(SpanConfig, frozen=True):
    """Grounding DINO as its authors' package computes it, from a released checkpoint."""

    kind: Literal["grounding-dino-original"] = "grounding-dino-original"
    """Tells this detector from others."""
    model: str
    """Folder that holds the checkpoint (`.pth`) and the folder of bert-base-uncased."""
    revision: None = None
    """Not used: a folder has none."""
    architecture: Literal["swint", "swinb", "own"] = "swint"
    """Whose settings the network has: those of a released checkpoint, or the file of settings
    (`.py`) in the folder, which is read and not run."""
    short_side: int = Field(800, ge=32, le=4096)
    """Pixels to which the short side of an image is brought."""
    long_side: int = Field(1333, ge=32, le=8192)
    """Most pixels that the long side then has, but for rounding; the short side gives way."""

    @field_validator("dtype")
    @classmethod
    def _is_whole(cls, value: Arithmetic) -> Arithmetic:
        return _whole(value)

    @property
    def settings(self) -> Path | None:
        """The file of settings in the folder, or None if the package's own are taken.

        Raises:
            InputError: If there is none in the folder, or there are several.
        """
        return find_settings(original_folder(self.model)) if self.architecture == "own" else None

    def name_weights(self) -> str:
        """Name the checkpoint, the settings and the vocabulary by their contents.

        Raises:
            InputError: If one is missing.
        """
        folder = original_folder(self.model)
        files = [find_checkpoint(folder), *files_of_text_encoder(find_text_encoder(folder))]
        return digest_of(folder, [*files, *([self.settings] if self.settings else [])])

    def check(self) -> str:
        """Look for the packages and the files without loading them; say where they are.

        Raises:
            InputError: If one is missing, and how to get it, or the settings cannot be read.
        """
        require_detector_packages()
        folder = original_folder(self.model)
        find_text_encoder(folder)
        if self.settings is not None:
            read_settings(self.settings)
        return f"{find_checkpoint(folder).name} in {folder}"


class OriginalSegmenterConfig(BoxSegmenterConfig, frozen=True):
    """SAM as its authors' package computes it, from a released checkpoint."""

    kind: Literal["sam-original"] = "sam-original"
    """Tells this segmenter from others."""
    model: str
    """Folder that holds the checkpoint (`.pth`)."""
    revision: None = None
    """Not used: a folder has none."""
    architecture: Literal["vit_h", "vit_l", "vit_b"] = "vit_h"
    """Size of the network, as the name of a released checkpoint says."""

    @field_validator("dtype")
    @classmethod
    def _is_whole(cls, value: Arithmetic) -> Arithmetic:
        return _whole(value)

    def name_weights(self) -> str:
        """Name the checkpoint by its contents.

        Raises:
            InputError: If it is missing.
        """
        folder = original_folder(self.model)
        return digest_of(folder, [find_checkpoint(folder)])

    def check(self) -> str:
        """Look for the packages and the checkpoint without loading them; say where it is.

        Raises:
            InputError: If one is missing; says how to get it.
        """
        require_segmenter_packages()
        folder = original_folder(self.model)
        return f"{find_checkpoint(folder).name} in {folder}"


def _whole(value: Arithmetic) -> Arithmetic:
    if value not in {"float32", "tf32"}:
        message = f"dtype is {value!r}, expected float32 or tf32: the package knows no other"
        raise ValueError(message)
    return value
