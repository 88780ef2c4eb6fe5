"""What is recorded is what the library's own plain attention computes, and pictures stay."""

import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

from models.attention_maps import MapsWanted, pack_maps, tokens_of_spans, unpack_maps
from models.painting.config import PainterConfig
from models.painting.painters import DiffusionPairPainter, SeenPair
from models.protocols import AttendedClass, PairRequest, RecordingPainter
from storage.errors import DataError, InputError

WANTED = MapsWanted(mentions=True, class_prompt=True, cross=(8,), cells=8)
GRID = (8, 16)
LETTERS_OF_CAT = (5, 6, 7)
"""Tokens of `cat` in `a red cat`, behind the first one: the tokenizer knows letters alone."""


def request(text, *attended, twin="a nothing", seed=1):
    spans = [
        tuple(
            (start, start + len(name))
            for start in range(len(text))
            if text[start:].startswith(name)
        )
        for name in attended
    ]
    classes = map(AttendedClass, attended, spans)
    return PairRequest(text, twin, seed, tuple(classes))


REQUESTS = [
    request("a red cat", "cat", seed=1),
    request("cat or bus or cat", "bus", "cat", seed=2),
    request("sea", "sea", seed=3),
]


def config(folder, **changes):
    small = {"steps": 2, "guidance": 3.0, "height": 32, "width": 64, "batch_size": 2}
    return PainterConfig(model=str(folder), device="cpu", **(small | changes))


class Plain(AttnProcessor):
    """The library's attention with explicit probabilities, which it keeps."""

    def __init__(self):
        super().__init__()
        self.words, self.cells = [], []

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **options):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(context))
        scores = attn.get_attention_scores(query, key)
        mean = scores.unflatten(0, (-1, attn.heads)).mean(dim=1)
        (self.cells if encoder_hidden_states is None else self.words).append(mean)
        return super().__call__(attn, hidden_states, encoder_hidden_states, **options)


def plain_means(folder, text, guidance=3.0, steps=2, seed=1):
    """Mean probabilities of the library's own run on one text."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    plain = Plain()
    pipeline.unet.set_attn_processor(plain)
    latents = torch.randn(1, 4, 16, 32, generator=torch.Generator().manual_seed(seed))
    pipeline(
        text, latents=latents, num_inference_steps=steps, guidance_scale=guidance,
        height=32, width=64, output_type="np",
    )  # fmt: skip
    return [torch.stack(each).mean(dim=0)[-1].numpy() for each in (plain.words, plain.cells)]


@pytest.fixture(scope="module")
def recorded(saved_family):
    painter = DiffusionPairPainter(config(saved_family("StableDiffusionPipeline")))
    return painter.paint_recorded(REQUESTS, WANTED)


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "StableDiffusionXLPipeline"])
def test_maps_are_the_mean_of_what_plain_attention_computes(saved_family, name):
    folder = saved_family(name)
    (pair,) = DiffusionPairPainter(config(folder)).paint_recorded(REQUESTS[:1], WANTED)
    words, cells = plain_means(folder, "a red cat")
    expected = words[:, LETTERS_OF_CAT].T.reshape(3, *GRID)
    assert pair.maps.mentions.classes == (0, 0, 0)
    np.testing.assert_allclose(pair.maps.mentions.maps[8], expected, atol=2e-6)
    np.testing.assert_allclose(pair.maps.cells, cells, atol=2e-6)
    np.testing.assert_allclose(pair.maps.cells.sum(axis=1), 1, atol=1e-5)
    assert pair.maps.grid == GRID


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "StableDiffusionXLPipeline"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_pictures_are_those_that_are_painted_without_a_recording(saved_family, name, guidance):
    painter = DiffusionPairPainter(config(saved_family(name), guidance=guidance))
    assert isinstance(painter, RecordingPainter)
    before = painter.paint(REQUESTS)
    recorded = painter.paint_recorded(REQUESTS, WANTED)
    after = painter.paint(REQUESTS)
    for pair, with_maps, again in zip(before, recorded, after, strict=True):
        assert np.array_equal(pair.image, with_maps.image)
        assert np.array_equal(pair.counterfactual, with_maps.counterfactual)
        assert np.array_equal(pair.image, again.image)
        assert pair.maps is None
        assert again.maps is None


def test_without_guidance_all_rows_are_those_of_the_texts(saved_family):
    folder = saved_family("StableDiffusionPipeline")
    painter = DiffusionPairPainter(config(folder, guidance=1.0))
    (pair,) = painter.paint_recorded(REQUESTS[:1], WANTED)
    words, cells = plain_means(folder, "a red cat", guidance=1.0)
    expected = words[:, LETTERS_OF_CAT].T.reshape(3, *GRID)
    np.testing.assert_allclose(pair.maps.mentions.maps[8], expected, atol=2e-6)
    np.testing.assert_allclose(pair.maps.cells, cells, atol=2e-6)


def test_calls_are_counted_and_not_steps(saved_family):
    folder = saved_family("StableDiffusionPipeline")
    changes = {"scheduler": "pndm", "steps": 4, "timestep_spacing": "leading"}
    painter = DiffusionPairPainter(config(folder, **changes))
    seen = []
    hook = painter.loaded.network.register_forward_pre_hook(lambda *_: seen.append(1))
    (pair,) = painter.paint_recorded(REQUESTS[:1], WANTED)
    hook.remove()
    assert len(seen) > 4
    np.testing.assert_allclose(pair.maps.cells.sum(axis=1), 1, atol=1e-5)


def test_all_pieces_of_all_mentions_count_for_their_own_class(recorded):
    maps = recorded[1].maps
    assert maps.mentions.classes == (0, 0, 0, 1, 1, 1, 1, 1, 1)  # one bus, two cats
    assert maps.prompt.classes == (0, 0, 0, 1, 1, 1)
    assert maps.mentions.of_class(1)[8].shape == (6, *GRID)


def test_class_prompts_have_keys_of_their_own_in_both_pictures(saved_family, recorded):
    folder = saved_family("StableDiffusionPipeline")
    # What is painted from the class prompt itself looks for it as its class prompt does.
    alone = request("sea", "sea", twin="sea", seed=3)
    (pair,) = DiffusionPairPainter(config(folder)).paint_recorded([alone], WANTED)
    for each in (pair.maps.mentions, pair.maps.twin_prompt):
        np.testing.assert_allclose(pair.maps.prompt.maps[8], each.maps[8], atol=2e-6)
    first = recorded[0].maps
    assert not np.allclose(first.prompt.maps[8], first.mentions.maps[8], atol=1e-4)
    assert not np.allclose(first.prompt.maps[8], first.twin_prompt.maps[8], atol=1e-4)


def test_maps_depend_on_their_own_request_alone(saved_family, recorded):
    painter = DiffusionPairPainter(config(saved_family("StableDiffusionPipeline")))
    backwards = painter.paint_recorded(REQUESTS[::-1], WANTED)[::-1]
    (alone,) = painter.paint_recorded(REQUESTS[1:2], WANTED)
    for pair, again in zip(recorded, backwards, strict=True):
        assert pack_maps(pair.maps) == pack_maps(again.maps)
    assert pack_maps(alone.maps) == pack_maps(recorded[1].maps)


def test_a_mention_that_the_painter_does_not_read_has_no_maps(saved_family):
    long = request("a very very very long text cat", "cat")
    painter = DiffusionPairPainter(config(saved_family("StableDiffusionPipeline")))
    (pair,) = painter.paint_recorded([long], WANTED)
    assert pair.maps.mentions.classes == ()
    assert pair.maps.mentions.of_class(0)[8].shape == (0, *GRID)
    assert pair.maps.prompt.classes == (0, 0, 0)


def test_what_a_painter_sees_of_a_picture_is_recorded_step_by_step(saved_family):
    folder = saved_family("StableDiffusionPipeline")
    painter = DiffusionPairPainter(config(folder))
    rng = np.random.default_rng(0)
    picture, other = rng.integers(0, 256, (2, 32, 64, 3), dtype=np.uint8)
    scenes = [SeenPair(each, picture, other) for each in REQUESTS]
    seen = []
    hook = painter.loaded.network.register_forward_pre_hook(
        lambda _network, args: seen.append(args[0])
    )
    looked = painter.look_at(scenes, WANTED)
    hook.remove()
    pipeline = painter.loaded.pipeline
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        latents = (
            pipeline.vae.encode(pixels).latent_dist.mode() * pipeline.vae.config.scaling_factor
        )
    noise = torch.randn(1, 4, 16, 32, generator=torch.Generator().manual_seed(1))
    last = pipeline.scheduler.add_noise(latents, noise, pipeline.scheduler.timesteps[-1:])
    torch.testing.assert_close(seen[1][0], last[0])  # of the first batch, its last step
    assert [each.mentions.classes for each in looked] == [
        each.maps.mentions.classes for each in painter.paint_recorded(REQUESTS, WANTED)
    ]
    small = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(InputError, match=r"sizes \[\(8, 8\)\] .*expected .*\(32, 64\)"):
        painter.look_at([SeenPair(REQUESTS[0], small, small)], WANTED)


def test_only_what_is_wanted_is_recorded(saved_family):
    painter = DiffusionPairPainter(config(saved_family("StableDiffusionPipeline")))
    wanted = MapsWanted(mentions=True, class_prompt=False, cross=(8,))
    (pair,) = painter.paint_recorded(REQUESTS[:1], wanted)
    assert pair.maps.prompt is pair.maps.twin_prompt is pair.maps.cells is None


@pytest.mark.parametrize(
    ("name", "wanted", "message"),
    [
        ("StableDiffusion3Pipeline", WANTED, "no cross-attention to record"),
        ("FluxPipeline", WANTED, "no cross-attention to record"),
        (
            "StableDiffusionPipeline",
            MapsWanted(mentions=True, class_prompt=False, cross=(8, 16, 64)),
            "attention at the resolutions 8 for latents of 16 x 32.* reads 8, 16, 64",
        ),
    ],
)
def test_what_a_painter_cannot_record_is_refused(saved_family, name, wanted, message):
    own = config(saved_family(name), guidance=1.0)
    with pytest.raises(InputError, match=message):
        own.check_maps(wanted)
    with pytest.raises(InputError, match=message):
        DiffusionPairPainter(own).paint_recorded(REQUESTS, wanted)


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "StableDiffusionXLPipeline"])
def test_what_a_painter_can_record_is_known_before_it_is_loaded(saved_family, name):
    config(saved_family(name)).check_maps(WANTED)


def test_maps_are_read_back_as_they_were_written(recorded):
    maps = recorded[1].maps
    again = unpack_maps(pack_maps(maps))
    assert again.mentions.classes == maps.mentions.classes
    np.testing.assert_allclose(again.mentions.maps[8], maps.mentions.maps[8], rtol=1e-3)
    np.testing.assert_allclose(again.cells.sum(axis=1), 1, rtol=1e-6)
    assert again.grid == maps.grid
    assert again.finite


def damaged(data):
    from safetensors.numpy import load, save

    arrays = load(data)
    yield b""
    yield data[: len(data) // 2]
    yield save(arrays | {"grid": np.array([3, 3], np.int32)})
    yield save(arrays | {"mentions.classes": np.zeros(1, np.uint8)})
    yield save(arrays | {"mentions.many": arrays["mentions.8"]})
    yield save({name: each for name, each in arrays.items() if name != "prompt.classes"})


@pytest.mark.parametrize("case", range(6))
def test_damaged_maps_are_told_by_name(recorded, case):
    data = list(damaged(pack_maps(recorded[1].maps)))[case]
    with pytest.raises(DataError, match=r"k\.attention .*verify the dataset"):
        unpack_maps(data, name="k.attention")


def test_tokens_are_found_by_the_characters_that_they_stand_for():
    offsets = [(0, 0), (0, 4), (4, 7), (8, 11), (0, 0)]
    assert tokens_of_spans(offsets, [[(0, 7)], [(8, 11)], [(20, 22)]]) == ((1, 2, 3), (0, 0, 1))
