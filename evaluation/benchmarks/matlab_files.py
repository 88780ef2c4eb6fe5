"""Label maps in MATLAB files, up to version 7 of the format."""

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadWarning

from evaluation.benchmarks.split_files import read_file
from storage.errors import DataError
from storage.picture_headers import MAX_PIXELS

_VARIABLE = "LabelMap"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_PLACES_OF_HDF5 = (0, 512)  # MATLAB puts its own header in front
_REAL = "iufb"


def read_label_map(path: Path, where_to_get: str) -> np.ndarray:
    """Read the matrix LabelMap.

    Args:
        path: The file.
        where_to_get: Where to get it, as part of a sentence.

    Returns:
        Finite real numbers, of shape (height, width).

    Raises:
        InputError: If the file is missing.
        DataError: If it is damaged, is of version 7.3, or holds no such matrix.
    """
    data = read_file(path, where_to_get, "a MATLAB file", "read")
    if any(data.startswith(_HDF5, place) for place in _PLACES_OF_HDF5):
        message = (
            f"{path} is a MATLAB file of version 7.3 (HDF5), expected version 7 or older: load it "
            "in MATLAB and save it with the option '-v7'"
        )
        raise DataError(message)
    found = _variable(data, path)
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype.kind not in _REAL:
        message = f"{path} holds no matrix LabelMap, expected one label a pixel: fetch it again"
        raise DataError(message)
    if not 0 < found.size <= MAX_PIXELS or not np.isfinite(found).all():
        message = (
            f"{path} holds a LabelMap of shape {found.shape} and what may be no number, expected "
            f"one label for each of 1 to {MAX_PIXELS} pixels: fetch it again"
        )
        raise DataError(message)
    return found


def _variable(data: bytes, path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "error", MatReadWarning
            )  # of a name that occurs twice: which one is it?
            return loadmat(BytesIO(data), variable_names=[_VARIABLE]).get(_VARIABLE)
    except Exception as error:
        # scipy fails on strange bytes with whatever its authors did not think of.
        message = (
            f"{path} cannot be read ({str(error) or repr(error)}), expected a MATLAB file: fetch "
            f"it again"
        )
        raise DataError(message) from error
