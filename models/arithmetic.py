"""What float32 means on a GPU: whole numbers, or factors of matrix products rounded to TF32."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Arithmetic = Literal["float32", "tf32", "float16", "bfloat16"]
"""How a network computes; in `tf32` all is stored as float32."""

_ROUNDING = threading.RLock()


def torch_dtype(arithmetic: str) -> "torch.dtype":
    """What tensors are stored in."""
    import torch

    return getattr(torch, "float32" if arithmetic == "tf32" else arithmetic)


@contextmanager
def rounding_of(arithmetic: str, device: "torch.device") -> Iterator[None]:
    """Let matrix products of float32 be whole or rounded while a network is given its work.

    torch has one switch for the process. Whoever computes in float32 on a GPU holds it meanwhile,
    so that a thread of one arithmetic never computes in that of another one. Convolutions are
    rounded to TF32 in both, as torch does by itself.

    Args:
        arithmetic: Of the network.
        device: Where it computes; on a CPU nothing is rounded.
    """
    import torch

    if device.type != "cuda" or torch_dtype(arithmetic) != torch.float32:
        yield
        return
    switch = torch.backends.cuda.matmul
    with _ROUNDING:
        before = switch.allow_tf32
        switch.allow_tf32 = arithmetic == "tf32"
        try:
            yield
        finally:
            switch.allow_tf32 = before


def keep_in_float32(module: "torch.nn.Module") -> None:
    """Let a part of a network compute in float32, whatever the rest that calls it computes in.

    Args:
        module: What it is given is cast; what it gives stays in float32.
    """
    import torch

    def cast(given: Any) -> Any:
        is_floating = isinstance(given, torch.Tensor) and given.is_floating_point()
        return given.float() if is_floating else given

    def before(_: "torch.nn.Module", given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return tuple(map(cast, given)), {name: cast(value) for name, value in named.items()}

    module.float()
    module.register_forward_pre_hook(before, with_kwargs=True)
