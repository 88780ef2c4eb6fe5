"""Overlays and heat maps of what words found."""

import io

import numpy as np
import pytest
from PIL import Image

from evaluation.reports.found_words import LegendEntry, draw_heat, draw_overlay
from evaluation.reports.sheets import class_colour


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_what_was_found_and_its_swatch_have_the_colour_of_the_label() -> None:
    image, labels = np.full((32, 64, 3), 200, np.uint8), np.zeros((32, 64), np.uint16)
    labels[8:24, 16:48] = 3
    legend = [LegendEntry("cat", 1, 0.0), LegendEntry("boat", 3, 0.25)]
    shown = pixels(draw_overlay(image, labels, legend))
    assert shown.shape[1] == 512
    above, below = shown[:256], shown[256:]
    outline = (above == class_colour(3)).all(axis=2)
    assert outline[64, 128:384].all()  # the upper edge, eight times as large
    assert (below == class_colour(3)).all(axis=2).any()
    assert not (below == class_colour(1)).all(axis=2).any()


@pytest.mark.parametrize("shape", [(1, 1), (17, 333), (3000, 2), (2, 5000), (700, 900)])
def test_a_picture_of_any_size_is_shown_at_one_that_fits_a_screen(shape: tuple[int, int]) -> None:
    labels = np.ones(shape, np.uint16)
    image = np.zeros((*shape, 3), np.uint8)
    height, width = pixels(draw_overlay(image, labels, [LegendEntry("cat", 1, 1.0)])).shape[:2]
    assert 256 <= width <= 2048
    assert height <= 2048 + 40


def test_hundreds_of_words_and_endless_ones_have_a_place_in_the_legend() -> None:
    labels = np.arange(1, 401, dtype=np.uint16).reshape(20, 20)
    legend = [LegendEntry("w" * 10_000, label, 1 / 400) for label in range(1, 401)]
    legend += [LegendEntry("\U0001f408" * 10_000, 500 + number, 0.0) for number in range(400)]
    draw_overlay(np.zeros((20, 20, 3), np.uint8), labels, legend)


def test_the_levels_of_a_heat_map_are_the_scores() -> None:
    scores = np.array([[0.0, 0.5, 1.0]], np.float32)
    assert pixels(draw_heat(scores)).tolist() == [[0, 128, 255]]
