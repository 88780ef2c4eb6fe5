"""Label maps of every depth and colour type: the number that is stored, or a refusal in words."""

import numpy as np
import pytest
from PIL import Image

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.colour_tables import context_colours
from evaluation.benchmarks.contract import BenchmarkConfig
from hostile import chunk, saved
from png_files import GREY, GREY_ALPHA, PALETTE, RGB, RGB_ALPHA, write_png
from storage.errors import DataError
from storage.label_colours import voc_colours
from storage.records import IGNORE_LABEL

VOC = voc_colours()
CAT, VOID = 8, 255
LABELS = np.zeros((6, 9), np.uint8)
LABELS[1:4, 2:7] = CAT
LABELS[0, 2:7] = VOID


@pytest.fixture
def read(tmp_path):
    """Reads a label map as a benchmark does."""

    def read(label: bytes, name: str = "voc21", size: tuple[int, int] | None = None) -> np.ndarray:
        root = tmp_path / name
        folders = {"coco_object": ("images/val2017", "annotations/val2017")}
        plain = ("JPEGImages", "SegmentationClass" + "Context" * name.startswith("context"))
        images, labels = (root / folder for folder in folders.get(name, plain))
        lists = root / "ImageSets" / ("Segmentation" + "Context" * name.startswith("context"))
        for folder in (images, labels, lists):
            folder.mkdir(parents=True, exist_ok=True)
        path = labels / ("1_instanceTrainIds.png" if name == "coco_object" else "1.png")
        path.write_bytes(label)
        Image.new("RGB", size or (9, 6), "grey").save(images / "1.jpg")
        (lists / "val.txt").write_text("1\n")
        [sample] = open_benchmark(BenchmarkConfig.model_validate({"name": name, "root": root}))
        return np.where(sample.labels == IGNORE_LABEL, VOID, sample.labels)

    return read


def as_colours(labels: np.ndarray, alpha: int | None = None) -> np.ndarray:
    found = VOC[labels]
    return found if alpha is None else np.dstack([found, np.full(labels.shape, alpha, np.uint8)])


TRANSPARENT = chunk(b"tRNS", b"\0\1")


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("extra", [b"", TRANSPARENT, chunk(b"gAMA", b"\0\0\xb1\x8f")])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_holds_the_labels_whatever_its_depth(read, depth, extra, interlaced):
    labels = np.arange(54).reshape(6, 9) % min(2**depth, 21)
    label = write_png(labels, depth, interlaced=interlaced, extra=extra)
    np.testing.assert_array_equal(read(label), labels)


def test_16_bits_hold_void_and_no_more_than_other_depths(read):
    np.testing.assert_array_equal(read(write_png(LABELS, 16)), LABELS)
    for wrong in (256 + CAT, 65535, 21):
        with pytest.raises(DataError, match=rf"1\.png holds the label {wrong}, expected 0 to 20"):
            read(write_png(np.where(LABELS, wrong, 0), 16))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_indices_are_the_labels_where_the_palette_has_their_colours(read, depth, interlaced):
    labels = np.arange(54).reshape(6, 9) % min(2**depth, 21)
    for palette in (VOC[: 2**depth], np.arange(2**depth)[:, None].repeat(3, 1)):
        label = write_png(labels, depth, PALETTE, palette=palette, interlaced=interlaced)
        np.testing.assert_array_equal(read(label), labels)


def test_only_the_colours_in_use_count(read):
    palette = VOC.copy()
    palette[30:200] = 77
    label = write_png(LABELS, 8, PALETTE, palette=palette, extra=chunk(b"tRNS", b"\0" * 9))
    np.testing.assert_array_equal(read(label), LABELS)


@pytest.mark.parametrize("order", [[0, CAT, VOID], [VOID, CAT, 0], [CAT, 0, VOID]])
def test_a_rebuilt_palette_is_read_by_its_colours(read, order):
    places = np.zeros(256, np.uint8)
    places[order] = range(3)
    label = write_png(places[LABELS], 2, PALETTE, palette=VOC[order])
    np.testing.assert_array_equal(read(label), LABELS)
    assert read(label, "miniature").tolist() == LABELS.tolist()
    assert read(label, "context60").tolist() == LABELS.tolist()


def test_what_pillow_makes_of_a_picture_in_colours_is_read_by_its_colours(read):
    adaptive = Image.fromarray(as_colours(LABELS)).convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(read(saved(adaptive)), LABELS)
    plain = Image.fromarray(LABELS)
    plain.putpalette(VOC.tobytes())
    np.testing.assert_array_equal(read(saved(plain, optimize=True)), LABELS)


def test_a_short_palette_that_is_padded_with_black_leaves_void_where_it_is(read):
    """So save programs that know 21 colours; 255 is then black, which is no background."""
    padded = np.zeros((256, 3), np.uint8)
    padded[:21] = VOC[:21]
    for palette in (padded, padded[:21], np.zeros((256, 3))):
        np.testing.assert_array_equal(read(write_png(LABELS, 8, PALETTE, palette=palette)), LABELS)


@pytest.mark.parametrize(
    ("palette", "words"),
    [
        (np.roll(VOC, 3) ^ 1, r"\(225, 225, 193\) at index 0 .*expected \(0, 0, 0\) there"),
        ([(0, 0, 0)] * 8 + [(64, 0, 1)] * 248, r"\(64, 0, 1\) at index 8 .*\(64, 0, 0\) there"),
        ([(0, 0, 0), *[(9, 9, 9)] * 254, (255, 0, 0)], r"\(9, 9, 9\) at index 8 "),
        ([(255, 255, 255), (0, 0, 0)], r"\(255, 255, 255\) at index 0"),
    ],
)
def test_other_palettes_are_refused_with_the_colour_that_was_found(read, palette, words):
    with pytest.raises(DataError, match=words + r".*grey PNG of 8 bits"):
        read(write_png(LABELS, 8, PALETTE, palette=palette))


def test_colours_of_no_class_are_none_of_the_benchmark(read):
    order = [0, 100, VOID]  # VOC's table goes on behind its classes
    with pytest.raises(DataError, match=r"at index 1 .*palette"):
        read(write_png(LABELS // 128 + (LABELS == CAT), 2, PALETTE, palette=VOC[order]))


def test_the_palette_of_mmsegmentation_is_known_for_context(read):
    table = context_colours(59).tables[1]
    labels = np.arange(54).reshape(6, 9) % 60
    assert read(write_png(labels, 8, PALETTE, palette=table), "context60").tolist() == (
        labels.tolist()
    )
    few = [0, 3, 59]
    moved = write_png(np.arange(54).reshape(6, 9) % 3, 2, PALETTE, palette=table[few])
    assert set(np.unique(read(moved, "context60"))) == set(few)
    twins = [0, 6, 48]  # two classes share a colour, which therefore says neither
    with pytest.raises(DataError, match=r"1\.png has the colour"):
        read(
            write_png(np.arange(54).reshape(6, 9) % 3, 2, PALETTE, palette=table[twins]),
            "context60",
        )


def test_where_no_colours_are_known_indices_are_the_labels(read):
    labels = np.arange(54).reshape(6, 9)
    palette = np.random.default_rng(0).integers(0, 256, (64, 3))
    found = read(write_png(labels, 8, PALETTE, palette=palette), "coco_object")
    np.testing.assert_array_equal(found, labels)
    greys = [(0, 0, 0), (12, 12, 12), (80, 80, 80)]  # what makes a palette of a grey picture
    with pytest.raises(DataError, match=r"the grey 12 at index 1 of its palette, and either may"):
        read(write_png(labels % 3, 2, PALETTE, palette=greys), "coco_object")
    with pytest.raises(DataError, match=r"1_instanceTrainIds\.png is a PNG of 8-bit RGB, expected"):
        read(write_png(as_colours(LABELS), 8, RGB), "coco_object")


@pytest.mark.parametrize("interlaced", [False, True])
def test_pictures_in_the_colours_of_the_benchmark_are_read(read, interlaced):
    found = read(write_png(as_colours(LABELS), 8, RGB, interlaced=interlaced))
    np.testing.assert_array_equal(found, LABELS)
    found = read(write_png(as_colours(LABELS, 255), 8, RGB_ALPHA, interlaced=interlaced))
    np.testing.assert_array_equal(found, LABELS)


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (write_png(as_colours(LABELS) + 1, 8, RGB), r"\(1, 1, 1\) at row 0, column 0, which is no"),
        (
            write_png(LABELS[..., None].repeat(3, 2), 8, RGB),
            r"8-bit RGB with the colour \(255, 255, 255\) at row 0, column 2, .*channels are equal",
        ),
        (write_png(as_colours(LABELS, 254), 8, RGB_ALPHA), "RGB with alpha and transparent at row"),
        (write_png(np.zeros((6, 9, 2)), 8, GREY_ALPHA), "a PNG of 8-bit grey with alpha, expected"),
        (write_png(np.zeros((6, 9, 3)), 16, RGB), "a PNG of 16-bit RGB, expected one label"),
        (write_png(np.zeros((6, 9, 4)), 16, RGB_ALPHA), "a PNG of 16-bit RGB with alpha, expected"),
        (saved(Image.fromarray(LABELS), "JPEG"), "is a JPEG of 8-bit grey, expected one label"),
        (saved(Image.fromarray(LABELS), "GIF"), r"GIF87a.*which is GIF.* save it as JPEG or PNG"),
        (b"", r"which is an empty file.*fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "`git lfs pull`"),
    ],
)
def test_what_holds_no_labels_is_refused_for_what_it_is(read, label, words):
    with pytest.raises(DataError, match=rf"1\.png .*{words}"):
        read(label)


def test_labels_and_image_whose_sides_are_exchanged_are_named(read):
    with pytest.raises(DataError, match=r"of 9 x 6 pixels, expected 6 x 9 .*height are exchanged"):
        read(write_png(LABELS, 8, GREY), size=(6, 9))
