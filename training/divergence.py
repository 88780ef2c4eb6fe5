"""Divergence: a run whose numbers are no longer finite stops, and says the way out."""

import math
from collections.abc import Mapping

from storage.errors import InputError

_USUAL_NORM = 1


class DivergedError(InputError):
    """A loss, gradient or weight is not finite; the same run would end the same way."""


def not_finite(values: Mapping[str, float]) -> list[str]:
    """Say which of some values are NaN or infinite: `loss is nan`."""
    return [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]


def lower_settings(prefix: str, learning_rate: float, clip_norm: float | None) -> list[str]:
    """Settings of an optimiser whose change keeps a run from diverging, as parts of a sentence.

    Args:
        prefix: What stands before the names of its fields in the config.
        learning_rate: The highest rate.
        clip_norm: Largest norm of the gradient, or nothing.
    """
    way = f"lower {prefix}learning_rate (now {learning_rate:g})"
    if clip_norm is None:
        return [way, f"set {prefix}clip_norm ({_USUAL_NORM} is usual)"]
    return [way, f"lower {prefix}clip_norm (now {clip_norm:g})"]


def diverged(where: str, found: list[str], ways: list[str], then: str) -> DivergedError:
    """The error that ends a run.

    Args:
        where: The step and its learning rate.
        found: Which values are not finite.
        ways: What may be changed.
        then: How a run with the changes is started.
    """
    message = (
        f"training has diverged at {where}: {', '.join(found)}, expected finite numbers. To go on, "
        f"{', or '.join(ways)}; {then}"
    )
    return DivergedError(message)
