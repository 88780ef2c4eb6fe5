"""The packages of the extra `original`: whether they are there and fit to each other.

Nothing is imported to find that out, so that a run is refused before any weights are read.
"""

from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from models.loading import LOADING
from models.opencv import INSTALL_OPENCV
from storage.errors import InputError

INSTALL_ORIGINAL = "pip install 'magicseg-engine[original]'"
"""What brings the packages."""

# With what `groundingdino` imports, asked for by it or not.
_DETECTOR = ("groundingdino", "torchvision", "timm", "cv2", "matplotlib", "addict", "yapf")
_SEGMENTER = ("segment_anything", "torchvision")
_TOO_NEW = 5
_OWN = f"make an environment of its own for it, and in that: {INSTALL_ORIGINAL}"


def require_detector_packages() -> None:
    """Check that `groundingdino` can be used, without importing it.

    Raises:
        InputError: If a package is missing, or transformers is of a release that it cannot use.
    """
    _require("detector 'grounding-dino-original'", _DETECTOR)
    found = version("transformers")
    if int(found.partition(".")[0]) >= _TOO_NEW:
        message = (
            f"detector 'grounding-dino-original' works with transformers below {_TOO_NEW}, found "
            f"{found}; {_OWN}"
        )
        raise InputError(message)


def require_segmenter_packages() -> None:
    """Check that `segment_anything` can be used, without importing it.

    Raises:
        InputError: If a package is missing.
    """
    _require("segmenter 'sam-original'", _SEGMENTER)


def detector_package() -> Path:
    """The folder of `groundingdino`, which holds the settings of its released checkpoints."""
    spec = find_spec("groundingdino")
    if spec is None or spec.origin is None:
        message = f"groundingdino is not installed; {_OWN}"
        raise InputError(message)
    return Path(spec.origin).parent


def original_module(name: str) -> Any:
    """Import a module of one of the packages.

    Raises:
        InputError: If it is there and cannot be loaded; says what is missing.
    """
    try:
        with LOADING:
            return import_module(name)
    except ImportError as error:
        headless = f"on a machine without a display: {INSTALL_OPENCV}"
        way = headless if "libGL" in str(error) else _OWN
        message = f"{name} cannot be loaded ({error}); {way}"
        raise InputError(message) from error


def _require(who: str, packages: tuple[str, ...]) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        message = f"{who} needs {', '.join(missing)}; {_OWN}"
        raise InputError(message)
