"""What every pair painter on a Stable Diffusion folder must do; the folder has random weights."""

import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from models.painting.config import PainterConfig
from models.painting.painters import DiffusionPairPainter
from models.painting.tokens import PipelineTokens
from models.processors import image_processor_class
from models.profiles import load_profile
from models.protocols import ImageRequest, PairRequest
from storage.errors import InputError


@pytest.fixture(scope="module")
def checkpoint(build_pipeline, tmp_path_factory):
    return build_pipeline(tmp_path_factory.mktemp("plain"))


def config(model, **changes):
    small = {"steps": 3, "guidance": 3.0, "height": 16, "width": 16, "batch_size": 4}
    return PainterConfig(model=model, device="cpu", **(small | changes))


REQUESTS = [
    PairRequest(f"a bus {word}", f"a nothing {word}", seed)
    for seed, word in enumerate(["red", "blue", "on the beach", "at night", "by the sea", "big"])
]


@pytest.fixture(scope="module")
def painted(checkpoint):
    return DiffusionPairPainter(config(checkpoint)).paint(REQUESTS)


def same(pair, other):
    return np.array_equal(pair.image, other.image) and np.array_equal(
        pair.counterfactual, other.counterfactual
    )


def test_pairs_come_in_the_order_of_the_requests_as_rgb_bytes(painted):
    assert len(painted) == len(REQUESTS)
    for pair in painted:
        assert pair.image.shape == pair.counterfactual.shape == (16, 16, 3)
        assert pair.image.dtype == pair.counterfactual.dtype == np.uint8
        assert pair.image.std() > 1
        assert not pair.unsafe
    assert len({pair.image.tobytes() for pair in painted}) == len(REQUESTS)


@pytest.mark.parametrize("shared", [True, False])
def test_pictures_that_are_painted_alone_are_those_of_their_pairs(checkpoint, shared):
    painter = DiffusionPairPainter(config(checkpoint, shared_latent=shared))
    pairs = painter.paint(REQUESTS)
    images = painter.paint_images([ImageRequest(each.text, each.seed) for each in REQUESTS])
    some = [4, 1, 3]  # those whose image passed: another number, in other company
    twins = painter.paint_images(
        [
            ImageRequest(REQUESTS[index].counterfactual_text, REQUESTS[index].seed, is_twin=True)
            for index in some
        ]
    )
    assert all(
        np.array_equal(*each)
        for each in zip([i.image for i in images], [p.image for p in pairs], strict=True)
    )
    for index, twin in zip(some, twins, strict=True):
        assert np.array_equal(twin.image, pairs[index].counterfactual)


def test_a_pair_depends_on_its_own_request_alone(checkpoint, painted):
    painter = DiffusionPairPainter(config(checkpoint))
    alone = painter.paint([REQUESTS[5]])[0]
    backwards = painter.paint(REQUESTS[::-1])[::-1]
    assert same(alone, painted[5])
    assert all(same(pair, other) for pair, other in zip(painted, backwards, strict=True))


@pytest.mark.parametrize("batch_size", [1, 3, 6])
def test_another_batch_size_changes_few_pixels_by_one_level(checkpoint, painted, batch_size):
    other = DiffusionPairPainter(config(checkpoint, batch_size=batch_size)).paint(REQUESTS)
    differences = np.abs(
        np.stack([pair.image for pair in painted]).astype(int)
        - np.stack([pair.image for pair in other])
    )
    assert differences.max() <= 1
    assert (differences > 0).mean() < 1e-3


@pytest.mark.slow
def test_the_miniature_barely_depends_on_the_batch_size():
    shipped = load_profile("miniature").painter.model_copy(update={"device": "cpu"})
    requests = [
        PairRequest("a red bus on the beach", "a red nothing on the beach", 1),
        PairRequest("a cat in the snow", "a nothing in the snow", 2),
    ]
    pairs, others = (
        DiffusionPairPainter(shipped.model_copy(update={"batch_size": size})).paint(requests)
        for size in (1, 2)
    )
    for pair, other in zip(pairs, others, strict=True):
        differences = np.abs(pair.image.astype(int) - other.image)
        assert differences.max() <= 1
        assert (differences > 0).mean() < 1e-3


def test_equal_texts_give_equal_images_from_the_shared_latent(checkpoint):
    request = PairRequest("a bus", "a bus", 7)
    pair = DiffusionPairPainter(config(checkpoint)).paint([request])[0]
    assert np.array_equal(pair.image, pair.counterfactual)


def test_without_a_shared_latent_only_the_counterfactual_changes(checkpoint):
    request = PairRequest("a bus", "a bus", 7)
    shared = DiffusionPairPainter(config(checkpoint)).paint([request])[0]
    apart = DiffusionPairPainter(config(checkpoint, shared_latent=False)).paint([request])[0]
    assert np.array_equal(apart.image, shared.image)
    assert not np.array_equal(apart.counterfactual, shared.counterfactual)


def test_another_seed_gives_another_image(checkpoint):
    painter = DiffusionPairPainter(config(checkpoint))
    first, second = painter.paint([PairRequest("a bus", "a", 1), PairRequest("a bus", "a", 2)])
    assert not np.array_equal(first.image, second.image)


def test_the_painter_gives_what_the_plain_pipeline_gives(checkpoint, painted):
    pipeline = StableDiffusionPipeline.from_pretrained(checkpoint)
    noise = torch.randn((4, 8, 8), generator=torch.Generator().manual_seed(REQUESTS[0].seed))
    plain = pipeline(
        REQUESTS[0].text,
        latents=noise[None],
        num_inference_steps=3,
        guidance_scale=3.0,
        height=16,
        width=16,
    ).images[0]
    assert np.abs(np.asarray(plain).astype(int) - painted[0].image).max() <= 1


def test_a_sampler_that_draws_noise_is_as_independent_of_its_company(checkpoint):
    painter = DiffusionPairPainter(config(checkpoint, scheduler="euler-ancestral"))
    together = painter.paint(REQUESTS)
    assert same(together[5], painter.paint(REQUESTS[5:])[0])
    twins = painter.paint([PairRequest("a bus", "a bus", 7)])[0]
    assert np.array_equal(twins.image, twins.counterfactual)


@pytest.mark.parametrize("scheduler", ["ddim", "dpm++", "euler", "pndm", "unipc"])
def test_every_sampler_paints(checkpoint, painted, scheduler):
    pair = DiffusionPairPainter(config(checkpoint, scheduler=scheduler)).paint(REQUESTS[:1])[0]
    assert pair.image.std() > 1
    if scheduler == "ddim":  # what the checkpoint has
        assert same(pair, painted[0])
    if scheduler in {"dpm++", "pndm", "unipc"}:  # of a higher order
        assert not same(pair, painted[0])


def test_the_spacing_of_the_steps_can_be_chosen(checkpoint, painted):
    leading = config(checkpoint, timestep_spacing="leading")
    assert not same(DiffusionPairPainter(leading).paint(REQUESTS[:1])[0], painted[0])


def test_steps_and_guidance_reach_the_sampler(checkpoint, painted):
    for changes in ({"steps": 4}, {"guidance": 1.0}):
        other = DiffusionPairPainter(config(checkpoint, **changes)).paint(REQUESTS[:1])[0]
        assert not np.array_equal(other.image, painted[0].image)


def test_width_and_height_are_not_swapped(checkpoint):
    pair = DiffusionPairPainter(config(checkpoint, height=16, width=32)).paint(REQUESTS[:1])[0]
    assert pair.image.shape == (16, 32, 3)


def test_the_safety_checker_flags_a_pair(build_pipeline, tmp_path):
    model = build_pipeline(tmp_path, safety_threshold=-2.0)
    assert DiffusionPairPainter(config(model)).paint(REQUESTS[:1])[0].unsafe


def test_the_safety_checker_lets_a_pair_pass(build_pipeline, tmp_path, painted):
    model = build_pipeline(tmp_path, safety_threshold=2.0)
    pair = DiffusionPairPainter(config(model)).paint(REQUESTS[:1])[0]
    assert not pair.unsafe
    assert same(pair, painted[0])


def test_the_safety_checker_sees_what_the_library_shows_it(build_pipeline, tmp_path):
    model = build_pipeline(tmp_path, safety_threshold=2.0)
    painter = DiffusionPairPainter(config(model))
    decoded, seen = [], []
    painter.loaded.pipeline.vae.decoder.register_forward_hook(
        lambda _module, _inputs, pixels: decoded.append(pixels)
    )
    painter.loaded.checker._network.vision_model.register_forward_pre_hook(
        lambda _module, given: seen.append(given[0])
    )
    painter.paint(REQUESTS[:1])
    pictures = painter.loaded.pipeline.image_processor.postprocess(decoded[0], output_type="pil")
    extractor = image_processor_class("CLIPImageProcessor").from_pretrained(
        model, subfolder="feature_extractor"
    )
    expected = extractor(pictures, return_tensors="pt")["pixel_values"]
    assert torch.equal(seen[0], expected)


def test_a_flagged_picture_is_black(build_pipeline, tmp_path):
    model = build_pipeline(tmp_path, safety_threshold=-2.0)
    pair = DiffusionPairPainter(config(model)).paint(REQUESTS[:1])[0]
    assert not pair.image.any()
    assert not pair.counterfactual.any()


def test_the_safety_checker_can_be_left_out(build_pipeline, tmp_path):
    model = build_pipeline(tmp_path, safety_threshold=-2.0)
    painter = DiffusionPairPainter(config(model, safety_checker=False))
    assert not painter.paint(REQUESTS[:1])[0].unsafe


def test_half_precision_stays_near_single(checkpoint, painted):
    half = DiffusionPairPainter(config(checkpoint, dtype="bfloat16")).paint(REQUESTS[:1])[0]
    assert np.abs(half.image.astype(int) - painted[0].image).mean() < 12


def test_a_size_that_the_checkpoint_cannot_paint_is_refused(checkpoint):
    with pytest.raises(InputError, match=r"20 x 16 pixels; expected multiples of 8"):
        DiffusionPairPainter(config(checkpoint, width=20))


@pytest.mark.parametrize(
    "name",
    [
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionXLInpaintPipeline",
        "StableDiffusionControlNetPipeline",
        "StableDiffusionUpscalePipeline",
        "WanPipeline",
        "NobodysPipeline",
        None,
    ],
)
def test_a_pipeline_that_paints_no_pairs_from_texts_is_refused_by_name(tmp_path, name):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    settings = config(str(tmp_path))
    for ask in (DiffusionPairPainter, PipelineTokens, PainterConfig.check):
        with pytest.raises(InputError) as caught:
            ask(settings)
        assert f"is a {name}, expected a text-to-image pipeline" in str(caught.value)
        assert "StableDiffusionPipeline, " in str(caught.value)


def test_a_damaged_index_is_refused(tmp_path):
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        DiffusionPairPainter(config(str(tmp_path)))


def test_a_missing_part_is_named(build_pipeline, tmp_path):
    model = build_pipeline(tmp_path)
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"cannot be loaded .*diffusion_pytorch_model"):
        DiffusionPairPainter(config(model))


def test_a_cut_off_weight_file_is_refused(build_pipeline, tmp_path):
    model = build_pipeline(tmp_path)
    path = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"damaged|cannot be loaded"):
        DiffusionPairPainter(config(model))


def test_compiling_is_no_part_of_what_a_pair_is(checkpoint):
    assert config(checkpoint, compile=False).identity() == config(checkpoint).identity()
    assert "compile" not in config(checkpoint).identity()
