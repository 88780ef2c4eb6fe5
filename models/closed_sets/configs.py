"""Closed-set networks and their settings; nothing here needs torch or mmsegmentation."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

RECIPE_FOLDER = Path(__file__).parents[1] / "data" / "closed_sets"
"""YAML files with a network and the schedule that suits it."""


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
    `open-mmlab://resnet50_v1c`; empty means random ones."""


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
    """Settings of a transformers backbone (`resnet`, `swin` ...), `model_type` among them; the
    default is a ResNet-50."""
    decoder: dict[str, Any] = Field(default_factory=dict)
    """Settings of transformers' Mask2FormerConfig that differ from its own: widths, layers,
    queries, points and weights of the loss."""
    weights: str | None = None
    """A trained Mask2Former of the same geometry to start from, a folder or a hub id; its classes
    are replaced."""
    backbone_weights: str | None = None
    """Weights that the backbone starts from, a folder or a hub id; empty means random ones, or
    those of `weights`."""
    revision: str | None = None
    """Commit or tag, where a hub id is given."""


NetworkConfig = Annotated[DeepLabConfig | Mask2FormerConfig, Field(discriminator="kind")]
