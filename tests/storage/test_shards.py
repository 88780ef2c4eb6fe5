import dataclasses
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from storage.codecs import encode_image, encode_label_map, encode_rle
from storage.errors import DataError, InputError
from storage.layout import shard_path
from storage.shards import count_samples, iterate, pack, read_index


@pytest.fixture
def tar(sample, tmp_path) -> Path:
    path = tmp_path / "train-x.tar"
    path.write_bytes(pack([sample(index) for index in range(3)]))
    return path


def test_samples_come_back_equal(sample, tar):
    assert list(iterate(tar)) == [sample(index) for index in range(3)]
    assert list(iterate(str(tar))) == list(iterate(tar))


def test_the_order_of_the_samples_does_not_change_the_bytes(sample):
    samples = [sample(index) for index in range(3)]
    assert bytes(pack(samples)) == bytes(pack(samples[::-1]))


@pytest.mark.parametrize("fmt", ["jpg", "png"])
def test_every_sample_has_the_same_four_members(sample, fmt):
    data = pack([sample(index, fmt=fmt) for index in range(2)])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
    assert names == [
        f"0badcafe0000000{index}.{extension}"
        for index in range(2)
        for extension in (fmt, f"cf.{fmt}", "mask.png", "json")
    ]
    assert count_samples(data) == 2


def test_the_json_has_no_nulls_and_no_empty_lists(sample):
    bare = dataclasses.replace(sample(0), mentions=(), instances=(), writer="")
    with tarfile.open(fileobj=io.BytesIO(pack([bare]))) as archive:
        fields = json.load(archive.extractfile(f"{bare.key}.json"))
    assert None not in fields.values()
    assert [] not in fields.values()
    assert fields["mentions"] == fields["instances"] == fields["counterfactual_boxes"] == "[]"
    assert fields["width"] == fields["height"] == 16


def test_a_class_name_never_reaches_a_file_name(sample):
    with tarfile.open(fileobj=io.BytesIO(pack([sample(0, class_id=0)]))) as archive:
        assert not any("train" in name for name in archive.getnames())
    assert shard_path("0badcafe-000003") == "data/train-0badcafe-000003.tar"


def test_the_index_reads_single_members(sample, tar):
    offset, size = read_index(tar)[sample(1).key]["cf.png"]
    assert tar.read_bytes()[offset : offset + size] == sample(1).counterfactual_bytes


def test_a_sample_that_misses_a_member_is_told(tar, tmp_path):
    with tarfile.open(tar) as archive:
        members = [(m, archive.extractfile(m).read()) for m in archive.getmembers()]
    broken = tmp_path / "broken.tar"
    with tarfile.open(broken, "w") as archive:
        for member, data in members:
            if not member.name.endswith("1.mask.png"):
                archive.addfile(member, io.BytesIO(data))
    with pytest.raises(DataError, match=r"sample 0badcafe00000001 .* has no 'mask.png'"):
        list(iterate(broken))


def test_a_cut_tar_is_told(tar):
    whole = tar.read_bytes()
    members = 4 * 3
    for block in range(0, len(whole.rstrip(b"\0")) // 512, members):
        tar.write_bytes(whole[: block * 512])
        with pytest.raises(DataError):
            list(iterate(tar))


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*nowhere.tar"):
        list(iterate(tmp_path / "nowhere.tar"))


def test_two_samples_with_one_key_are_refused(sample):
    with pytest.raises(InputError, match="0badcafe00000000 occurs twice"):
        pack([sample(0), sample(0, seed=8)])


def test_images_of_different_sizes_are_refused(sample):
    small = encode_image(np.zeros((8, 8, 3), dtype=np.uint8), "png")
    with pytest.raises(InputError, match="differ"):
        pack([dataclasses.replace(sample(0), counterfactual_bytes=small)])
    narrow = encode_label_map(np.zeros((16, 8), dtype=np.uint16))
    with pytest.raises(InputError, match="differ"):
        pack([dataclasses.replace(sample(0), mask_bytes=narrow)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key": "a.b"}, "key 'a.b' has a dot"),
        ({"key": "../a"}, r"'\.\./a\.png' is no plain file name|has a dot"),
        ({"key": "data/a"}, "'data/a.png' is no plain file name"),
        ({"key": "k" * 120}, "of at most 100 characters"),
        ({"seed": 2**64}, "'seed' is 18446744073709551616"),
        ({"index": -1}, "'index' is -1"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(sample, change, words):
    with pytest.raises(InputError, match=words):
        pack([dataclasses.replace(sample(0), **change)])


def test_an_instance_of_another_size_is_not_written(sample):
    large = sample(0).instances[0].model_copy(update={"rle": encode_rle(np.ones((9, 9), bool))})
    with pytest.raises(InputError, match="instance 0 has run lengths with runs of 81 pixels"):
        pack([dataclasses.replace(sample(0), instances=(large,))])


def test_what_was_found_unasked_comes_back_and_is_not_written_where_nobody_looked(sample, tmp_path):
    found = sample(0).instances
    for others in (None, (), found):
        path = tmp_path / "train-o.tar"
        path.write_bytes(pack([dataclasses.replace(sample(0), others=others)]))
        [back] = iterate(path)
        assert back.others == others
        with tarfile.open(path) as archive:
            fields = json.load(archive.extractfile(f"{back.key}.json"))
        assert ("others" in fields) is (others is not None)
        assert None not in fields.values()


def test_an_unasked_object_of_another_size_is_not_written(sample):
    wrong = sample(0).instances[0].model_copy(update={"rle": encode_rle(np.ones((3, 3), bool))})
    with pytest.raises(InputError, match="other 0"):
        pack([dataclasses.replace(sample(0), others=(wrong,))])


def test_a_sample_without_classes_is_refused(sample):
    with pytest.raises(InputError, match="0 class ids"):
        pack([dataclasses.replace(sample(0), class_ids=(), class_names=())])
