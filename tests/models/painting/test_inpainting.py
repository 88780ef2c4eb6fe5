"""Regions painted over with random weights, held against the library's own pipelines."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline, UNet2DConditionModel

from models.painting.config import InpainterConfig, PainterConfig
from models.painting.inpainting import DiffusionInpainter
from models.protocols import Inpainter, InpaintRequest
from storage.errors import InputError

SETTINGS = {"steps": 3, "guidance": 3.0, "device": "cpu", "batch_size": 3}


@pytest.fixture(scope="module")
def checkpoint(build_pipeline, tmp_path_factory):
    return build_pipeline(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def for_inpainting(checkpoint, tmp_path_factory):
    """The same with a network that sees a mask and the image around it."""
    folder = tmp_path_factory.mktemp("inpainting") / "model"
    shutil.copytree(checkpoint, folder)
    config = UNet2DConditionModel.load_config(folder, subfolder="unet")
    torch.manual_seed(1)
    network = UNet2DConditionModel.from_config({**config, "in_channels": 9})
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(2.0)
    network.save_pretrained(folder / "unet")
    index = json.loads((folder / "model_index.json").read_text())
    index["_class_name"] = "StableDiffusionInpaintPipeline"
    (folder / "model_index.json").write_text(json.dumps(index))
    return str(folder)


@pytest.fixture(params=["ordinary", "for inpainting"])
def model(request, checkpoint, for_inpainting):
    return checkpoint if request.param == "ordinary" else for_inpainting


def request_of(number, size=16):
    rng = np.random.default_rng(number)
    region = np.zeros((size, size), np.bool_)
    top, left = rng.integers(0, size // 2, 2)
    region[top : top + 5, left : left + 4] = True
    image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    return InpaintRequest(image, region, f"a place {'abcde'[number]}", number)


REQUESTS = [request_of(number) for number in range(5)]


def inpainter(model, **changes):
    return DiffusionInpainter(InpainterConfig(model=model, **(SETTINGS | changes)))


def cells_of(region, factor):
    """Whole latents that have a pixel in the region."""
    rows, columns = (side // factor for side in region.shape)
    cells = region.reshape(rows, factor, columns, factor).any(axis=(1, 3))
    return cells.repeat(factor, 0).repeat(factor, 1)


@torch.inference_mode()
def by_the_library(model, request):
    """One picture by the library's own pipeline, from the same noise."""
    pipeline = StableDiffusionInpaintPipeline.from_pretrained(model, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(request.seed)
    factor = pipeline.vae_scale_factor
    rows, columns = (side // factor for side in request.region.shape)
    noise = torch.randn(1, 4, rows, columns, generator=generator)
    pixels = torch.from_numpy(request.image).permute(2, 0, 1)[None].float() / 255
    masks = torch.from_numpy(cells_of(request.region, factor))[None, None].float()
    if pipeline.unet.config.in_channels == 4:  # the most likely latents, where it would draw some
        vae = pipeline.vae
        vae.encode = _most_likely(vae.encode)
    [picture] = pipeline(
        prompt=request.text,
        image=pixels,
        mask_image=masks,
        latents=noise,
        generator=[generator],
        strength=1.0,
        num_inference_steps=3,
        guidance_scale=3.0,
        height=request.region.shape[0],
        width=request.region.shape[1],
        output_type="np",
    ).images
    return (picture * 255).round().astype(np.uint8)


def _most_likely(encode):
    def encode_surely(pixels):
        encoded = encode(pixels)
        encoded.latent_dist.std = torch.zeros_like(encoded.latent_dist.std)
        return encoded

    return encode_surely


def test_a_picture_is_that_of_the_librarys_pipeline(model):
    painted = inpainter(model).inpaint(REQUESTS)
    assert isinstance(inpainter(model), Inpainter)
    for request, picture in zip(REQUESTS, painted, strict=True):
        expected = by_the_library(model, request)
        difference = np.abs(picture.image.astype(int) - expected)
        assert difference.max() <= 1
        assert not picture.unsafe
        assert picture.finite


def test_a_picture_depends_on_its_own_request_alone(model):
    painter = inpainter(model)
    painted = painter.inpaint(REQUESTS)
    backwards = painter.inpaint(REQUESTS[::-1])[::-1]
    [alone] = painter.inpaint(REQUESTS[3:4])
    assert np.array_equal(alone.image, painted[3].image)
    for one, other in zip(painted, backwards, strict=True):
        assert np.array_equal(one.image, other.image)
    assert len({each.image.tobytes() for each in painted}) == len(REQUESTS)


def test_images_of_several_sizes_are_painted_each_in_its_own(model):
    mixed = [REQUESTS[0], request_of(1, size=24), REQUESTS[2]]
    painted = inpainter(model).inpaint(mixed)
    assert [each.image.shape for each in painted] == [(16, 16, 3), (24, 24, 3), (16, 16, 3)]


def test_a_size_that_latents_do_not_fill_is_told(model):
    with pytest.raises(InputError, match="cannot paint 20 x 20 pixels; expected multiples of 8"):
        inpainter(model).inpaint([request_of(0, size=20)])


def test_what_an_ordinary_checkpoint_keeps_is_what_its_autoencoder_makes_of_the_image(checkpoint):
    painter = inpainter(checkpoint)
    request = REQUESTS[0]
    nothing = np.zeros_like(request.region)
    seeds = [
        painter.inpaint([InpaintRequest(request.image, nothing, "a", seed)])[0] for seed in (1, 2)
    ]
    assert np.array_equal(seeds[0].image, seeds[1].image)
    everything = np.ones_like(request.region)
    seeds = [
        painter.inpaint([InpaintRequest(request.image, everything, "a", seed)])[0]
        for seed in (1, 2)
    ]
    assert not np.array_equal(seeds[0].image, seeds[1].image)


def test_the_safety_checker_judges_pictures(build_pipeline, tmp_path):
    model = build_pipeline(tmp_path, safety_threshold=-2.0)
    [picture] = inpainter(model).inpaint(REQUESTS[:1])
    assert picture.unsafe
    assert not picture.image.any()


def test_a_painters_checkpoint_is_sampled_as_for_images(checkpoint):
    painter = PainterConfig(model=checkpoint, steps=7, guidance=2.0, scheduler="euler", height=64)
    config = InpainterConfig.of_painter(painter)
    assert (config.model, config.steps, config.scheduler) == (checkpoint, 7, "euler")
    assert "StableDiffusion" not in config.check()
    assert config.identity()["weights"] == painter.identity()["weights"]


def test_a_pipeline_that_cannot_paint_over_is_refused_with_those_that_can(checkpoint, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "FluxPipeline"}))
    config = InpainterConfig(model=str(folder), **SETTINGS)
    for ask in (config.check, lambda: DiffusionInpainter(config)):
        with pytest.raises(InputError, match=r"FluxPipeline.*StableDiffusionInpaintPipeline"):
            ask()


def test_a_painter_of_another_kind_needs_an_inpainter_beside_it():
    class Drawing:
        kind = "drawing"

    with pytest.raises(InputError, match=r"kind 'drawing'.*add an `inpainter` to the profile"):
        InpainterConfig.of_painter(Drawing())
