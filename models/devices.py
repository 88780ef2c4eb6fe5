"""Devices by name; torch is imported when a device is asked for."""

from typing import TYPE_CHECKING

from storage.errors import InputError

if TYPE_CHECKING:
    import torch


def pick_device(name: str) -> "torch.device":
    """Turn a device name into a device; `auto` takes CUDA where there is one.

    Raises:
        InputError: If the name is unknown or the device is not there.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        message = f"device {name!r} is unknown; expected auto, cpu, cuda or cuda:<index>"
        raise InputError(message) from error
    if device.type not in {"cpu", "cuda"}:  # torch knows "meta" and others, no stage has run there
        message = f"device {name!r} is not supported; expected auto, cpu, cuda or cuda:<index>"
        raise InputError(message)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        message = f"device {name!r} is not there; {torch.cuda.device_count()} CUDA devices are"
        raise InputError(message)
    return device


def device_name(name: str) -> str:
    """Name what processes take turns on: the UUID of a GPU, and nothing for a CPU.

    Raises:
        InputError: If the device is unknown or not there.
    """
    import torch

    device = pick_device(name)
    if device.type != "cuda":
        return ""
    index = torch.cuda.current_device() if device.index is None else device.index
    return f"gpu-{torch.cuda.get_device_properties(index).uuid}"


def describe_device(name: str) -> str:
    """Say what computes, for records of how long it took: a GPU's product name, or cpu.

    Raises:
        InputError: If the device is unknown or not there.
    """
    import torch

    device = pick_device(name)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def free_device_memory() -> None:
    """Give back what torch keeps of a GPU's memory for tensors that are gone."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the machine, has too little memory."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "not enough memory" in str(error)
