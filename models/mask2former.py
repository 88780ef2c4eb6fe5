"""Mask2Former (arXiv 2112.01527) of transformers, as a network that mmsegmentation can train.

Every label that an image shows is a mask to be found, background among them. Ignored pixels belong
to no mask, as in the original code for semantic segmentation.
"""

from typing import Any

import torch
import torch.nn.functional as F
import transformers
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import CONFIG_MAPPING, Mask2FormerForUniversalSegmentation

from models.closed_set import Mask2FormerConfig, normalisation_document, normalise
from models.openmmlab import MODELS, BaseModel
from models.weights import explained, resolve_weights
from storage.errors import InputError

_IGNORE = 255
_MULTIPLE = 32


@MODELS.register_module()
class Mask2Former(BaseModel):
    """A Mask2Former in the clothes of mmengine.

    Args:
        settings: Fields of `models.closed_set.Mask2FormerConfig`.
        num_labels: Classes with background.
        data_preprocessor: How pixels become input.
    """

    def __init__(
        self, settings: dict[str, Any], num_labels: int, data_preprocessor: dict[str, Any]
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.network = _network(Mask2FormerConfig.model_validate(dict(settings)), num_labels)

    def forward(
        self, inputs: Tensor, data_samples: list[Any] | None = None, mode: str = "tensor"
    ) -> Any:
        """Compute the loss (mode ``loss``) or transformers' output."""
        if mode != "loss":
            return self.network(pixel_values=inputs)
        maps = [sample.gt_sem_seg.data[0] for sample in data_samples or ()]
        shown = [labels.unique() for labels in maps]
        shown = [values[values != _IGNORE].long() for values in shown]
        masks = [
            (labels[None] == values[:, None, None]).to(inputs.dtype)
            for labels, values in zip(maps, shown, strict=True)
        ]
        output = self.network(pixel_values=inputs, mask_labels=masks, class_labels=shown)
        return {"loss": output.loss.squeeze()}

    def scores(
        self, pixels: UInt8[Tensor, "1 3 rows columns"], size: tuple[int, int]
    ) -> Float[Tensor, "labels height width"]:
        """Score the labels of each pixel; see `models.closed_set.ClosedSetNetwork`."""
        rows, columns = pixels.shape[2:]
        # Padded on the normalised image with 0, as a training crop beyond the border is.
        margin = (0, -columns % _MULTIPLE, 0, -rows % _MULTIPLE)
        shown = F.pad(normalise(pixels), margin)
        output = self.network(pixel_values=shown)
        masks = _enlarged(output.masks_queries_logits, tuple(shown.shape[2:]))
        masks = _enlarged(masks[:, :, :rows, :columns], size)[0].sigmoid()
        # The last class means "no object".
        classes = output.class_queries_logits[0].softmax(dim=-1)[:, :-1]
        return torch.einsum("qc,qhw->chw", classes, masks).clamp(max=1.0)


def mask2former_document(config: Mask2FormerConfig, num_labels: int) -> dict[str, Any]:
    """Describe the network in the way in which mmsegmentation's registry builds it.

    Args:
        config: Its geometry and weights.
        num_labels: Classes with background.
    """
    return {
        "type": "Mask2Former",
        "settings": config.model_dump(),
        "num_labels": num_labels,
        "data_preprocessor": normalisation_document(),
    }


def _network(config: Mask2FormerConfig, num_labels: int) -> Any:
    """Build transformers' network.

    Raises:
        InputError: If its weights are missing or of another geometry.
    """
    if config.weights is not None:
        weights = resolve_weights(config.weights, config.revision)
        with explained(weights):
            return Mask2FormerForUniversalSegmentation.from_pretrained(
                weights.source,
                revision=weights.revision,
                num_labels=num_labels,
                ignore_mismatched_sizes=True,
            )
    backbone = dict(config.backbone)
    kind = CONFIG_MAPPING[backbone.pop("model_type")]
    network = Mask2FormerForUniversalSegmentation(
        transformers.Mask2FormerConfig(
            backbone_config=kind(**backbone), num_labels=num_labels, **config.decoder
        )
    )
    if config.backbone_weights is not None:
        _start_backbone(network.model.pixel_level_module.encoder, config)
    return network


def _start_backbone(encoder: Any, config: Mask2FormerConfig) -> None:
    weights = resolve_weights(str(config.backbone_weights), config.revision)
    with explained(weights):
        trained = type(encoder).from_pretrained(
            weights.source,
            revision=weights.revision,
            out_features=list(config.backbone["out_features"]),
        )
    found = {name: tensor.shape for name, tensor in trained.state_dict().items()}
    wanted = {name: tensor.shape for name, tensor in encoder.state_dict().items()}
    if found != wanted:
        message = (
            f"backbone weights {config.backbone_weights} have another geometry than the backbone "
            f"{config.backbone['model_type']}: give its settings in network.backbone"
        )
        raise InputError(message)
    encoder.load_state_dict(trained.state_dict())


def _enlarged(
    maps: Float[Tensor, "1 queries rows columns"], size: tuple[int, ...]
) -> Float[Tensor, "1 queries height width"]:
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)
