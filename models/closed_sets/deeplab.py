"""DeepLabV3 (arXiv 1706.05587) as mmsegmentation builds it.

The settings follow Dataset Diffusion (NeurIPS 2023), with which MagicSeg (arXiv 2603.19575, table
IV) compares itself: output stride 8, dilations 12, 24 and 36, an auxiliary head with weight 0.4.
"""

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from models.closed_sets.configs import DeepLabConfig
from models.closed_sets.normalisation import normalisation_document, normalise
from models.closed_sets.openmmlab import MODELS, EncoderDecoder

_BOTTLENECK_FROM = 50
_NORM = {"type": "BN", "requires_grad": True}


@MODELS.register_module()
class DeepLab(EncoderDecoder):
    """mmsegmentation's segmenter that can be asked for scores."""

    def scores(
        self, pixels: UInt8[Tensor, "1 3 rows columns"], size: tuple[int, int]
    ) -> Float[Tensor, "labels height width"]:
        """Score the labels of each pixel; see `models.closed_sets.networks.ClosedSetNetwork`."""
        shown = normalise(pixels)
        logits = self.encode_decode(shown, [{"img_shape": tuple(shown.shape[2:])}])
        # Logits are enlarged, not probabilities: the way of mmsegmentation.
        whole = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        return whole[0].softmax(dim=0)


def deeplab_document(config: DeepLabConfig, num_labels: int) -> dict[str, Any]:
    """Describe the network in the way in which mmsegmentation's registry builds it.

    Args:
        config: Its geometry.
        num_labels: Classes with background.
    """
    expansion = 4 if config.depth >= _BOTTLENECK_FROM else 1
    last = config.base_channels * 8 * expansion
    weights = config.backbone_weights
    pretrained = {"type": "Pretrained", "checkpoint": weights} if weights else None
    return {
        "type": "DeepLab",
        "data_preprocessor": normalisation_document(),
        "backbone": {
            "type": "ResNetV1c",
            "depth": config.depth,
            "base_channels": config.base_channels,
            "stem_channels": config.base_channels,
            "dilations": (1, 1, 2, 4),
            "strides": (1, 2, 1, 1),
            "norm_cfg": _NORM,
            "contract_dilation": True,
            "init_cfg": pretrained,
        },
        "decode_head": {
            "type": "ASPPHead",
            "in_channels": last,
            "in_index": 3,
            "channels": config.channels,
            "dilations": config.dilations,
            **_head(num_labels, 1.0),
        },
        "auxiliary_head": {
            "type": "FCNHead",
            "in_channels": last // 2,
            "in_index": 2,
            "channels": config.auxiliary_channels,
            "num_convs": 1,
            "concat_input": False,
            **_head(num_labels, 0.4),
        },
        "test_cfg": {"mode": "whole"},
    }


def _head(num_labels: int, weight: float) -> dict[str, Any]:
    return {
        "num_classes": num_labels,
        "dropout_ratio": 0.1,
        "norm_cfg": _NORM,
        "align_corners": False,
        "loss_decode": {"type": "CrossEntropyLoss", "loss_weight": weight},
    }
