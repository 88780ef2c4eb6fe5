"""Lists in every spelling, folders that are laid out nearly right, and what messages find there."""

import codecs
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.contract import Benchmark, BenchmarkConfig
from storage.errors import DataError, InputError


def write(root: Path, *names: str, listing: str | bytes | None = None, split: str = "val") -> Path:
    """A folder in the layout of PASCAL VOC; without a list, one of the plain names."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / "JPEGImages" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "SegmentationClass" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2)).save(root / "JPEGImages" / f"{name}.jpg")
        Image.fromarray(np.ones((2, 3), np.uint8)).save(root / "SegmentationClass" / f"{name}.png")
    text = "".join(f"{name}\n" for name in names) if listing is None else listing
    data = text if isinstance(text, bytes) else text.encode()
    (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_bytes(data)
    return root


def opened(root: Path, **options: object) -> Benchmark:
    return open_benchmark(
        BenchmarkConfig.model_validate({"name": "voc21", "root": root, **options})
    )


def keys(root: Path, **options: object) -> list[str]:
    benchmark = opened(root, **options)
    benchmark.check()
    return [sample.key for sample in benchmark]


PLAIN = [
    "a\nb\n",
    "a\n\ufeffb\n",
    "a\r\nb\r\n",
    "a\rb",
    "\n\n a \n\n\tb\t\n",
    "\n".join(["a  1", "b -1"]),
]
FILES = ["a.jpg\nb.jpg\n", "a.JPG\nb.jpeg", "a.png\nb.png", '"a.jpg"\n"b.jpg"\n']
PATHS = [
    "./a\n./b\n",
    "JPEGImages/a.jpg\nJPEGImages/b.jpg\n",
    "/home/me/VOC2012/JPEGImages/a.jpg\n/home/me/VOC2012/JPEGImages/b.jpg",
    "C:\\data\\JPEGImages\\a.jpg\nC:\\data\\JPEGImages\\b.jpg\n",
    "../VOC2012/JPEGImages/a\n../VOC2012/JPEGImages/b",
]
PAIRS = [
    "/JPEGImages/a.jpg /SegmentationClass/a.png\n/JPEGImages/b.jpg /SegmentationClassAug/b.png",
    "JPEGImages/a.jpg\tSegmentationClass/a.png\nJPEGImages/b.jpg\tSegmentationClass/b.png",
    "a.jpg,a.png\nb.jpg, b.png\n",
    "a.jpg;a.png\nb.jpg;b.png",
    "a,7\nb,9",
    "image,label\na.jpg,a.png\nb.jpg,b.png\n",
    "image_path\tmask_path\na.jpg\ta.png\nb.jpg\tb.png\n",
    "JPEGImages\\a.jpg  SegmentationClass\\a.png\r\nJPEGImages\\b.jpg  SegmentationClass\\b.png",
]


@pytest.mark.parametrize("listing", [*PLAIN, *FILES, *PATHS, *PAIRS])
def test_a_list_names_images_in_any_spelling(tmp_path, listing):
    assert keys(write(tmp_path, "a", "b", listing=listing)) == ["a", "b"]


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: text.encode("utf-16"),
        lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
        lambda text: text.replace("\n", "\r\n").encode("utf-16-le"),
    ],
)
def test_a_list_may_be_in_any_encoding_that_can_be_told(tmp_path, encode):
    root = write(tmp_path, "2007_000033", "caf\xe9", listing=encode("2007_000033\ncaf\xe9\n"))
    assert keys(root) == ["2007_000033", "caf\xe9"]


def test_a_list_in_another_encoding_is_refused_with_the_byte(tmp_path):
    root = write(tmp_path, "a", listing=b"a\ncaf\xe9\n")
    with pytest.raises(DataError, match=r"val\.txt holds the byte 0xe9 .*line 2.*save it as UTF-8"):
        opened(root)


@pytest.mark.parametrize(
    ("names", "listing"),
    [
        (["my photo 1", "my photo 2"], None),
        (["my photo 1", "my photo 2"], "my photo 1.jpg my photo 1.png\nmy photo 2.jpg\n"),
        (["my photo 1", "my photo 2"], "my photo 1 1\nmy photo 2  -1\n"),
        (["a,b", "c"], None),
        (["a.jpg", "a.b"], None),
        (["train/a", "val/a"], None),
        (["train/a", "val/a"], "JPEGImages/train/a.jpg\nJPEGImages/val/a.jpg\n"),
        (["a", "a 1"], None),
        (["image", "label"], None),
    ],
)
def test_what_is_on_the_disk_decides_what_a_line_means(tmp_path, names, listing):
    assert keys(write(tmp_path, *names, listing=listing)) == names


def test_a_missing_image_is_named_as_its_list_means_it(tmp_path):
    root = write(tmp_path, "my photo 1", listing="my photo 1\nmy photo 2\nmy photo 3\n")
    with pytest.raises(
        InputError, match=r"4 files .*JPEGImages/my photo 2\.jpg, .*my photo 3\.png"
    ):
        opened(root).check()
    root = write(tmp_path / "b", "a", listing="JPEGImages/a.jpg\n/x/JPEGImages/b.jpg b.png\n")
    with pytest.raises(InputError, match=r"missing: .*/b/JPEGImages/b\.jpg, .*Class/b\.png;"):
        opened(root).check()


@pytest.mark.parametrize(
    ("listing", "words"),
    [
        ("a\nb\na\n", "names a twice, expected every image once: leave one out"),
        ("a\na.jpg\n", r"names a twice \(as 'a' and 'a\.jpg'\)"),
        ("JPEGImages/a.jpg\nb\n./a\n", r"names a twice \(as 'JPEGImages/a\.jpg' and '\./a'\)"),
        ("my photo 1\nmy photo 2\n", r"names my twice \(as 'my photo 1' and .*missing files"),
        ("a.jpg b.png\n", r"gives the image a the label b in the line 'a\.jpg b\.png'"),
        ("a\0b\n", r"holds the byte 0x00 \(NUL\) in line 1"),
    ],
)
def test_a_list_that_contradicts_itself_is_refused(tmp_path, listing, words):
    root = write(tmp_path, "a", "b", listing=listing)
    with pytest.raises(DataError, match=rf"val\.txt {words}"):
        opened(root)


@pytest.mark.parametrize("ending", [".JPG", ".jpeg", ".JPEG", ".png", ".PNG"])
def test_images_may_have_another_ending(tmp_path, ending):
    root = write(tmp_path, "a")
    Image.new("RGB", (3, 2)).save(tmp_path / f"new{ending}")
    (root / "JPEGImages" / "a.jpg").unlink()
    shutil.move(tmp_path / f"new{ending}", root / "JPEGImages" / f"a{ending}")
    assert keys(root) == ["a"]
    (root / "SegmentationClass" / "a.png").rename(root / "SegmentationClass" / "a.PNG")
    assert keys(root) == ["a"]


def test_labels_of_sbd_are_read_for_its_split_and_named_for_others(tmp_path):
    root = write(tmp_path, "a", "b", split="trainaug")
    write(tmp_path, "a", "b", split="train")
    labels, more = root / "SegmentationClass", root / "SegmentationClassAug"
    more.mkdir()
    plain = "SegmentationClass, void borders ignored"
    assert opened(root, split="trainaug").truth == plain
    (labels / "b.png").rename(more / "b.png")
    assert keys(root, split="trainaug") == ["a", "b"]
    added = ", SegmentationClassAug for labels that it lacks"
    assert opened(root, split="trainaug").truth == plain + added
    assert opened(root, split="train").truth == plain
    with pytest.raises(InputError, match=r"b\.png; .*ClassAug holds 1 of them, .* trainaug"):
        opened(root, split="train").check()


@pytest.mark.parametrize("inside", ["VOC2012", "VOCdevkit/VOC2012", "x/VOCdevkit/VOC2012"])
def test_a_folder_too_high_is_told_where_the_benchmark_is(tmp_path, inside):
    root = write(tmp_path / inside, "a")
    with pytest.raises(InputError, match=rf"val\.txt is missing.*; {root} is laid out as .*that f"):
        opened(tmp_path)
    assert keys(root) == ["a"]


def test_a_folder_too_low_is_told_where_the_benchmark_is(tmp_path):
    root = write(tmp_path, "a")
    with pytest.raises(InputError, match=rf"; {root} is laid out as the benchmark"):
        opened(root / "JPEGImages")


def test_other_splits_are_named(tmp_path):
    write(tmp_path, "a", split="train")
    write(tmp_path, "a", split="trainval")
    with pytest.raises(InputError, match="lists of the splits train, trainval: choose one of them"):
        opened(tmp_path)
    write(tmp_path, "a", split="VAL")
    with pytest.raises(InputError, match=r"VAL\.txt is there: rename it to val\.txt"):
        opened(tmp_path)


def test_labels_without_a_list_are_named(tmp_path):
    root = write(tmp_path, "a", "b")
    (root / "ImageSets" / "Segmentation" / "val.txt").unlink()
    with pytest.raises(InputError, match=r"SegmentationClass holds 2 label files, so write their"):
        opened(root)


def test_what_lies_in_place_of_a_file_is_named(tmp_path):
    root = write(tmp_path, "a")
    label = root / "SegmentationClass" / "a.png"
    label.rename(label.with_suffix(".tif"))
    with pytest.raises(InputError, match=r"a\.png; .*a\.tif is there, expected a\.png"):
        opened(root).check()
    label.mkdir()
    label.with_suffix(".tif").unlink()
    with pytest.raises(InputError, match=r"a\.png is a folder, expected a file"):
        opened(root).check()
    label.rmdir()
    nested = root / "SegmentationClass" / "SegmentationClass"
    nested.mkdir()
    Image.new("L", (3, 2)).save(nested / "a.png")
    with pytest.raises(InputError, match=r"SegmentationClass holds 1 of them: move them to"):
        opened(root).check()
    shutil.rmtree(nested.parent)
    (root / "SegmentationClass.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"SegmentationClass\.zip is there: unpack it"):
        opened(root).check()


def test_a_list_that_cannot_be_read_is_named(tmp_path):
    root = write(tmp_path, "a")
    listing = root / "ImageSets" / "Segmentation" / "val.txt"
    listing.unlink()
    listing.mkdir()
    with pytest.raises(
        DataError, match=r"val\.txt cannot be read \(Is a directory\), expected a l"
    ):
        opened(root)


@pytest.mark.parametrize(
    "place", ["ImageSets/Segmentation/val.txt", "JPEGImages/a.jpg", "SegmentationClass/a.png"]
)
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path, place):
    root = write(tmp_path, "a")
    (root / place).unlink()
    os.mkfifo(root / place)
    with pytest.raises((DataError, InputError), match=Path(place).name):
        list(opened(root))


def test_a_photograph_that_is_turned_by_its_exif_data_is_said_to_be(tmp_path):
    root = write(tmp_path, "a")
    data = Image.Exif()
    data[0x0112] = 6
    Image.new("RGB", (3, 2)).save(root / "JPEGImages" / "a.jpg", exif=data)
    with pytest.raises(
        DataError, match=r"labels of 3 x 2 pixels, expected 2 x 3 .* EXIF data turn"
    ):
        list(opened(root))
    Image.new("L", (2, 3)).save(root / "SegmentationClass" / "a.png")
    [sample] = opened(root)
    assert sample.image.shape == (3, 2, 3)
