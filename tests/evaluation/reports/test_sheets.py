"""Contact sheets and overlays."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.reports.sheets import (
    MAX_SHEET_BYTES,
    Quadruplet,
    class_colour,
    draw_sheet,
    overlay,
    pick_samples,
    resized,
    write_sheet,
)
from storage.errors import InputError
from storage.exclusions import exclude_samples
from storage.records import IGNORE_LABEL
from storage.store import Store


def test_an_overlay_shows_each_class_in_its_colour_and_the_outline_solid() -> None:
    image = np.full((9, 9, 3), 100, np.uint8)
    labels = np.zeros((9, 9), np.uint16)
    labels[2:7, 2:7] = 3
    labels[0, 0] = IGNORE_LABEL
    shown = overlay(image, labels)
    assert tuple(shown[2, 2]) == class_colour(3)
    inside, colour = shown[4, 4].astype(int), np.array(class_colour(3))
    assert (np.sign(inside - 100) == np.sign(colour - 100)).all()
    assert tuple(shown[0, 0]) == (128, 128, 128)
    assert len(set(shown[8, 8].tolist())) == 1
    assert (image == 100).all()


def test_a_mask_that_fills_the_image_has_no_outline() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    assert len(np.unique(overlay(image, np.ones((4, 4), np.uint16)).reshape(-1, 3), axis=0)) == 1


def test_the_colours_of_many_classes_differ() -> None:
    assert len({class_colour(label) for label in range(1, 300)}) > 290


def test_small_pictures_grow_with_sharp_pixels_and_large_ones_shrink() -> None:
    checks = np.zeros((4, 2, 3), np.uint8)
    checks[::2] = 255
    grown = np.asarray(resized(checks, 16))
    assert grown.shape == (16, 8, 3)
    assert set(np.unique(grown)) == {0, 255}
    assert resized(np.zeros((100, 200, 3), np.uint8), 50).size == (50, 25)


def test_the_classes_take_turns_across_all_shards(make_dataset: Callable[..., Path]) -> None:
    store = Store.open(make_dataset(shards=3, planned=14, dropped=0))
    picked = pick_samples(store, 14)
    assert len({sample.class_ids[0] for sample in picked}) == 14
    assert [s.key for s in picked] == [s.key for s in pick_samples(store, 14)]
    assert len(pick_samples(store, 1000)) == 42


def test_excluded_samples_are_not_picked(make_dataset):
    store = Store.open(make_dataset())
    [first, *others] = [sample.key for sample in pick_samples(store, 1000)]
    exclude_samples(store, [first], who="eve", why="blurred")
    assert sorted(sample.key for sample in pick_samples(store, 1000)) == sorted(others)


def test_a_dataset_gives_a_sheet_below_the_size_limit(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    path = write_sheet(make_dataset(), tmp_path / "pictures" / "sheet.png", count=7)
    assert path.stat().st_size <= MAX_SHEET_BYTES
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        colours = sheet.convert("RGB").getcolors(sheet.width * sheet.height)
    assert colours is not None
    assert len(colours) > 100


def test_a_sheet_that_is_too_large_is_drawn_smaller(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_dataset()
    large = write_sheet(root, tmp_path / "large.png", count=6)
    small = write_sheet(root, tmp_path / "small.png", count=6, max_bytes=20_000)
    assert large.stat().st_size > 20_000 >= small.stat().st_size
    with Image.open(large) as wide, Image.open(small) as narrow:
        assert narrow.width < wide.width


def test_image_counterfactual_and_masks_stand_side_by_side(
    make_dataset: Callable[..., Path],
) -> None:
    [sample, *_] = pick_samples(Store.open(make_dataset()), 1)
    red, green, blue = (
        np.broadcast_to(np.array(colour, np.uint8), (8, 8, 3)).copy()
        for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))
    )
    with Image.open(io.BytesIO(draw_sheet([Quadruplet(sample, red, green, blue)], tile=20))) as png:
        row = np.asarray(png)[20]
    edges = [np.flatnonzero((row == colour[0, 0]).all(axis=1)) for colour in (red, green, blue)]
    assert [len(edge) for edge in edges] == [20, 20, 20]
    assert edges[0][-1] < edges[1][0]
    assert edges[1][-1] < edges[2][0]


def test_an_empty_dataset_is_refused_with_the_way_out(tmp_path: Path) -> None:
    Store.create(tmp_path / "empty", {"seed": 1})
    with pytest.raises(InputError, match="run 'magicseg generate' first"):
        write_sheet(tmp_path / "empty", tmp_path / "sheet.png")
