"""Attention of SAM's image encoder, without a number for every pair of places at once.

What a place adds to its attention to others depends on how far they are apart in rows and in
columns (MViTv2, arXiv 2112.01526). The library adds both up for all pairs of places before it
attends: 800 MB for one image of 1,024 pixels in ViT-B, 4.3 GB for four in ViT-H. A row of places
attends without the others, so that here the sums are made for some rows at a time.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

# A GPU wants much to do at once; on a CPU few are as fast.
_SUMS_AT_ONCE = {"cpu": 2**24, "cuda": 2**27}


def attend_in_rows(encoder: Any, sums_at_once: int | None = None) -> None:
    """Let all layers of an image encoder attend so; what they give is the same.

    Args:
        encoder: That of SAM or SAM-HQ in transformers.
        sums_at_once: How many pairs of places are looked at together, but at least those of a row
            in all images and heads; None for what suits the device.
    """
    for layer in encoder.layers:
        if layer.attn.use_rel_pos:
            layer.attn.forward = partial(_attend, layer.attn, sums_at_once)


def _attend(
    attention: Any,
    sums_at_once: int | None,
    hidden_states: Float[Tensor, "images height width channels"],
) -> tuple[Float[Tensor, "images height width channels"], None]:
    images, height, width, _ = hidden_states.shape
    heads = attention.num_attention_heads
    projected = attention.qkv(hidden_states).reshape(images, height * width, 3, heads, -1)
    queries, keys, values = projected.permute(2, 0, 3, 1, 4).unbind(0)  # images heads places _
    grid = queries.unflatten(2, (height, width))
    made = [
        scaled_dot_product_attention(grid[:, :, rows].flatten(2, 3), keys, values, attn_mask=sums)
        for rows, sums in _sums_of_rows(attention, grid, sums_at_once)
    ]
    attended = torch.cat(made, dim=2) if len(made) > 1 else made[0]
    joined = attended.unflatten(2, (height, width)).permute(0, 2, 3, 1, 4).flatten(3)
    return attention.proj(joined), None


def _sums_of_rows(
    attention: Any, grid: Float[Tensor, "images heads height width _"], sums_at_once: int | None
) -> Iterator[tuple[slice, Float[Tensor, "images heads places all"]]]:
    """Some rows at a time, what each of their places adds to its attention to all places."""
    images, heads, height, width, _ = grid.shape
    by_row = attention.get_rel_pos(height, height, attention.rel_pos_h)  # from to channels
    by_column = attention.get_rel_pos(width, width, attention.rel_pos_w)
    flat = grid.flatten(0, 1)  # the library multiplies so, and other ways round otherwise
    down = torch.einsum("bhwc,hkc->bhwk", flat, by_row).unflatten(0, (images, heads))
    across = torch.einsum("bhwc,wkc->bhwk", flat, by_column).unflatten(0, (images, heads))
    of_a_row = images * heads * width * height * width
    step = max(1, (sums_at_once or _SUMS_AT_ONCE[grid.device.type]) // of_a_row)
    for first in range(0, height, step):
        rows = slice(first, first + step)
        sums = down[:, :, rows, :, :, None] + across[:, :, rows, :, None, :]
        yield rows, sums.flatten(4, 5).flatten(2, 3)
