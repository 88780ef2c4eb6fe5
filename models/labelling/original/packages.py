"""The packages of the extra `original`: whether they are there and fit to each other.

Nothing is imported to find out, so that a run is refused before any weights are read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from storage.errors import InputError

INSTALL_ORIGINAL = "pip install 'magicseg-engine[original]'"
"""What brings the packages."""

_DETECTOR = ("groundingdino", "torchvision", "supervision", "matplotlib", "cv2", "timm", "addict")
_SEGMENTER = ("segment_anything", "torchvision")
_TOO_NEW = 5
_OWN = f"make an environment of its own for it, and in that: {INSTALL_ORIGINAL}"
_HEADLESS = "pip install --force-reinstall --no-deps opencv-python-headless"


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


@contextmanager
def importing_original() -> Iterator[None]:
    """Explain what is missing when a package is there and cannot be loaded.

    Raises:
        InputError: Instead of an ImportError.
    """
    try:
        yield
    except ImportError as error:
        way = f"on a machine without a display: {_HEADLESS}" if "libGL" in str(error) else _OWN
        message = f"the packages of the extra 'original' cannot be loaded ({error}); {way}"
        raise InputError(message) from error


def _require(who: str, packages: tuple[str, ...]) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        message = f"{who} needs {', '.join(missing)}; {_OWN}"
        raise InputError(message)
