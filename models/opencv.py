"""OpenCV, or what to do where it cannot be loaded.

Two packages hold the same files: `opencv-python-headless`, which is ours, and `opencv-python`,
which others ask for and which needs graphics libraries that servers lack.
"""

from typing import Any

from models.loading import LOADING
from storage.errors import InputError

INSTALL_OPENCV = "pip install --force-reinstall --no-deps opencv-python-headless"
"""What brings OpenCV, over one that needs a display too."""


def load_opencv() -> Any:
    """Import OpenCV, without threads of its own: who calls it has some already.

    Raises:
        InputError: If it is not there or cannot be loaded; says how to get it.
    """
    try:
        with LOADING:
            import cv2
    except ImportError as error:
        message = f"OpenCV cannot be loaded ({error}); install it with: {INSTALL_OPENCV}"
        raise InputError(message) from error
    cv2.setNumThreads(1)
    return cv2
