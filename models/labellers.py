"""Labellers: what finds the classes in an image and cuts them out.

A labeller is one network that does both (a kind of the role in `models.registry`), or `grounded`:
a detector and a segmenter, each of any kind. The stages stay two: the first finds, the second cuts,
unless what was found came with its masks.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import numpy as np
from jaxtyping import UInt8
from pydantic import BaseModel, Discriminator, Tag

from models.attention_maps import MapsWanted
from models.labelling.attention.config import DatasetDiffusionConfig, DiffuMaskConfig
from models.protocols import CutMasks, Detector, FoundBoxes, FoundObjects, Labeller, Segmenter
from models.registry import (
    AnyDetectorConfig,
    AnySegmenterConfig,
    Role,
    build,
    kinds_of,
)
from storage.errors import InputError

__all__ = ["Grounded", "GroundedConfig", "build_labeller"]


class GroundedConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """A detector whose boxes a segmenter cuts out: the labeller of MagicSeg."""

    kind: Literal["grounded"] = "grounded"
    """Tells this labeller from others."""
    detector: AnyDetectorConfig
    """Finds the classes."""
    segmenter: AnySegmenterConfig
    """Cuts out what was found."""


class Grounded:
    """A detector and a segmenter as one labeller.

    Args:
        detector: Finds.
        segmenter: Cuts.
    """

    def __init__(self, detector: Detector, segmenter: Segmenter) -> None:
        self._detector = detector
        self._segmenter = segmenter

    def detect(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], phrases: Sequence[tuple[str, ...]]
    ) -> list[FoundBoxes]:
        """Find each image's own phrases in it."""
        return self._detector.detect(images, phrases)

    def label(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], phrases: Sequence[tuple[str, ...]]
    ) -> list[FoundObjects]:
        """Find each image's own phrases in it, and cut them out where there are any."""
        found = self._detector.detect(images, phrases)
        full = [index for index, boxes in enumerate(found) if len(boxes.xyxy)]
        cut_of: dict[int, CutMasks] = {}
        if full:
            cuts = self._segmenter.segment(
                [images[index] for index in full], [found[index].xyxy for index in full]
            )
            cut_of = dict(zip(full, cuts, strict=True))
        return [
            FoundObjects(boxes, cut_of.get(index) or _nothing(images[index]))
            for index, boxes in enumerate(found)
        ]


def _nothing(image: UInt8[np.ndarray, "height width 3"]) -> CutMasks:
    return CutMasks(np.zeros((0, *image.shape[:2]), np.bool_), np.zeros(0, np.float32))


def finding_part(labeller: Any) -> Any:
    """The configuration of the model that finds: the detector, or the one network."""
    if isinstance(labeller, DiffuMaskConfig | DatasetDiffusionConfig):
        return labeller.detector or labeller
    return labeller.detector if isinstance(labeller, GroundedConfig) else labeller


def cutting_part(labeller: Any) -> Any:
    """The configuration of the model that cuts; None if masks come with the boxes."""
    if isinstance(labeller, DiffuMaskConfig | DatasetDiffusionConfig):
        return labeller if labeller.detector else None
    return labeller.segmenter if isinstance(labeller, GroundedConfig) else None


def maps_wanted(labeller: Any) -> MapsWanted | None:
    """What a labeller reads of the painter's attention; None if it looks at pictures alone."""
    return (
        labeller.wanted()
        if isinstance(labeller, DiffuMaskConfig | DatasetDiffusionConfig)
        else None
    )


def parts_of(labeller: Any) -> dict[Role, Any]:
    """The configurations of a labeller's networks by their roles."""
    if isinstance(labeller, GroundedConfig):
        return {Role.DETECTOR: labeller.detector, Role.SEGMENTER: labeller.segmenter}
    if isinstance(labeller, DiffuMaskConfig | DatasetDiffusionConfig) and labeller.detector:
        return {Role.DETECTOR: labeller.detector, Role.LABELLER: labeller}
    return {Role.LABELLER: labeller}


def on_device(labeller: Any, execution: Mapping[str, Any]) -> Any:
    """The same labeller, executed in another way.

    Args:
        labeller: Its configuration.
        execution: Device, and batch size if that is to change, for each of its networks.
    """
    names = [name for name in ("detector", "segmenter") if getattr(labeller, name, None)]
    moved = {name: getattr(labeller, name).model_copy(update=execution) for name in names}
    own = {} if isinstance(labeller, GroundedConfig) else execution
    return labeller.model_copy(update={**own, **moved})


def labeller_identity(labeller: Any) -> Any:
    """What a labeller's boxes and masks depend on."""
    return [config.identity() for config in parts_of(labeller).values()]


def build_labeller(labeller: Any) -> Labeller:
    """Build a labeller as one model, for use outside of the stages.

    Raises:
        InputError: If weights or a package are missing, or the labeller needs more than pictures.
    """
    if isinstance(labeller, DiffuMaskConfig | DatasetDiffusionConfig):
        message = (
            f"a labeller of the kind {labeller.kind!r} reads its painter's attention, expected "
            "one that labels any picture, such as 'grounded'"
        )
        raise InputError(message)
    built = [build(config) for config in parts_of(labeller).values()]
    return Grounded(*built) if isinstance(labeller, GroundedConfig) else built[0]


def _labeller_type() -> Any:
    kinds = kinds_of(Role.LABELLER)

    def tag(value: Any) -> str:
        return value.get("kind", "grounded") if isinstance(value, dict) else value.kind

    members = (
        Annotated[GroundedConfig, Tag("grounded")],
        *(Annotated[kind.config, Tag(kind.name)] for kind in kinds),
    )
    return Annotated[Union[members], Discriminator(tag)]  # noqa: UP007 - made of a tuple


if TYPE_CHECKING:
    AnyLabellerConfig = GroundedConfig
else:
    AnyLabellerConfig = _labeller_type()
