import math

import pytest
import torch
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from models.student.config import StudentConfig
from models.student.zegclip import ZegClip
from released import released_tensors
from storage.errors import InputError

WIDTH, EMBED, DEPTH, TOKENS, PATCH, SIDE = 32, 24, 3, 4, 16, 4
HEADS = 4


def tower(**changes):
    fields = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "image_size": 64,
        "patch_size": PATCH,
        "projection_dim": EMBED,
    }
    torch.manual_seed(0)
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**{**fields, **changes}))


def student(**changes):
    fields = {"clip": "made here", "image_size": 64, "num_prompt_tokens": TOKENS}
    return ZegClip(tower(), StudentConfig(**{**fields, "decoder_heads": 2, **changes}))


def text_vectors(count=5):
    return F.normalize(torch.randn(count, EMBED), dim=-1)


def upstream_state_dict():
    return released_tensors(
        width=WIDTH, embed=EMBED, depth=DEPTH, tokens=TOKENS, patch=PATCH, side=SIDE
    )


def attend(q, k, v, heads):
    """Attention head by head; returns the mixed values and the mean scaled scores."""
    mixed, scores = [], 0
    for qh, kh, vh in zip(*(x.chunk(heads, dim=-1) for x in (q, k, v)), strict=True):
        score = qh @ kh.transpose(1, 2) / math.sqrt(qh.shape[-1])
        mixed.append(score.softmax(dim=-1) @ vh)
        scores = scores + score / heads
    return torch.cat(mixed, dim=-1), scores


def plain_zegclip(weights, image, text, *, vision_heads, decoder_heads):
    """The released model in evaluation mode, written from its description alone."""
    w = weights

    def norm(x, name, eps=1e-5):
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)

    def linear(x, name):
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    batch = len(image)
    x = F.conv2d(image, w["backbone.conv1.weight"], stride=PATCH)
    h, ww = x.shape[2:]
    x = x.flatten(2).transpose(1, 2)
    cls = w["backbone.class_embedding"]
    x = torch.cat([cls.expand(batch, 1, -1), x], dim=1)
    table = w["backbone.positional_embedding"]
    grid = table[1:].reshape(1, SIDE, SIDE, WIDTH).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(h, ww), mode="bilinear").flatten(2).transpose(1, 2)
    x = x + torch.cat([(table[0] + cls).reshape(1, 1, -1), grid], dim=1)
    x = norm(x, "backbone.ln_pre")
    prompts = torch.cat(
        [w["backbone.prompt_embeddings"], w["backbone.deep_prompt_embeddings"]], dim=0
    )
    for i in range(DEPTH):
        shown = linear(prompts[i], "backbone.prompt_proj").expand(batch, -1, -1)
        patches = x[:, 1:] if i == 0 else x[:, 1 + TOKENS :]
        x = torch.cat([x[:, :1], shown, patches], dim=1)
        block = f"backbone.transformer.resblocks.{i}."
        y = norm(x, f"{block}ln_1")
        packed = F.linear(y, w[f"{block}attn.in_proj_weight"], w[f"{block}attn.in_proj_bias"])
        mixed, _ = attend(*packed.chunk(3, dim=-1), vision_heads)
        x = x + linear(mixed, f"{block}attn.out_proj")
        hidden = linear(norm(x, f"{block}ln_2"), f"{block}mlp.c_fc")
        x = x + linear(hidden * torch.sigmoid(1.702 * hidden), f"{block}mlp.c_proj")
    x = norm(norm(x, "backbone.prompt_norm", 1e-6), "backbone.ln_post") @ w["backbone.proj"]
    x = x / x.norm(dim=-1, keepdim=True)
    g, memory = x[:, :1], x[:, -h * ww :]
    queries = torch.cat([g * text, text.expand(batch, -1, -1)], dim=-1)
    queries = linear(queries, "decode_head.q_proj")
    for i in range(3):
        layer = f"decode_head.decoder_1.layers.{i}."
        q, k, v = (
            linear(s, f"{layer}multihead_attn.{n}")
            for s, n in ((queries, "q"), (memory, "k"), (memory, "v"))
        )
        mixed, scores = attend(q, k, v, decoder_heads)
        queries = norm(queries + linear(mixed, f"{layer}multihead_attn.proj"), f"{layer}norm2")
        hidden = linear(F.relu(linear(queries, f"{layer}linear1")), f"{layer}linear2")
        queries = norm(queries + hidden, f"{layer}norm3")
    return F.interpolate(scores.reshape(batch, -1, h, ww), size=image.shape[2:], mode="bilinear")


@pytest.mark.parametrize("size", [(64, 64), (96, 80), (48, 128)])
def test_released_weights_give_the_released_outputs(size):
    weights = upstream_state_dict()
    loaded = ZegClip.from_upstream(
        weights, image_size=64, patch_size=PATCH, vision_heads=HEADS, decoder_heads=2
    )
    image, text = torch.randn(2, 3, *size), text_vectors()
    expected = plain_zegclip(weights, image, text, vision_heads=HEADS, decoder_heads=2)
    with torch.no_grad():
        found = loaded(image, text)
    assert found.shape == (2, 5, *size)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_released_weights_without_effect_are_named(caplog):
    caplog.set_level("INFO")
    ZegClip.from_upstream(
        upstream_state_dict(), image_size=64, patch_size=PATCH, vision_heads=HEADS, decoder_heads=2
    )
    assert "decode_head.decoder_1.layers.2.linear1.weight" in caplog.text
    assert "decode_head.loss_decode.criterion.empty_weight" in caplog.text
    assert "decode_head.decoder_1.layers.2.multihead_attn.q.weight" not in caplog.text


@pytest.mark.parametrize("name", ["backbone.prompt_proj.bias", "decode_head.q_proj.weight"])
def test_a_state_dict_without_a_weight_is_refused_by_its_name(name):
    weights = upstream_state_dict()
    del weights[name]
    with pytest.raises(InputError, match=name):
        ZegClip.from_upstream(
            weights, image_size=64, patch_size=PATCH, vision_heads=HEADS, decoder_heads=2
        )


def test_a_state_dict_of_another_image_size_is_refused():
    with pytest.raises(InputError, match="17 rows, expected 65"):
        ZegClip.from_upstream(
            upstream_state_dict(),
            image_size=128,
            patch_size=PATCH,
            vision_heads=HEADS,
            decoder_heads=2,
        )


def test_the_full_size_trains_as_many_parameters_as_receive_a_gradient_upstream():
    with torch.device("meta"):
        clip = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=768,
                intermediate_size=3072,
                num_hidden_layers=12,
                num_attention_heads=12,
                patch_size=16,
                projection_dim=512,
            )
        )
        full = ZegClip(clip, StudentConfig(clip="made here"))
    assert sum(p.numel() for _, p in full.trainable_parameters()) == 8_039_168


def test_the_gradient_reaches_all_trainable_parameters_and_no_other():
    model = student()
    model(torch.randn(2, 3, 64, 64), text_vectors()).square().sum().backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, _ in model.trainable_parameters()}
    assert not any(name.startswith(("vision", "projection")) for name in with_gradient)


def test_both_branches_of_a_pair_pass_a_gradient_through_their_cls():
    model = student()
    _, cls = model.encode(torch.randn(2, 3, 64, 64))
    (cls[0] @ cls[1]).backward()
    assert model.prompts.grad.abs().sum() > 0


def test_a_pair_encoded_together_equals_its_images_encoded_alone():
    model = student().eval()
    image, other = torch.randn(2, 3, 64, 96), torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        patches, cls, other_cls = model.encode_pair(image, other)
        torch.testing.assert_close((patches, cls), model.encode(image))
        torch.testing.assert_close(other_cls, model.encode(other)[1])


def test_encoded_patches_and_cls_have_unit_length():
    patches, cls = student().encode(torch.randn(2, 3, 64, 96))
    assert patches.shape == (2, EMBED, 4, 6)
    torch.testing.assert_close(patches.norm(dim=1), torch.ones(2, 4, 6))
    torch.testing.assert_close(cls.norm(dim=1), torch.ones(2))


def test_a_class_scores_the_same_whatever_other_classes_are_asked_for():
    model, text = student().eval(), text_vectors(6)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(image, text)[:, 2:4], model(image, text[2:4]))


def test_each_image_may_have_its_own_classes():
    model = student().eval()
    image, text = torch.randn(2, 3, 64, 64), torch.stack([text_vectors(3), text_vectors(3)])
    with torch.no_grad():
        both = model(image, text)
        for i in range(2):
            torch.testing.assert_close(both[i : i + 1], model(image[i : i + 1], text[i]))


def test_an_image_of_another_size_moves_its_logits_with_it():
    model, text = student().eval(), text_vectors(2)
    with torch.no_grad():
        assert model(torch.randn(1, 3, 80, 112), text).shape == (1, 2, 80, 112)
    with pytest.raises(InputError, match="8 x 64 pixels"):
        model(torch.randn(1, 3, 8, 64), text)


def test_only_the_trainable_parts_switch_to_training():
    model = student().train()
    assert not model.vision.training
    assert model.prompt_dropout.training
    image, text = torch.randn(1, 3, 64, 64), text_vectors(2)
    assert not torch.equal(model(image, text), model(image, text))


def test_decoder_layers_start_equal_only_if_asked():
    same = student(decoder_init="identical").decoder
    apart = student().decoder
    for decoder, equal in ((same, True), (apart, False)):
        first = decoder.layers[0].attention
        assert torch.equal(first.query.weight, decoder.layers[1].attention.query.weight) is equal
        assert torch.equal(first.key.weight, decoder.scores.key.weight) is equal


@pytest.mark.parametrize("layers", [1, 3])
def test_a_start_from_similarity_ranks_classes_as_clip_does(layers):
    model = student(decoder_init="similarity", decoder_layers=layers, similarity_scale=8.0).eval()
    text = text_vectors(5)
    patches = text[[3, 1, 0, 4]].T.reshape(1, EMBED, 2, 2)
    with torch.no_grad():
        logits = model.scores(patches, text_vectors(1), text)[0].flatten(1)
    assert logits.argmax(dim=0).tolist() == [3, 1, 0, 4]
    assert logits.max(dim=0).values.mean() == pytest.approx(8.0, rel=0.25)


def test_wrong_geometry_is_refused_in_words():
    with pytest.raises(InputError, match="expected a multiple of CLIP's patch size 16"):
        student(image_size=70)
    with pytest.raises(InputError, match="24 wide, which 7 heads do not divide"):
        student(decoder_heads=7)
    with pytest.raises(InputError, match="32 wide and CLIP's space 24"):
        student(decoder_width=32, decoder_init="similarity")


def test_levels_are_normalised_as_the_config_says():
    pixels = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    clip = student().normalise(pixels)[0, :, 0, 0]
    imagenet = student(normalisation="imagenet").normalise(pixels)[0, :, 0, 0]
    torch.testing.assert_close(clip[0].item(), (1 - 0.48145466) / 0.26862954)
    torch.testing.assert_close(imagenet[0].item(), (1 - 0.485) / 0.229)
