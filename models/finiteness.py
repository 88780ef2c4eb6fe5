"""Finite numbers, which trained weights and what is computed from them must be made of."""

from collections.abc import Mapping

import torch
from torch import Tensor


def find_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name the first tensor with a value that is NaN or infinite; nothing if all are finite.

    The device is asked once for all tensors.
    """
    if not tensors:
        return None
    finite = torch.stack([tensor.isfinite().all() for tensor in tensors.values()]).tolist()
    return next((name for name, good in zip(tensors, finite, strict=True) if not good), None)
