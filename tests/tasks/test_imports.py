"""Imports of folders as the data sets have them, made here from their descriptions."""

import json
import os
import resource
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.benchmarks.contract import BenchmarkConfig
from storage.class_sets import load_benchmark
from storage.codecs import decode_image, decode_label_map
from storage.errors import DataError, InputError, LeaseHeldError
from storage.imports import read_import
from storage.label_colours import voc_colours
from storage.labelled_images import iterate_labelled
from storage.locks import hold_folder
from storage.vocabulary import load_vocabulary
from tasks import imports as imports_module
from tasks.imports import ImportJob, RealImport, main
from training.data import find_shards

VOC = load_benchmark("voc21")


def photograph(path, seed=0, size=(20, 16), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def label_map(path, values, size=(20, 16)):
    """An indexed PNG in the colours of PASCAL VOC: a row of pixels for each value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.zeros((size[1], size[0]), np.uint8)
    for row, value in enumerate(values):
        labels[row] = value
    image = Image.fromarray(labels)
    image.putpalette(voc_colours().ravel().tolist())
    image.save(path)


def voc_folder(root, count=3, names=None):
    """PASCAL VOC: images, indexed label maps, a list."""
    names = names or [f"2007_{index:06d}" for index in range(count)]
    for index, name in enumerate(names):
        photograph(root / "JPEGImages" / f"{name}.jpg", index)
        label_map(root / "SegmentationClass" / f"{name}.png", [1 + index % 20, 255])
    listing = root / "ImageSets" / "Segmentation" / "train.txt"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text("".join(f"{name}\n" for name in names))
    return root


@pytest.fixture
def voc(tmp_path):
    return voc_folder(tmp_path / "VOC2012")


def step(root, tmp_path, layout="voc21", vocabulary="lvis1205", **fields):
    benchmark = BenchmarkConfig(name=layout, root=root, split="train", **fields)
    job = ImportJob(benchmark=benchmark, vocabulary=vocabulary, imports=str(tmp_path / "imports"))
    return RealImport(job)


def images_of(folder):
    return [image for tar in find_shards(str(folder)) for image in iterate_labelled(tar.path)]


def test_a_voc_folder_becomes_tars_with_the_labels_of_the_vocabulary(voc, tmp_path):
    folder = step(voc, tmp_path).work()
    vocabulary = load_vocabulary("lvis1205")
    images = images_of(folder)
    assert len(images) == 3
    for index, image in enumerate(images):
        name = f"2007_{index:06d}"
        assert image.image_bytes == (voc / "JPEGImages" / f"{name}.jpg").read_bytes()
        class_id = VOC.class_ids[index]
        labels = decode_label_map(image.mask_bytes)
        assert (labels[0] == class_id + 1).all()
        assert (labels[1] == 65535).all()
        assert (labels[2:] == 0).all()
        assert image.class_names == (vocabulary[class_id].name,)
        assert image.judged_class_ids == tuple(sorted(VOC.class_ids))
    record = read_import(folder)
    assert (record.layout, record.split, record.num_samples) == ("voc21", "train", 3)
    assert record.unnamed == ()


def test_the_augmented_split_of_voc_is_a_split_like_any_other(voc, tmp_path):
    photograph(voc / "JPEGImages" / "2008_000001.jpg", 9)
    label_map(voc / "SegmentationClassAug" / "2008_000001.png", [15])
    lists = voc / "ImageSets" / "Segmentation"
    (lists / "trainaug.txt").write_text("2007_000000\n2008_000001\n")
    benchmark = BenchmarkConfig(name="voc21", root=voc, split="trainaug")
    job = ImportJob(benchmark=benchmark, vocabulary="lvis1205", imports=str(tmp_path / "i"))
    images = images_of(RealImport(job).work())
    assert [image.class_names for image in images][1] == ("person",)


def test_a_class_that_the_vocabulary_lacks_is_background(tmp_path):
    """COCO's "hot dog" has no name among the 1,205, and its pixels show none of the other 79."""
    root = tmp_path / "coco_stuff164k"
    things = load_benchmark("coco_object")
    lacking = things.names.index("hot dog")
    assert things.class_ids[lacking] is None
    for number, labels in enumerate(([1, lacking + 1], [0, lacking + 1])):
        photograph(root / "images/train2017" / f"{number:012d}.jpg", number)
        values = np.zeros((16, 20), np.uint8)
        values[: len(labels)] = np.array(labels)[:, None]
        folder = root / "annotations/train2017"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(folder / f"{number:012d}_instanceTrainIds.png")
    folder = step(root, tmp_path, "coco_object").work()
    first, second = images_of(folder)
    assert first.class_names == ("person",)
    assert set(np.unique(decode_label_map(first.mask_bytes))) == {0, first.class_ids[0] + 1}
    assert second.class_ids == ()
    assert read_import(folder).unnamed == ("hot dog",)


def test_the_pixel_maps_of_coco_stuff_are_read_too(tmp_path):
    root = tmp_path / "coco_stuff164k"
    photograph(root / "images/train2017/000000000009.jpg")
    values = np.full((16, 20), 91, np.uint8)  # the first kind of stuff
    values[0], values[1] = 0, 255
    (root / "annotations/train2017").mkdir(parents=True)
    Image.fromarray(values).save(root / "annotations/train2017/000000000009.png")
    [image] = images_of(step(root, tmp_path, "coco_object").work())
    assert image.class_names == ("person",)
    assert set(np.unique(decode_label_map(image.mask_bytes)[1:])) == {0}


@pytest.mark.parametrize("kind", ["turned", "print colours", "grey", "png"])
def test_what_a_training_sees_is_what_is_scored(voc, tmp_path, kind):
    path = voc / "JPEGImages" / "2007_000000.jpg"
    if kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6  # a quarter to the right: what is stored as 16 x 20 is seen as 20 x 16
        photograph(path, size=(16, 20), exif=exif)
    elif kind == "print colours":
        with Image.open(path) as image:
            image.convert("CMYK").save(path)
    elif kind == "grey":
        with Image.open(path) as image:
            image.convert("L").save(path)
    else:
        path.unlink()
        photograph(path.with_suffix(".png"))
    wanted = step(voc, tmp_path)
    image = images_of(wanted.work())[0]
    seen = wanted._source().sample("2007_000000").image
    found = decode_image(image.image_bytes)
    assert found.shape == seen.shape == (16, 20, 3)
    if kind in {"grey", "png"}:
        assert np.array_equal(found, seen)
    else:
        assert np.abs(found.astype(int) - seen).mean() < 20  # noise is the worst for a JPEG


def test_a_finished_import_is_found_and_left_alone_wherever_its_images_went(voc, tmp_path):
    folder = step(voc, tmp_path).work()
    [tar] = folder.glob("*.tar")
    before = tar.stat().st_mtime_ns
    assert step(voc, tmp_path).find() == folder
    moved = voc.rename(tmp_path / "elsewhere")
    assert step(moved, tmp_path).find() == folder
    assert step(moved, tmp_path).work() == folder
    assert tar.stat().st_mtime_ns == before


def test_a_folder_that_changed_is_another_import(voc, tmp_path):
    first = step(voc, tmp_path).work()
    photograph(voc / "JPEGImages" / "2007_000000.jpg", 5, quality=20)
    again = step(voc, tmp_path)
    assert again.find() is None
    assert again.work() != first


@pytest.mark.parametrize("damage", ["cut", "gone", "changed"])
def test_a_damaged_tar_is_made_again(voc, tmp_path, damage):
    folder = step(voc, tmp_path).work()
    [tar] = folder.glob("*.tar")
    whole = tar.read_bytes()
    if damage == "gone":
        tar.unlink()
    else:
        tar.write_bytes(whole[:100] if damage == "cut" else whole[:-1] + b"x")
    again = step(voc, tmp_path)
    assert again.find() is None
    assert again.work() == folder
    assert tar.read_bytes() == whole


def test_an_import_that_was_stopped_goes_on_with_the_next_tar(voc, tmp_path, monkeypatch):
    monkeypatch.setattr(imports_module, "IMAGES_PER_TAR", 1)
    bad = voc / "SegmentationClass" / "2007_000002.png"
    good = bad.read_bytes()
    bad.write_bytes(good[:40] + bytes(len(good) - 40))  # of the same size, so of the same import
    with pytest.raises(DataError, match="1 of 3 images cannot be trained on"):
        step(voc, tmp_path).work()
    folder = step(voc, tmp_path).folder
    with pytest.raises(InputError, match="not finished"):
        find_shards(str(folder))
    made = {tar.name: tar.stat().st_mtime_ns for tar in folder.glob("*.tar")}
    assert len(made) == 2
    bad.write_bytes(good)
    assert step(voc, tmp_path).work() == folder
    assert len(images_of(folder)) == 3
    assert made.items() <= {t.name: t.stat().st_mtime_ns for t in folder.glob("*.tar")}.items()


@pytest.mark.slow
def test_a_killed_import_ends_with_the_tars_of_one_that_nobody_killed(tmp_path):
    root = voc_folder(tmp_path / "VOC2012", 1200)
    whole = step(root, tmp_path).work()
    killed = step(root, tmp_path / "killed")
    command = killed.program()
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not list(killed.folder.glob("*.tar")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert killed.find() is None
    subprocess.run(command, check=True, capture_output=True)
    assert killed.collect() == killed.find()
    tars = {tar.name: tar.read_bytes() for tar in whole.glob("*.tar")}
    assert len(tars) == 3
    assert tars == {tar.name: tar.read_bytes() for tar in killed.folder.glob("*.tar")}


def test_a_second_process_is_told_to_wait(voc, tmp_path):
    wanted = step(voc, tmp_path)
    with hold_folder(wanted.folder), pytest.raises(LeaseHeldError, match="somebody is at work"):
        wanted.work()


@contextmanager
def files_of_at_most(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_and_the_same_command_goes_on(voc, tmp_path):
    wanted = step(voc, tmp_path)
    with files_of_at_most(2000), pytest.raises(InputError, match="free some space there and run"):
        wanted.work()
    assert not list(wanted.folder.glob("*.tar"))
    assert len(images_of(wanted.work())) == 3


def test_missing_files_are_named_before_anything_is_made(voc, tmp_path):
    (voc / "SegmentationClass" / "2007_000001.png").unlink()
    with pytest.raises(InputError, match=r"1 files of the split train are missing: .*000001\.png"):
        step(voc, tmp_path).find()
    assert not (tmp_path / "imports").exists()


def test_everything_that_is_wrong_with_files_is_said_at_once(voc, tmp_path):
    label_map(voc / "SegmentationClass" / "2007_000001.png", [77])
    image = voc / "JPEGImages" / "2007_000002.jpg"
    image.write_bytes(image.read_bytes()[:300])
    with pytest.raises(DataError) as raised:
        step(voc, tmp_path).work()
    message = str(raised.value)
    assert message.startswith("2 of 3 images cannot be trained on: ")
    assert "2007_000001.png holds the label 77, expected 0 to 20 or 255" in message
    assert "2007_000002.jpg cannot be decoded" in message


def test_label_maps_without_any_class_are_refused(voc, tmp_path):
    for path in (voc / "SegmentationClass").glob("*.png"):
        label_map(path, [255])
    with pytest.raises(DataError, match="show no class of the vocabulary in 3 images"):
        step(voc, tmp_path).work()


def test_an_empty_list_of_images_is_refused(voc, tmp_path):
    (voc / "ImageSets/Segmentation/train.txt").write_text("\n")
    with pytest.raises(InputError, match=r"train\.txt"):
        step(voc, tmp_path).find()


def test_a_data_set_of_another_vocabulary_is_refused(voc, tmp_path):
    with pytest.raises(InputError, match="belong to the vocabulary lvis1205, the run has miniat"):
        step(voc, tmp_path, vocabulary="miniature").find()


@pytest.mark.parametrize("layout", ["voc20", "context59"])
def test_label_maps_that_do_not_say_what_is_background_are_refused(voc, tmp_path, layout):
    if layout == "context59":
        (voc / "SegmentationClass").rename(voc / "SegmentationClassContext")
        (voc / "ImageSets/Segmentation").rename(voc / "ImageSets/SegmentationContext")
    with pytest.raises(InputError, match=f"{layout} has no whole label maps with background"):
        step(voc, tmp_path, layout).find()


def test_names_with_dots_are_no_matter(tmp_path):
    root = voc_folder(tmp_path / "VOC2012", names=["a.b", "a.c"])
    assert len(images_of(step(root, tmp_path).work())) == 2


def test_the_program_does_the_same_and_ends_with_the_command_line_s_codes(voc, tmp_path, capsys):
    wanted = step(voc, tmp_path)
    document = Path(wanted.program()[-1])
    assert main(["--config", str(document)]) == 0
    assert wanted.collect() == wanted.find()
    job = json.loads(document.read_text())
    job["benchmark"]["root"] = str(tmp_path / "nowhere")
    document.write_text(json.dumps(job))
    assert main(["--config", str(document)]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_a_damaged_record_is_said_with_the_way_out(voc, tmp_path):
    folder = step(voc, tmp_path).work()
    (folder / "import.json").write_bytes(b"{")
    with pytest.raises(DataError, match="remove the folder and run the same command again"):
        step(voc, tmp_path).find()
