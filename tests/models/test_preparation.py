"""What preparing pictures must do: give the pixels of the library's own class, to the bit."""

import json

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from models.preparation import ImagePreparation, read_steps
from models.processors import image_processor_class
from models.weights import Weights
from storage.errors import InputError

CLASSES = {
    "GroundingDinoImageProcessor": {"size": {"shortest_edge": 40, "longest_edge": 66}},
    "SamImageProcessor": {
        "size": {"longest_edge": 64},
        "pad_size": {"height": 64, "width": 64},
    },
    "ViTImageProcessor": {"size": {"height": 48, "width": 56}},
    "CLIPImageProcessor": {
        "size": {"shortest_edge": 30},
        "crop_size": {"height": 28, "width": 30},
    },
}
LENGTHS = st.integers(4, 120)


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def processor_of(name, **changes):
    return image_processor_class(name)(**(CLASSES[name] | changes))


def both_ways(processor, given_picture):
    """What comes out on a CPU, and what a GPU computes."""
    steps = read_steps(processor, "it")
    yield steps.with_pillow(given_picture)
    yield steps.on_device(given_picture, torch.from_numpy(steps.table))


def by_library(processor, given_picture):
    return processor(images=[Image.fromarray(given_picture)], return_tensors="pt")


@given(height=LENGTHS, width=LENGTHS)
@example(height=120, width=4)
@example(height=4, width=120)
@example(height=40, width=40)
@example(height=41, width=67)
def test_pixels_are_those_of_the_library_to_the_bit(height, width):
    given_picture = picture(height, width)
    for name in CLASSES:
        processor = processor_of(name)
        expected = by_library(processor, given_picture)
        for found in both_ways(processor, given_picture):
            assert found.pixels.dtype == torch.float32
            assert torch.equal(found.pixels, expected["pixel_values"])
        if "reshaped_input_sizes" in expected:
            assert list(found.inside) == expected["reshaped_input_sizes"][0].tolist()
        if "pixel_mask" in expected:
            assert expected["pixel_mask"].shape[1:] == found.inside
            assert expected["pixel_mask"].all()


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("size", [(512, 512), (480, 640), (1024, 768)])
def test_the_classes_as_they_ship_give_the_same_pixels(name, size):
    processor = image_processor_class(name)()
    expected = by_library(processor, picture(*size))["pixel_values"]
    for found in both_ways(processor, picture(*size)):
        assert torch.equal(found.pixels, expected)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(
    "changes",
    [
        {"resample": 3},
        {"resample": 2},
        {"do_rescale": False},
        {"do_normalize": False},
        {"rescale_factor": 1 / 127.5},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
        {"do_resize": False, "do_center_crop": False},
    ],
)
def test_what_a_file_says_is_done(name, changes):
    processor = processor_of(name, **changes)
    expected = by_library(processor, picture(40, 52))["pixel_values"]
    for found in both_ways(processor, picture(40, 52)):
        assert torch.equal(found.pixels, expected)


def test_a_detector_may_pad_to_a_size():
    processor = processor_of("GroundingDinoImageProcessor", pad_size={"height": 70, "width": 80})
    expected = by_library(processor, picture(50, 70))
    for found in both_ways(processor, picture(50, 70)):
        assert torch.equal(found.pixels, expected["pixel_values"])
        assert expected["pixel_mask"][0, : found.inside[0], : found.inside[1]].all()
        assert expected["pixel_mask"].sum() == found.inside[0] * found.inside[1]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("SamImageProcessor", {"resample": 1}, r"has 1 as `resample`.*2 \(bilinear\) or 3"),
        ("SamImageProcessor", {"resample": "cubic"}, "has 'cubic' as `resample`"),
        ("ViTImageProcessor", {"image_std": [0.5, 0.0, 0.5]}, "`image_std` above 0"),
        ("ViTImageProcessor", {"image_mean": [0.5, 0.5]}, r"as `image_mean`, expected 3 numbers"),
        ("ViTImageProcessor", {"image_mean": "grey"}, r"'grey' as `image_mean`"),
        (
            "CLIPImageProcessor",
            {"crop_size": {"height": 31, "width": 30}},
            "cuts 30 x 31 pixels out of pictures that may have fewer",
        ),
        ("CLIPImageProcessor", {"do_resize": False}, "out of pictures that may have fewer"),
        (
            "GroundingDinoImageProcessor",
            {"size": {"max_height": 60, "max_width": 60}},
            "as its size, expected `height` and `width`",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_not_done_here_is_refused(name, changes, message):
    processor = processor_of(name)
    for attribute, value in changes.items():
        setattr(processor, attribute, value)
    with pytest.raises(InputError, match=f"it .*{message}"):
        read_steps(processor, "it")


@pytest.mark.parametrize("length", [0, -3, "long", 2.5])
def test_a_length_that_is_none_is_refused(length):
    processor = processor_of("ViTImageProcessor")
    processor.size = {"height": length, "width": 5}
    with pytest.raises(InputError, match=r"as `height`, expected a number of pixels"):
        read_steps(processor, "it")


@pytest.mark.parametrize("size", [(1, 900), (0, 5)])
def test_a_picture_that_would_have_no_pixels_is_refused(size):
    steps = read_steps(processor_of("GroundingDinoImageProcessor"), "it")
    with pytest.raises(InputError, match="expected at least one pixel each way"):
        steps.with_pillow(picture(*size))
    with pytest.raises(InputError, match="expected at least one pixel each way"):
        steps.on_device(picture(*size), torch.from_numpy(steps.table))


def test_a_picture_larger_than_its_padding_is_refused():
    processor = processor_of("SamImageProcessor", do_resize=False)
    steps = read_steps(processor, "it")
    with pytest.raises(InputError, match="padded from 20 x 65 to 64 x 64"):
        steps.with_pillow(picture(65, 20))
    with pytest.raises(InputError, match="padded from 20 x 65 to 64 x 64"):
        steps.on_device(picture(65, 20), torch.from_numpy(steps.table))


def test_arrays_that_are_views_are_read_right():
    whole = picture(60, 80)
    processor = processor_of("ViTImageProcessor")
    for view in (whole[::-1, ::-1], whole[5:50, 3:70], whole.transpose(1, 0, 2)):
        view.flags.writeable = False
        expected = by_library(processor, np.ascontiguousarray(view))["pixel_values"]
        for found in both_ways(processor, view):
            assert torch.equal(found.pixels, expected)


def saved(folder, **changes):
    document = {"size": {"longest_edge": 64}, "pad_size": {"height": 64, "width": 64}}
    (folder / "preprocessor_config.json").write_text(json.dumps(document | changes))
    return Weights(str(folder), None)


def test_a_folder_is_read_by_its_file(tmp_path):
    weights = saved(tmp_path, image_mean=[0.2, 0.2, 0.2])
    made = ImagePreparation(weights, "SamImageProcessor", torch.device("cpu"))
    found = made.prepare([picture(30, 40), picture(64, 20)])
    assert [each.inside for each in found] == [(48, 64), (64, 20)]
    processor = processor_of("SamImageProcessor", image_mean=[0.2, 0.2, 0.2])
    expected = by_library(processor, picture(30, 40))["pixel_values"]
    assert torch.equal(found[0].pixels, expected)


def test_a_size_may_be_given_instead_of_the_files(tmp_path):
    made = ImagePreparation(
        saved(tmp_path, do_pad=False), "ViTImageProcessor", torch.device("cpu"), size=(20, 24)
    )
    assert made.prepare([picture(30, 40)])[0].pixels.shape == (1, 3, 20, 24)


def test_a_message_names_the_file_and_its_folder(tmp_path):
    weights = saved(tmp_path, resample=4)
    with pytest.raises(InputError, match=rf"preprocessor_config.json of '{tmp_path}' has .*4"):
        ImagePreparation(weights, "SamImageProcessor", torch.device("cpu"))


def test_pictures_of_one_size_may_be_prepared_together(tmp_path):
    weights = saved(tmp_path)
    pictures = [picture(30, 40), picture(30, 40)[::-1].copy(), picture(30, 40)[:, ::-1].copy()]
    made = ImagePreparation(weights, "SamImageProcessor", torch.device("cpu"))
    alone = torch.cat([each.pixels for each in made.prepare(pictures)])
    stacked = torch.from_numpy(np.stack(pictures))
    assert torch.equal(made.prepare_painted(stacked), alone)
    steps = read_steps(processor_of("SamImageProcessor"), "it")
    together = steps.of_tensor(stacked, torch.from_numpy(steps.table))
    apart = [steps.with_pillow(each) for each in pictures]
    assert torch.equal(together.pixels, torch.cat([each.pixels for each in apart]))
    assert together.inside == apart[0].inside


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_pixels_of_a_cpu(tmp_path):
    weights = saved(tmp_path)
    pictures = [picture(512, 512), picture(30, 40), picture(900, 64)]
    on_cpu, on_gpu = (
        ImagePreparation(weights, "SamImageProcessor", torch.device(name)).prepare(pictures)
        for name in ("cpu", "cuda")
    )
    for one, other in zip(on_cpu, on_gpu, strict=True):
        assert other.pixels.is_cuda
        assert torch.equal(one.pixels, other.pixels.cpu())
        assert one.inside == other.inside
