"""Where the miniature painter's attention looks: what it is taught, and what it has learned."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTokenizer

from models.miniature import world
from models.miniature.loop import Run, fit, step_seed
from models.miniature.painter import training as painter
from models.miniature.painter.attention import WordMaps
from models.miniature.painter.config import Config
from models.miniature.painter.examples import Examples, LatentScene
from models.miniature.painter.network import Text, denoiser, refined
from models.miniature.painter.noise import weights
from models.miniature.painter.placement import class_prompts, covered, distance, names, targets
from models.miniature.vae.network import LATENTS, encode
from models.miniature.vae.pictures import pictures
from models.miniature.world import CLASSES, Scene, Thing, boxes, sample_scene
from models.painting.painters import DiffusionPairPainter
from models.profiles import load_profile

WEIGHTS = Path(world.__file__).parent / "weights"
SMALL = Config(steps=4, text_steps=2, attention_steps=2, batch=4, chunk=64, bf16=False)
STAR, CUP, CAT = (CLASSES.index(name) for name in ("star", "cup", "cat"))
PAIR = Scene(
    "meadow",
    (Thing(STAR, "red", "large", 17, 34, 14), Thing(CUP, "blue", "large", 47, 34, 14)),
    seed=1,
)


@pytest.fixture(scope="module")
def text():
    torch.manual_seed(0)
    return Text(CLIPTokenizer.from_pretrained(WEIGHTS / "painter" / "tokenizer"))


def example(scene=PAIR, *, absent=False, unpainted=None):
    nothing = torch.zeros(1, 16, 16)
    return LatentScene(scene, absent, unpainted, nothing, nothing)


def shown(text, line, prompt, **changes):
    """The target of each taught token of a text, by the token's place."""
    taught, wanted = targets([example(**changes)], [prompt], text.ids([line]), text.words())
    return dict(zip(taught[0].nonzero().flatten().tolist(), wanted, strict=True))


def test_a_box_covers_as_much_of_each_cell_as_lies_in_it():
    left, top, right, bottom = boxes(PAIR)[0].tolist()
    share = covered(PAIR)
    assert share.shape == (2, 16, 16)
    assert share[0].sum() * 16 == pytest.approx((right - left) * (bottom - top))  # 16 px a cell
    column, row = int(left // 4), int((top + bottom) / 8)
    assert share[0, row, column] == pytest.approx(1 - left / 4 + column)
    assert share[0, :, 12:].sum() == 0


def test_each_class_of_a_caption_is_taught_its_own_box(text):
    found = shown(text, "a red star and a blue cup in a meadow", [STAR, CUP])
    assert list(found) == [3, 7]
    assert found[3] == pytest.approx(0.9 * covered(PAIR)[0])
    assert found[7] == pytest.approx(0.9 * covered(PAIR)[1])


def test_a_class_prompt_is_taught_the_boxes_of_what_is_there_and_nothing_else(text):
    found = shown(text, "cat cup star", [CAT, CUP, STAR])
    assert list(found) == [1, 2, 3]
    assert found[1].sum() == 0
    assert found[2] == pytest.approx(0.9 * covered(PAIR)[1])


def test_a_class_that_was_left_out_is_taught_to_be_nowhere(text):
    assert [m.sum() for m in shown(text, "star cup", [STAR, CUP], absent=True).values()] == [0, 0]
    found = shown(text, "star cup", [STAR, CUP], unpainted=0)
    assert found[1].sum() == 0
    assert found[2].sum() > 0


def test_texts_without_classes_teach_nothing(text):
    for line in ("", "a red nothing in a meadow"):
        assert shown(text, line, [STAR, CUP]) == {}
    assert distance([], torch.zeros(1, 24, dtype=torch.bool), torch.zeros(0, 16, 16)) == 0


def test_class_prompts_are_the_scene_or_most_of_it_among_others():
    prompts = class_prompts([example()] * 400, np.random.default_rng(0))
    plain = [prompt for prompt in prompts if prompt == [STAR, CUP]]
    mixed = [prompt for prompt in prompts if prompt != [STAR, CUP]]
    assert 150 < len(plain) < 250
    assert all(len(set(prompt)) == len(prompt) for prompt in mixed)
    assert min(map(len, mixed)) < 3
    assert max(map(len, mixed)) > 10
    assert 0.75 < sum(STAR in prompt for prompt in mixed) / len(mixed) < 0.95
    others = {c for prompt in mixed for c in prompt} - {STAR, CUP}
    assert len(others) == len(CLASSES) - 2
    assert {prompt.index(CUP) for prompt in mixed if CUP in prompt} > {0, 1, 2}
    assert names([[STAR, CUP], [CAT]]) == ["star cup", "cat"]


def test_attention_as_it_is_wanted_has_the_smallest_distance(text):
    ids = text.ids(["star cup"])
    taught, wanted = targets([example()], [[STAR, CUP]], ids, text.words())
    perfect = torch.zeros(1, 24, 16, 16)
    perfect[0, 1:3] = wanted
    coarse = torch.nn.functional.avg_pool2d(perfect, 2)
    near, far = (
        distance(maps, taught, wanted)
        for maps in ([perfect, coarse], [perfect.flip(3), coarse.flip(3)])
    )
    assert 0 < near < 0.1 * far


def test_a_denoiser_with_finer_attention_computes_what_it_did():
    torch.manual_seed(3)
    plain = denoiser(fine=False).eval()
    fine = refined(plain.state_dict()).eval()
    noisy, states = torch.randn(2, LATENTS, 16, 16), torch.randn(2, 24, 64)
    with torch.no_grad():
        first, second = (unet(noisy, 500, states).sample for unet in (plain, fine))
    assert torch.equal(first, second)
    assert len(fine.state_dict()) > len(plain.state_dict())
    again = refined(fine.state_dict())
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in fine.state_dict().items())


def test_the_maps_are_those_of_the_layers_themselves():
    """A layer's output with its values replaced by token numbers is what its map says."""
    torch.manual_seed(4)
    unet = denoiser(fine=True).eval()
    unet.set_attn_processor(AttnProcessor())
    attention = WordMaps(unet)
    states = torch.randn(2, 24, 64)
    probabilities = []

    class Watched(AttnProcessor):
        def __call__(self, attn, hidden_states, encoder_hidden_states=None, *rest, **more):
            if encoder_hidden_states is not None:
                query, key = attn.to_q(hidden_states), attn.to_k(encoder_hidden_states)
                query, key = attn.head_to_batch_dim(query), attn.head_to_batch_dim(key)
                found = attn.get_attention_scores(query, key)  # (batch x heads, cells, tokens)
                probabilities.append(found.unflatten(0, (2, -1)).mean(1).transpose(1, 2))
            return super().__call__(attn, hidden_states, encoder_hidden_states, *rest, **more)

    unet.set_attn_processor(Watched())
    with torch.no_grad():
        unet(torch.randn(2, LATENTS, 16, 16), 500, states)
        maps = attention.maps(states)
        other = attention.maps(torch.randn(2, 24, 64))
    expected = [p for p in probabilities if p.shape[2] in (64, 256)]
    assert [m.shape[-1] for m in maps] == [16, 8, 8, 8, 16, 16]
    for found, one in zip(maps, expected, strict=True):
        torch.testing.assert_close(found.flatten(2), one)
    assert all(not torch.allclose(a, b) for a, b in zip(maps, other, strict=True))


def test_things_are_named_and_not_drawn_only_while_the_attention_learns():
    encoder = painter.load_autoencoder(WEIGHTS / "painter" / "vae")
    config = replace(SMALL, steps=256, attention_steps=128, twins=0.3, unpainted=0.5, pairs_from=0)
    stream = Examples(config, encoder)  # 64 scenes four times are 64 steps of 4
    before = [e for step in range(64) for e in stream.batch(step)]
    assert {e.unpainted for e in before} == {None}
    late = [e for step in range(128, 144) for e in stream.batch(step)]
    lacking = [e for e in late if e.unpainted is not None]
    assert 0.2 < len(lacking) / len(late) < 0.5
    assert not any(e.absent for e in lacking)
    one = lacking[0]
    things = tuple(t for i, t in enumerate(one.scene.things) if i != one.unpainted)
    drawn = pictures([replace(one.scene, things=things)])
    with torch.no_grad():
        assert torch.allclose(encode(encoder, drawn)[0], one.latent, atol=1e-4)
    counted = weights(config, 0, late).amax((1, 2, 3)) > 0
    assert counted.tolist() == [e.unpainted is None for e in late]


def fresh(folder):
    """A training of four steps, two of which teach the attention."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("vae", "tokenizer"):
        if not (folder / part).exists():
            (folder / part).symlink_to(WEIGHTS / "painter" / part)
    return painter.task(SMALL, folder, folder / "state")


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_training_that_is_stopped_anywhere_ends_with_the_same_weights(tmp_path, stop):
    def weights_after(name, *stops):
        for steps in stops:
            task = fresh(tmp_path / name)
            fit(Run("painter", tmp_path / name, steps, SMALL.seed), task.parts, task.step)
        return task.parts["painter"].state_dict()

    whole, resumed = weights_after("whole", 4), weights_after("resumed", stop, 4)
    for part in ("unet_average", "text_average", "unet"):
        assert whole[part].keys() == resumed[part].keys()
        assert all(torch.equal(whole[part][k], resumed[part][k]) for k in whole[part])


def test_the_attention_learns_when_its_steps_have_come(tmp_path):
    task, found = fresh(tmp_path), []
    for step in range(4):
        torch.manual_seed(step_seed(SMALL.seed, step))
        found.append(task.step(step)["attention"])
    assert found[:2] == [0, 0]
    assert min(found[2:]) > 0


@pytest.mark.parametrize("alone", [False, True])
def test_the_shipped_painter_looks_at_what_it_is_asked_for(alone):
    """In drawn pictures with some noise each thing's cells see its class, and none a third one."""
    config = load_profile("miniature").painter.model_copy(update={"device": "cpu"})
    pipeline = DiffusionPairPainter(config).loaded.pipeline
    attention = WordMaps(pipeline.unet)
    rng = np.random.default_rng(5)
    scenes = [sample_scene(rng, num_things=2) for _ in range(12)]
    ids = [[t.class_id for t in s.things] for s in scenes]
    others = [next(c for c in range(len(CLASSES)) if c not in own) for own in ids]
    captions = [f"a {CLASSES[a]} and a {CLASSES[b]} in a meadow" for a, b in ids]
    asked = [" ".join(CLASSES[c] for c in (*own, o)) for own, o in zip(ids, others, strict=True)]

    def states(lines):
        text = Text(pipeline.tokenizer)
        text.encoder = pipeline.text_encoder
        return text(lines)

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        clean = encode(pipeline.vae, pictures(scenes))
        noise = torch.randn(clean.shape, generator=generator)
        level = pipeline.scheduler.alphas_cumprod[300]
        pipeline.unet(level.sqrt() * clean + (1 - level).sqrt() * noise, 300, states(captions))
        lines = asked if alone else captions
        maps = [m for m in attention.maps(states(lines)) if m.shape[-1] == 16]
    mean = torch.stack(maps).mean(0)  # (scenes, tokens, 16, 16)
    places = [covered(scene) for scene in scenes]
    for row, (own, other) in enumerate(zip(ids, others, strict=True)):
        words = ["", *lines[row].split()]
        for number, class_id in enumerate(own):
            found, place = mean[row, words.index(CLASSES[class_id])], places[row][number]
            inside, outside = found[place > 0.9].mean(), found[place == 0].mean()
            assert inside > 3 * outside, lines[row]
        if alone:
            strongest = mean[row, 1:3].amax((1, 2)).min()
            assert mean[row, words.index(CLASSES[other])].max() < strongest
