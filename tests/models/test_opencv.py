import sys

import numpy as np
import pytest

from models.opencv import load_opencv
from storage.errors import InputError


def test_opencv_has_no_threads_of_its_own():
    assert load_opencv().getNumThreads() == 1


def test_a_missing_opencv_is_named_with_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match=r"install it with: pip install .* opencv-python-headless"):
        load_opencv()


def test_the_hues_of_all_levels_are_those_that_mmsegmentation_turns():
    """Hue in [0, 180), saturation and value in [0, 255]; every release that is allowed agrees."""
    cv2 = load_opencv()
    colours = np.array([[(255, 0, 0), (0, 255, 0), (0, 0, 255), (10, 10, 10), (200, 100, 50)]])
    found = cv2.cvtColor(colours.astype(np.uint8), cv2.COLOR_RGB2HSV)
    expected = [(0, 255, 255), (60, 255, 255), (120, 255, 255), (0, 0, 10), (10, 191, 200)]
    np.testing.assert_array_equal(found[0], expected)
