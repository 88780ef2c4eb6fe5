"""Closed-set segmenters: DeepLabV3 of mmsegmentation and Mask2Former of transformers.

They have one output a class, background among them, and no text: what MagicSeg (arXiv 2603.19575)
trains on its synthetic data in table IV. This module says what they are made of and can be imported
without mmsegmentation; `deeplab` and `mask2former` beside it are the networks.
"""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from torch import Tensor

from models.closed_sets.configs import DeepLabConfig, Mask2FormerConfig


@runtime_checkable
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
    from models.closed_sets.openmmlab import MODELS, MmengineConfig

    changed: dict[str, Any] = {"backbone_weights": None}
    if config.kind == "mask2former":
        changed["weights"] = None
    document = network_document(config.model_copy(update=changed), num_labels)
    return MODELS.build(MmengineConfig({"network": document}).network)
