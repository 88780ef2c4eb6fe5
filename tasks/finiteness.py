"""Samples for which a model gave values that are no numbers: dropped, with what to do about it."""

import numpy as np

from models.registry import Role
from storage.records import Reason, Rejected, Stage


def are_finite(*values: np.ndarray) -> bool:
    """Whether no value is NaN or infinite."""
    return all(bool(np.isfinite(array).all()) for array in values)


def drop_not_finite(key: str, stage: Stage, role: Role, what: str) -> Rejected:
    """Drop a sample because a model's values are not finite.

    Args:
        key: The sample's.
        stage: The stage that the model works for.
        role: The model's.
        what: What is not finite, in plural.
    """
    detail = (
        f"the {role}'s {what} are not finite (NaN or infinite), as when half precision overflows; "
        f"expected numbers: set the {role}'s dtype to float32 or bfloat16"
    )
    return Rejected(key=key, stage=stage, reason=Reason.NOT_FINITE, detail=detail)
