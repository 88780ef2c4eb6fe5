"""Every family of pipelines paints what the library paints, and keeps what a painter promises."""

from importlib.metadata import version

import diffusers
import numpy as np
import pytest
import torch

from models.painting.config import PainterConfig
from models.painting.families import FAMILIES
from models.painting.painters import DiffusionPairPainter
from models.protocols import PairRequest
from storage.errors import InputError

REQUESTS = [
    PairRequest("a bus red", "a nothing red", 1),
    PairRequest("bus", "bus", 2),
    PairRequest("a longer text about a bus by the sea", "a longer text", 3),
]
OLD = version("diffusers").startswith("0.36.")
WITHOUT_QWEN = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(OLD and bool(family.since), reason="diffusers 0.36 is refused"),
    )
    for name, family in FAMILIES.items()
]
ALIKE = {"PixArtSigmaPipeline", "StableDiffusionPipeline"}
"""Alpha stands for PixArt; Stable Diffusion has tests of its own."""
NOT_ALIKE = [each for each in WITHOUT_QWEN if not ALIKE & set(each.values)]
PLAIN = {
    "FluxPipeline": {"guidance_scale": 3.0},
    "PixArtAlphaPipeline": {"clean_caption": False},
    "PixArtSigmaPipeline": {"clean_caption": False},
    "QwenImagePipeline": {"true_cfg_scale": 3.0, "negative_prompt": " "},
}
"""What the library is told besides; its size tables and cleaning depend on what is installed."""


def config(folder, **changes):
    small = {"steps": 2, "guidance": 3.0, "height": 32, "width": 64, "batch_size": 2}
    return PainterConfig(model=str(folder), device="cpu", **(small | changes))


@pytest.fixture(scope="module")
def painters(saved_family):
    """A function from a class to a painter, loaded once."""
    loaded = {}

    def painter(name):
        if name not in loaded:
            loaded[name] = DiffusionPairPainter(config(saved_family(name)))
        return loaded[name]

    return painter


def rows_of(painter):
    """How many noises the network sees to paint one pair."""
    seen = []
    network = painter.loaded.network

    hook = network.register_forward_pre_hook(
        lambda _network, given, named: seen.append(
            len(given[0] if given else named["hidden_states"])
        ),
        with_kwargs=True,
    )
    painter.paint(REQUESTS[:1])
    hook.remove()
    return sum(seen) / painter.config.steps / painter.config.batch_size


@pytest.mark.parametrize("name", WITHOUT_QWEN)
def test_a_pair_is_what_the_library_paints_with_the_pairs_seed(saved_family, painters, name):
    pair = painters(name).paint(REQUESTS)[0]
    pipeline = getattr(diffusers, name).from_pretrained(saved_family(name))
    pipeline.set_progress_bar_config(disable=True)
    told = {"guidance_scale": 3.0} if "true_cfg_scale" not in PLAIN.get(name, {}) else {}
    if "use_resolution_binning" in FAMILIES[name].options:
        told["use_resolution_binning"] = False
    for text, painted in (
        (REQUESTS[0].text, pair.image),
        (REQUESTS[0].counterfactual_text, pair.counterfactual),
    ):
        plain = pipeline(
            text,
            generator=torch.Generator().manual_seed(REQUESTS[0].seed),
            num_inference_steps=2,
            height=32,
            width=64,
            **(told | PLAIN.get(name, {})),
        ).images[0]
        assert np.abs(np.asarray(plain).astype(int) - painted).max() <= 1
        assert painted.std() > 1


@pytest.mark.parametrize("name", NOT_ALIKE)
def test_a_pair_depends_on_its_own_request_alone(painters, name):
    painter = painters(name)
    together, alone = painter.paint(REQUESTS), painter.paint(REQUESTS[1:2])[0]
    for image, other in (
        (together[1].image, alone.image),
        (together[1].counterfactual, alone.counterfactual),
    ):
        differences = np.abs(image.astype(int) - other)
        # Z-Image's network takes texts of any length, and fills up to the longest of a batch.
        assert differences.max() <= (1 if name == "ZImagePipeline" else 0)
        assert (differences > 0).mean() < 1e-3
    assert np.array_equal(alone.image, alone.counterfactual)
    assert not np.array_equal(together[0].image, together[0].counterfactual)


@pytest.mark.parametrize("name", NOT_ALIKE)
def test_without_guidance_the_network_works_half_as_much(saved_family, painters, name):
    guided = rows_of(painters(name))
    if painters(name).loaded.takes_guidance:  # it is told how strong; there is no second pass
        assert guided == 2
        return
    assert guided == 4
    guidance = 1.0 if name == "ZImagePipeline" else 0.0
    assert rows_of(DiffusionPairPainter(config(saved_family(name), guidance=guidance))) == 2


@pytest.mark.parametrize("name", ["LatentConsistencyModelPipeline", "FluxPipeline"])
def test_guidance_that_is_an_input_of_the_network_reaches_it(saved_family, painters, name):
    other = DiffusionPairPainter(config(saved_family(name), guidance=8.0)).paint(REQUESTS[:1])[0]
    assert not np.array_equal(other.image, painters(name).paint(REQUESTS[:1])[0].image)


def test_flux_without_an_input_for_guidance_is_guided_by_two_passes(build_family, tmp_path):
    folder = build_family("FluxPipeline", tmp_path, guidance_embeds=False)
    guided, free = (DiffusionPairPainter(config(folder, guidance=g)) for g in (3.0, 0.0))
    assert (rows_of(guided), rows_of(free)) == (4, 2)
    plain = diffusers.FluxPipeline.from_pretrained(folder)
    plain.set_progress_bar_config(disable=True)
    image = plain(
        REQUESTS[0].text,
        negative_prompt="",
        true_cfg_scale=3.0,
        generator=torch.Generator().manual_seed(1),
        num_inference_steps=2,
        height=32,
        width=64,
    ).images[0]
    painted = guided.paint(REQUESTS[:1])[0].image
    assert np.abs(np.asarray(image).astype(int) - painted).max() <= 1


def test_stable_diffusion_3_paints_without_its_largest_encoder(build_family, tmp_path):
    def without(parts):
        parts |= {"text_encoder_3": None, "tokenizer_3": None}

    folder = build_family("StableDiffusion3Pipeline", tmp_path, change=without)
    settings = config(folder)
    settings.check()
    none = {"text_encoder_3": None, "tokenizer_3": None}
    plain = diffusers.StableDiffusion3Pipeline.from_pretrained(folder, **none)
    plain.set_progress_bar_config(disable=True)
    image = plain(
        REQUESTS[0].text,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(1),
        num_inference_steps=2,
        height=32,
        width=64,
    ).images[0]
    painted = DiffusionPairPainter(settings).paint(REQUESTS[:1])[0].image
    assert np.abs(np.asarray(image).astype(int) - painted).max() <= 1


@pytest.mark.parametrize(
    ("name", "sizes", "words"),
    [
        ("StableDiffusionPipeline", {"width": 36}, "multiples of 8"),
        ("StableDiffusion3Pipeline", {"width": 72}, "multiples of 8 up to 64"),
        ("FluxPipeline", {"width": 36}, "multiples of 8"),
        ("PixArtSigmaPipeline", {"height": 12}, "multiples of 8"),
        ("SanaPipeline", {"width": 48}, "multiples of 32"),
    ],
)
def test_a_size_that_a_family_cannot_paint_is_refused(saved_family, name, sizes, words):
    with pytest.raises(InputError, match=words):
        DiffusionPairPainter(config(saved_family(name), **sizes))


def test_a_network_that_wants_more_than_a_noise_is_refused(build_family, tmp_path):
    folder = build_family("StableDiffusionPipeline", tmp_path, in_channels=9)
    with pytest.raises(InputError, match="takes 9 channels beside an autoencoder of 4"):
        DiffusionPairPainter(config(folder))


@pytest.mark.parametrize(
    ("name", "part", "tensor"),
    [
        ("StableDiffusionXLPipeline", "text_encoder_2", "text_projection"),
        ("FluxPipeline", "transformer", "x_embedder.weight"),
        ("FluxPipeline", "text_encoder_2", "final_layer_norm"),
    ],
)
def test_a_part_that_lacks_a_tensor_is_refused_by_name(
    build_family, lose_tensor, tmp_path, name, part, tensor
):
    folder = build_family(name, tmp_path)
    lose_tensor(tmp_path / part, tensor)
    with pytest.raises(InputError) as caught:
        DiffusionPairPainter(config(folder))
    assert tensor in str(caught.value)
    assert f"'{part}' of" in str(caught.value)


@pytest.mark.parametrize("part", ["transformer", "text_encoder_2", "tokenizer_2"])
def test_a_part_that_is_missing_is_named_before_there_is_an_identity(build_family, tmp_path, part):
    folder = build_family("FluxPipeline", tmp_path)
    (tmp_path / part).rename(tmp_path.parent / f"{tmp_path.name}-{part}")
    with pytest.raises(InputError, match=f"no folder '{part}', which model_index.json names"):
        config(folder).identity()


@pytest.mark.parametrize("name", ["SanaPipeline", WITHOUT_QWEN[-1]])
def test_pixels_that_are_no_numbers_are_seen(build_family, tmp_path, name):
    def spoil(parts):
        next(reversed(list(parts["vae"].decoder.parameters()))).data.fill_(float("nan"))

    folder = build_family(name, tmp_path, change=spoil)
    pair = DiffusionPairPainter(config(folder, steps=1)).paint(REQUESTS[:1])[0]
    assert not pair.finite


@pytest.mark.skipif(not OLD, reason="this diffusers can paint it")
def test_what_an_old_diffusers_paints_otherwise_in_a_batch_is_refused(saved_family):
    with pytest.raises(InputError, match=r"expected diffusers 0\.37 or later"):
        DiffusionPairPainter(config(saved_family("QwenImagePipeline")))


def test_what_a_painter_can_be_told_of_late_is_no_part_of_older_identities(saved_family):
    plain = config(saved_family("FluxPipeline"))
    assert "text_tokens" not in plain.identity()
    assert plain.model_copy(update={"text_tokens": 64}).identity()["text_tokens"] == 64
