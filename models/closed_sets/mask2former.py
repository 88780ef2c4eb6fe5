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

from models.closed_sets.configs import Mask2FormerConfig
from models.closed_sets.normalisation import normalisation_document, normalise
from models.closed_sets.openmmlab import MODELS, BaseModel
from models.networks import load_part
from models.weights import resolve_weights
from storage.errors import InputError

_IGNORE = 255
_MULTIPLE = 32
_OF_STAGES = "hidden_states_norms."  # of a backbone's outputs; a classifier's weights have none


@MODELS.register_module()
class Mask2Former(BaseModel):
    """A Mask2Former that mmengine can train.

    Args:
        settings: Fields of `models.closed_sets.configs.Mask2FormerConfig`.
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
        """Score the labels of each pixel; see `models.closed_sets.networks.ClosedSetNetwork`."""
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
    backbone = dict(config.backbone)
    kind = CONFIG_MAPPING[backbone.pop("model_type")]
    settings: dict[str, Any] = {**config.decoder, "num_labels": num_labels}
    network = Mask2FormerForUniversalSegmentation(
        transformers.Mask2FormerConfig(backbone_config=kind(**backbone), **settings)
    )
    if config.weights is not None:
        _start(network, config.weights, config.revision)
    elif config.backbone_weights is not None:
        encoder = network.model.pixel_level_module.encoder
        stages = list(config.backbone["out_features"])
        _start(encoder, config.backbone_weights, config.revision, out_features=stages)
    return network


def _start(network: Any, model: str, revision: str | None, **options: Any) -> None:
    """Copy trained weights; what belongs to the classes stays as it is."""
    weights = resolve_weights(model, revision)
    trained = load_part(type(network), weights, dtype="float32", fresh=_OF_STAGES, **options)
    given, wanted = _without_classes(trained), _without_classes(network)
    if {n: t.shape for n, t in given.items()} != {n: t.shape for n, t in wanted.items()}:
        message = (
            f"weights {model} have another geometry than the network: give their settings in "
            "network.backbone and network.decoder"
        )
        raise InputError(message)
    network.load_state_dict(given, strict=False)


def _without_classes(network: Any) -> dict[str, Tensor]:
    """The tensors that do not depend on the classes."""
    return {
        name: tensor
        for name, tensor in network.state_dict().items()
        if not name.startswith(("class_predictor.", "criterion."))
    }


def _enlarged(
    maps: Float[Tensor, "1 queries rows columns"], size: tuple[int, ...]
) -> Float[Tensor, "1 queries height width"]:
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)
