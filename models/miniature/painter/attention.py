"""Where the tokens of a text are seen: the cross-attention of a denoiser, kept while it computes.

The probabilities are computed beside the layer, from its own projections, so that what the layer
gives stays what it is, and so that another text can be looked up from the same picture.
"""

from functools import partial

from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

SIDES = (16, 8)
"""Sides of the grids whose attention is taught, in cells."""


class WordMaps:
    """Keeps the queries' states of each cross-attention layer, one forward pass at a time.

    Args:
        unet: The denoiser; hooks are put on it and stay.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self._layers = {
            name: module
            for name, module in unet.named_modules()
            if name.endswith(".attn2") and isinstance(module, Attention)
        }
        self._seen: dict[str, Tensor] = {}
        for name, layer in self._layers.items():
            layer.register_forward_pre_hook(partial(self._keep, name))

    def _keep(self, name: str, _layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        self._seen[name] = given[0]  # (batch, cells, channels)

    def maps(self, states: Tensor) -> list[Tensor]:
        """Look a text up from the picture of the last forward pass.

        Args:
            states: What the text encoder gives, float (batch, tokens, 64).

        Returns:
            For each layer whose grid is in `SIDES` the share of each token in a cell's attention,
            mean over the heads: float32 (batch, tokens, side, side), 1 in sum over the tokens.
        """
        found = []
        for name, seen in self._seen.items():
            layer = self._layers[name]
            side = round(seen.shape[1] ** 0.5)
            if side not in SIDES:
                continue
            # (batch, cells or tokens, channels) to (batch, heads, cells or tokens, head)
            query, key = (
                part.unflatten(2, (layer.heads, -1)).transpose(1, 2)
                for part in (layer.to_q(seen), layer.get_submodule("to_k")(states))
            )
            scores = query @ key.transpose(2, 3) * layer.scale  # (batch, heads, cells, tokens)
            shares = scores.float().softmax(-1).mean(1)  # (batch, cells, tokens)
            found.append(shares.transpose(1, 2).unflatten(2, (side, side)))
        return found
