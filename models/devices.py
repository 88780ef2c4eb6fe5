"""Devices by name."""

import torch

from storage.errors import InputError


def pick_device(name: str) -> torch.device:
    """Turn a device name into a device; `auto` takes CUDA where there is one.

    Raises:
        InputError: If the name is unknown or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        message = f"device {name!r} is unknown; expected auto, cpu, cuda or cuda:<index>"
        raise InputError(message) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        message = f"device {name!r} is not there; {torch.cuda.device_count()} CUDA devices are"
        raise InputError(message)
    return device
