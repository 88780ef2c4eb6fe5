"""The packages that closed-set networks need, and how they are installed."""

from importlib.util import find_spec

from storage.errors import InputError

INSTALL = "pip install 'magicseg-engine[mmseg]'"


def require_packages() -> None:
    """Check that what training and scoring need is installed, without importing it.

    Raises:
        InputError: If a package is missing.
    """
    missing = [name for name in ("mmcv", "mmengine", "mmseg", "ftfy") if find_spec(name) is None]
    if missing:
        message = f"closed-set segmenters need {', '.join(missing)}; install them with: {INSTALL}"
        raise InputError(message)
