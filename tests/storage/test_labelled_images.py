import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from storage.codecs import encode_image, encode_label_map
from storage.errors import DataError, InputError
from storage.exports.closed_sets import ClosedSet
from storage.exports.folders import export_shards
from storage.labelled_images import (
    LabelledImage,
    RealImage,
    iterate_labelled,
    pack_real_images,
)
from storage.shards import iterate, pack, read_index

LABELS = np.zeros((4, 6), np.uint16)
LABELS[0] = 4
LABELS[1] = 65535


def real_image(index=0, **changes):
    fields = {
        "key": f"{index:016d}",
        "class_ids": (3,),
        "class_names": ("mushroom",),
        "image_bytes": encode_image(np.full((4, 6, 3), index, np.uint8), "jpg"),
        "mask_bytes": encode_label_map(LABELS),
        "judged_class_ids": (1, 3),
    }
    return RealImage(LabelledImage(**{**fields, **changes}), index, f"photo.{index}")


def written(tmp_path, data):
    path = tmp_path / "train-000000.tar"
    path.write_bytes(data)
    return path


def repacked(path, change):
    """The tar with other members: `change` takes and gives a dict of them."""
    with tarfile.open(path) as archive:
        members = {m.name: archive.extractfile(m).read() for m in archive.getmembers()}
    changed = change(members)
    with tarfile.open(path, "w") as archive:
        for name, data in changed.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return path


def test_real_images_come_back_equal_and_background_alone_is_an_image_too(tmp_path):
    images = [real_image(1), real_image(2, class_ids=(), class_names=())]
    path = written(tmp_path, pack_real_images(images[::-1]))
    assert list(iterate_labelled(path)) == [image.labelled for image in images]
    members = read_index(path, real=True)
    assert [list(own) for own in members.values()] == [["jpg", "mask.png", "real.json"]] * 2


def test_generated_samples_are_labelled_images_too(sample, tmp_path):
    path = written(tmp_path, pack([sample(0)]))
    [image] = iterate_labelled(path)
    assert image.judged_class_ids is None
    assert (image.image_bytes, image.mask_bytes) == (sample(0).image_bytes, sample(0).mask_bytes)
    assert image.class_names == sample(0).class_names


def test_a_generated_sample_without_its_twin_is_damaged_wherever_it_is_read(sample, tmp_path):
    path = written(tmp_path, pack([sample(0)]))
    repacked(path, lambda members: {k: v for k, v in members.items() if ".cf." not in k})
    for reader in (iterate, iterate_labelled):
        with pytest.raises(DataError, match=r"not whole: it has no 'cf\.png'"):
            list(reader(path))


def test_real_images_are_no_samples_of_a_generated_dataset(tmp_path):
    path = written(tmp_path, pack_real_images([real_image()]))
    for reader in (lambda p: list(iterate(p)), read_index):
        with pytest.raises(DataError, match="a real image without a counterfactual"):
            reader(path)


def test_a_sample_that_claims_to_be_real_and_generated_is_refused(sample, tmp_path):
    path = written(tmp_path, pack([sample(0)]))
    about = real_image().labelled
    fields = {"key": about.key}
    repacked(path, lambda m: {**m, f"{sample(0).key}.real.json": json.dumps(fields).encode()})
    with pytest.raises(DataError, match=r"both 'real\.json' and 'cf\.png'"):
        read_index(path, real=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_ids": (2,), "class_names": ("cat",)}, "class 2 is in the mask"),
        ({"class_names": ()}, "expected a name for each"),
        ({"judged_class_ids": None}, "judged_class_ids"),
        ({"image_bytes": encode_image(np.zeros((5, 6, 3), np.uint8), "jpg")}, "pixels"),
        ({"key": "a.b"}, "has a dot"),
    ],
)
def test_what_could_not_be_read_again_is_not_packed(changes, message):
    with pytest.raises(InputError, match=message):
        pack_real_images([real_image(**changes)])


def test_two_images_of_one_key_are_refused():
    with pytest.raises(InputError, match="occurs twice"):
        pack_real_images([real_image(1), real_image(1)])


def test_an_export_ignores_background_that_may_show_a_class_nobody_looked_for(tmp_path):
    path = written(tmp_path, pack_real_images([real_image()]))
    judged = ClosedSet(
        name="two", vocabulary="miniature", names=("mushroom", "bus"), class_ids=(3, 1)
    )
    more = judged.model_copy(
        update={"name": "three", "names": (*judged.names, "cup"), "class_ids": (3, 1, 12)}
    )
    found = {}
    for closed_set in (judged, more):
        out = tmp_path / closed_set.name
        export_shards({str(path): "x"}, closed_set, out)
        with Image.open(out / "labels/train" / f"{real_image().labelled.key}.png") as image:
            found[closed_set.name] = np.unique(np.asarray(image)[2:]).tolist()
    assert found == {"two": [0], "three": [255]}
