"""Closed-set segmenters: DeepLabV3 of mmsegmentation and Mask2Former of transformers.

They have one output a class, background among them, and no text: what MagicSeg (arXiv 2603.19575)
trains on its synthetic data in table IV. This module says what they are made of and can be imported
without mmsegmentation; `models/deeplab.py` and `models/mask2former.py` are the networks.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import torch
from jaxtyping import Float, UInt8
from pydantic import BaseModel, Field
from torch import Tensor

from storage.errors import InputError

RECIPE_FOLDER = Path(__file__).parents[1] / "data" / "closed_sets"
"""YAML files with a network and the schedule that suits it."""

INSTALL = "pip install 'magicseg-engine[mmseg]'"

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


class DeepLabConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """DeepLabV3 with an auxiliary head on a dilated ResNet of output stride 8."""

    kind: Literal["deeplabv3"] = "deeplabv3"
    """Tells the networks apart."""
    depth: Literal[18, 34, 50, 101, 152] = 50
    """Layers of the ResNet (the variant with three small convolutions as its stem)."""
    base_channels: int = Field(default=64, ge=1)
    """Channels of its first stage; each further stage has twice as many."""
    channels: int = Field(default=512, ge=1)
    """Channels of the pyramid of dilated convolutions."""
    dilations: tuple[int, ...] = (1, 12, 24, 36)
    """Its dilations, in cells of the feature map."""
    auxiliary_channels: int = Field(default=256, ge=1)
    """Channels of the auxiliary head."""
    backbone_weights: str | None = None
    """Weights that the ResNet starts from: a file, a URL, or a name that mmengine knows such as
    `open-mmlab://resnet50_v1c`; nothing means random ones."""


class Mask2FormerConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Mask2Former with a backbone of transformers; each class is a mask to be found."""

    kind: Literal["mask2former"] = "mask2former"
    """Tells the networks apart."""
    backbone: dict[str, Any] = Field(
        default={
            "model_type": "resnet",
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
        }
    )
    """Settings of a transformers backbone, `model_type` among them; the default is a ResNet-50."""
    decoder: dict[str, Any] = Field(default_factory=dict)
    """Settings of transformers' Mask2FormerConfig that differ from its own: widths, layers,
    queries, points and weights of the loss."""
    weights: str | None = None
    """A trained Mask2Former of the same geometry to start from, a folder or a hub id; its classes
    are replaced."""
    backbone_weights: str | None = None
    """Weights that the backbone starts from, a folder or a hub id; nothing means random ones, or
    those of `weights`."""
    revision: str | None = None
    """Commit or tag, where a hub id is given."""


NetworkConfig = Annotated[DeepLabConfig | Mask2FormerConfig, Field(discriminator="kind")]


class ClosedSetNetwork(Protocol):
    """A trained network as scoring needs it."""

    def scores(
        self, pixels: UInt8[Tensor, "1 3 rows columns"], size: tuple[int, int]
    ) -> Float[Tensor, "labels height width"]:
        """Score the labels of each pixel.

        Args:
            pixels: RGB levels at the size in which the image is shown.
            size: Height and width of the map to return.

        Returns:
            Scores in [0, 1]; the label of a pixel is the place of its largest one.
        """
        ...


def require_packages() -> None:
    """Check that what training and scoring need is installed, without importing it.

    Raises:
        InputError: If a package is missing.
    """
    missing = [name for name in ("mmcv", "mmengine", "mmseg", "ftfy") if find_spec(name) is None]
    if missing:
        message = f"closed-set segmenters need {', '.join(missing)}; install them with: {INSTALL}"
        raise InputError(message)


def network_document(config: DeepLabConfig | Mask2FormerConfig, num_labels: int) -> dict[str, Any]:
    """Describe a network in the way in which mmsegmentation's registry builds it.

    Args:
        config: The network.
        num_labels: Classes with background.

    Raises:
        InputError: If mmsegmentation is not installed.
    """
    if config.kind == "deeplabv3":
        from models.closed_sets.deeplab import deeplab_document

        return deeplab_document(config, num_labels)
    from models.closed_sets.mask2former import mask2former_document

    return mask2former_document(config, num_labels)


def build_network(config: DeepLabConfig | Mask2FormerConfig, num_labels: int) -> Any:
    """Build a network without loading any weights.

    Returns:
        A torch module that is a `ClosedSetNetwork`.

    Raises:
        InputError: If mmsegmentation is not installed.
    """
    from models.closed_sets.openmmlab import MODELS, Config

    changed: dict[str, Any] = {"backbone_weights": None}
    if config.kind == "mask2former":
        changed["weights"] = None
    document = network_document(config.model_copy(update=changed), num_labels)
    return MODELS.build(Config({"network": document}).network)


def normalisation_document() -> dict[str, Any]:
    """How pixels become the input of a network: ImageNet's mean and deviation, RGB."""
    return {
        "type": "mmseg.SegDataPreProcessor",
        "mean": MEAN,
        "std": STD,
        "bgr_to_rgb": True,
        "pad_val": 0,
        "seg_pad_val": 255,
    }


def normalise(pixels: UInt8[Tensor, "1 3 rows columns"]) -> Float[Tensor, "1 3 rows columns"]:
    """Turn RGB levels into the input of a network, as in training."""
    shape = (1, 3, 1, 1)
    mean = torch.tensor(MEAN, device=pixels.device).view(shape)
    return (pixels - mean) / torch.tensor(STD, device=pixels.device).view(shape)
