"""Deformable attention of the Grounding DINO family, without waiting and without large steps.

Each query attends to a few points of each level of features, which it chooses itself (Deformable
DETR, arXiv 2010.04159, eq. 3). The library asks the GPU in each of twelve layers whether levels and
features are as many, and waits for the answer; and it reads the points of a level into memory
before they are weighted: 1.7 GB a layer for eight images of 800 pixels. Here nothing is asked, and
on a GPU the points are weighted as they are read, in one kernel.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from models.compiling import compiled_for_batches

_CORNERS = (0, 1)
_OF_A_POINT = 2
"""Coordinates of a reference point; boxes have four."""


def attend_to_points(network: Any, batch_size: int | None) -> None:
    """Let all layers of a network attend so; what they give is the same.

    Args:
        network: Grounding DINO or MM-Grounding-DINO of transformers.
        batch_size: Points are weighted as they are read, by what is compiled, in batches of as many
            images, of the first size that fills one; other batches by the library's own steps. None
            to compile nothing.
    """
    for part in ("encoder", "decoder"):  # with as many queries as cells, and with a few
        layers = [
            module
            for module in getattr(network.model, part).modules()
            if type(module).__name__.endswith("MultiscaleDeformableAttention")
        ]
        weigh = partial(_by_the_library, layers[0])
        if batch_size is not None:
            name = f"the attention of the detector's {part}"
            weigh = compiled_for_batches(
                weighted_points, name, batch_size=batch_size, otherwise=weigh
            )
        for layer in layers:
            layer.forward = partial(_attend, layer, weigh)


def _attend(  # noqa: PLR0913 - as the library calls it
    attention: Any,
    weigh: Callable[..., Tensor],
    hidden_states: Float[Tensor, "images queries channels"],
    *,
    encoder_hidden_states: Float[Tensor, "images cells channels"],
    reference_points: Float[Tensor, "images queries levels corners"],
    spatial_shapes: Int64[Tensor, "levels 2"],
    level_start_index: Int64[Tensor, " levels"],
    attention_mask: Bool[Tensor, "images cells"] | None = None,
    position_embeddings: Float[Tensor, "images queries channels"] | None = None,
    **_others: Any,
) -> tuple[
    Float[Tensor, "images queries channels"], Float[Tensor, "images queries heads levels points"]
]:
    queries = hidden_states if position_embeddings is None else hidden_states + position_embeddings
    values = attention.value_proj(encoder_hidden_states)
    if attention_mask is not None:
        values = values.masked_fill(~attention_mask[..., None], 0.0)
    heads, levels, points = attention.n_heads, attention.n_levels, attention.n_points
    values = values.unflatten(-1, (heads, -1))
    offsets = attention.sampling_offsets(queries).unflatten(-1, (heads, levels, points, 2))
    weights = attention.attention_weights(queries).unflatten(-1, (heads, levels * points))
    weights = weights.softmax(-1).unflatten(-1, (levels, points))
    around = reference_points[:, :, None, :, None]
    if around.shape[-1] == _OF_A_POINT:
        places = around + offsets / spatial_shapes.flip(-1)[:, None]
    else:  # boxes: centre and extent
        places = around[..., :2] + offsets / points * around[..., 2:] * 0.5
    found = weigh(values, spatial_shapes, level_start_index, places, weights)
    return attention.output_proj(found), weights


def _by_the_library(
    attention: Any,
    values: Float[Tensor, "images cells heads channels"],
    shapes: Int64[Tensor, "levels 2"],
    starts: Int64[Tensor, " levels"],
    places: Float[Tensor, "images queries heads levels points 2"],
    weights: Float[Tensor, "images queries heads levels points"],
) -> Float[Tensor, "images queries all"]:
    sizes = [(int(rows), int(columns)) for rows, columns in shapes.tolist()]
    return attention.attn(values, shapes, sizes, starts, places, weights, attention.im2col_step)


def weighted_points(
    values: Float[Tensor, "images cells heads channels"],
    shapes: Int64[Tensor, "levels 2"],
    starts: Int64[Tensor, " levels"],
    places: Float[Tensor, "images queries heads levels points 2"],
    weights: Float[Tensor, "images queries heads levels points"],
) -> Float[Tensor, "images queries all"]:
    """Weighted sums of features at places, which lie between four cells each.

    Args:
        values: Features, level after level.
        shapes: Rows and columns of each level.
        starts: The first cell of each level.
        places: From 0 to 1 across and down a level; beyond it all is zero.
        weights: Of each place.

    Returns:
        For each query the sums of all heads, one after the other.
    """
    rows, columns = shapes[:, :1], shapes[:, 1:]
    across = places[..., 0].float() * columns - 0.5
    down = places[..., 1].float() * rows - 0.5
    cells: list[Tensor] = []
    shares: list[Tensor] = []
    for lower, right in product(_CORNERS, _CORNERS):
        row, column = down.floor() + lower, across.floor() + right
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        share = (1 - (down - row).abs()) * (1 - (across - column).abs()) * weights
        shares.append(torch.where(inside, share, 0.0))
        cells.append(starts[:, None] + torch.where(inside, row * columns + column, 0.0).long())
    images, queries, heads = places.shape[:3]
    cell = torch.stack(cells, -1).flatten(3)
    share = torch.stack(shares, -1).flatten(3)
    image = torch.arange(images, device=places.device)[:, None, None, None]
    head = torch.arange(heads, device=places.device)[:, None]
    weighted = values[image, cell, head].float() * share[..., None]
    return weighted.sum(3).to(values.dtype).view(images, queries, -1)
