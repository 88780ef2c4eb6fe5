import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from storage.codecs import encode_label_map
from storage.errors import DataError, InputError
from storage.exports.closed_sets import resolve_closed_set
from storage.exports.folders import export_shards, read_export
from storage.shards import pack
from storage.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("miniature")
PAIR = resolve_closed_set(VOCABULARY, "rocket,bus")


@pytest.fixture
def shard(tmp_path, sample):
    """Writes a tar of samples that show the named classes; returns its path."""

    def write(name, *shown, fmt="png", first=0):
        samples = []
        for offset, classes in enumerate(shown):
            index = first + offset
            ids = tuple(VOCABULARY.by_name(each).class_id for each in classes.split("+"))
            labels = np.zeros((16, 16), np.uint16)
            for row, class_id in enumerate(ids):
                labels[row] = class_id + 1
            labels[15] = 65535
            plain = sample(index, fmt=fmt)
            samples.append(
                dataclasses.replace(
                    plain,
                    class_ids=ids,
                    class_names=tuple(VOCABULARY[i].name for i in ids),
                    mentions=(),
                    instances=(),
                    mask_bytes=encode_label_map(labels),
                )
            )
        path = tmp_path / f"{name}.tar"
        path.write_bytes(pack(samples))
        return str(path)

    return write


def labels_of(out, key):
    with Image.open(out / "labels/train" / f"{key}.png") as image:
        assert image.mode == "L"
        return np.asarray(image)


def test_only_samples_with_a_class_of_the_set_are_exported(shard, sample, tmp_path):
    path = shard("a", "bus", "cat", "cat+rocket")
    out = tmp_path / "out"
    exported = export_shards({path: "1"}, PAIR, out)
    keys = (out / "splits/train.txt").read_text().split()
    assert keys == [sample(0).key, sample(2).key]
    assert (exported.num_samples, exported.num_skipped) == (2, 1)
    assert exported.samples_by_class == {"rocket": 1, "bus": 1}
    assert exported.labels == ("background", "rocket", "bus")
    assert (out / f"images/train/{keys[0]}.png").read_bytes() == sample(0).image_bytes
    first, second = (labels_of(out, key) for key in keys)
    assert first[0].tolist() == [2] * 16
    assert first[15].tolist() == [255] * 16
    # The cat of the second image is background, its rocket has the first label.
    assert second[:2].tolist() == [[0] * 16, [1] * 16]
    assert read_export(out) == exported


def test_an_interrupted_export_goes_on_with_the_shards_that_are_left(shard, tmp_path):
    out = tmp_path / "out"
    good, bad = shard("a", "bus"), shard("b", "rocket", first=10)
    whole = tmp_path.joinpath("b.tar").read_bytes()
    tmp_path.joinpath("b.tar").write_bytes(whole[:700])
    with pytest.raises(DataError):
        export_shards({good: "1", bad: "2"}, PAIR, out)
    with pytest.raises(InputError, match="no finished export"):
        read_export(out)
    tmp_path.joinpath("b.tar").write_bytes(whole)
    # What is done is not read again: the first tar may even be gone.
    tmp_path.joinpath("a.tar").unlink()
    assert export_shards({good: "1", bad: "2"}, PAIR, out).num_samples == 2
    assert len(list((out / "images/train").iterdir())) == 2


def test_a_dataset_that_has_grown_is_exported_further(shard, tmp_path):
    out = tmp_path / "out"
    first, second = shard("a", "bus"), shard("b", "rocket", first=10)
    before = export_shards({first: "1"}, PAIR, out)
    after = export_shards({first: "1", second: "2"}, PAIR, out)
    assert (before.num_samples, after.num_samples) == (1, 2)
    assert before.digest != after.digest
    assert len((out / "splits/train.txt").read_text().split()) == 2


def test_a_folder_of_other_classes_other_shards_or_other_files_is_refused(shard, tmp_path):
    path, out = shard("a", "bus"), tmp_path / "out"
    export_shards({path: "1"}, PAIR, out)
    with pytest.raises(InputError, match=r"holds another export: .*names"):
        export_shards({path: "1"}, resolve_closed_set(VOCABULARY, "bus"), out)
    with pytest.raises(InputError, match="was exported from another"):
        export_shards({path: "other"}, PAIR, out)
    with pytest.raises(InputError, match="holds other files"):
        export_shards({path: "1"}, PAIR, tmp_path)


def test_shards_of_another_vocabulary_or_without_the_classes_are_refused(shard, tmp_path):
    path = shard("a", "cat")
    with pytest.raises(InputError, match="no sample of the 1 shards shows a class of rocket,bus"):
        export_shards({path: "1"}, PAIR, tmp_path / "out")
    lvis = resolve_closed_set(load_vocabulary("lvis1205"), "voc20")
    with pytest.raises(InputError, match="calls class 2 'cat'"):
        export_shards({path: "1"}, lvis, tmp_path / "other")


def test_images_of_two_formats_are_refused(shard, tmp_path):
    shards = {shard("a", "bus"): "1", shard("b", "bus", fmt="jpg", first=10): "2"}
    with pytest.raises(DataError, match="both JPEG and PNG"):
        export_shards(shards, PAIR, tmp_path / "out")


def test_the_description_is_plain_json(shard, tmp_path):
    export_shards({shard("a", "bus", fmt="jpg"): "1"}, PAIR, tmp_path / "out")
    described = json.loads((tmp_path / "out/classes.json").read_text())
    assert described["labels"] == ["background", "rocket", "bus"]
    assert described["closed_set"]["class_ids"] == [13, 1]
    assert (described["ignore"], described["image_suffix"]) == (255, ".jpg")
