"""Versions of the libraries that outputs depend on to the last bit."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

_NAMES = ("diffusers", "numpy", "pillow", "tokenizers", "torch", "torchvision", "transformers")


@cache
def library_versions() -> dict[str, str]:
    """Versions by name; what is not installed is not in it.

    torchvision is among them because transformers would choose image processors by it; the engine
    names them by class, and computes with Pillow.
    """
    found: dict[str, str] = {}
    for name in _NAMES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
