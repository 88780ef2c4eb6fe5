"""Steps that the processor knows, so that it never waits for a GPU to ask which one comes next.

A sampler looks its numbers up by the step. If the steps lie on the GPU, each such look waits until
all work before it is done, and the GPU then waits for the processor: some 3 ms a step of Stable
Diffusion on an H200.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_PLACE = 1
"""Of the step among what a U-Net of diffusers is called with."""


def keep_steps_on_the_processor(sampler: Any, network: Any) -> None:
    """Let a sampler lay its steps out on the processor, and hand the network its own copies.

    Args:
        sampler: Of diffusers.
        network: A U-Net, which is called with one step at a time.
    """
    sampler.set_timesteps = _on_the_processor(sampler.set_timesteps)
    copies: dict[float, Tensor] = {}

    def hand_over(called: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        step = given[_PLACE] if len(given) > _PLACE else None
        if not isinstance(step, Tensor) or step.device == called.device:
            return given
        key = float(step)
        if key not in copies:
            copies[key] = step.to(called.device)
        return (*given[:_PLACE], copies[key], *given[_PLACE + 1 :])

    network.register_forward_pre_hook(hand_over)


def _on_the_processor(lay_out: Callable[..., None]) -> Callable[..., None]:
    def set_timesteps(*args: Any, **options: Any) -> None:
        lay_out(*args, **options | {"device": torch.device("cpu")})

    return set_timesteps
