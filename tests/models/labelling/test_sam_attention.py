"""What SAM's attention in rows must do: give what the library's attention gives."""

import copy

import numpy as np
import pytest
import torch
from transformers import SamHQModel, SamModel

from models.labelling.config import SamHqConfig, SegmenterConfig
from models.labelling.sam_attention import attend_in_rows
from models.labelling.sam_parts import compile_tower
from models.miniature.scenes import held_out
from models.registry import build
from models.weights import resolve_weights


@pytest.fixture(scope="module", params=["sam", "sam-hq"])
def encoder(request, build_sam, build_sam_hq, tmp_path_factory):
    """The library's encoder with positions that matter, of windows and of all places."""
    save, kind = {"sam": (build_sam, SamModel), "sam-hq": (build_sam_hq, SamHQModel)}[request.param]
    network = kind.from_pretrained(save(tmp_path_factory.mktemp("sam"))).eval()
    torch.manual_seed(0)
    for name, weight in network.vision_encoder.named_parameters():
        if "rel_pos" in name:
            torch.nn.init.normal_(weight)
    return network.vision_encoder


@pytest.fixture(scope="module")
def pixels(encoder):
    side = encoder.config.image_size
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def encoded(encoder, pixels):
    return encoder(pixels).last_hidden_state


@pytest.fixture(scope="module")
def expected(encoder, pixels):
    return encoded(encoder, pixels)


def test_encodings_are_those_of_the_library_to_the_bit(encoder, pixels, expected):
    ours = copy.deepcopy(encoder)
    attend_in_rows(ours)
    assert torch.equal(encoded(ours, pixels), expected)


@pytest.mark.parametrize("sums", [1, 10_000])
def test_rows_attend_without_the_others(encoder, pixels, expected, sums):
    ours = copy.deepcopy(encoder)
    attend_in_rows(ours, sums)
    torch.testing.assert_close(encoded(ours, pixels), expected, rtol=0, atol=1e-5)


def test_positions_matter_here(encoder, pixels, expected):
    other = copy.deepcopy(encoder)
    for layer in other.layers:
        torch.nn.init.zeros_(layer.attn.rel_pos_h)
    assert (encoded(other, pixels) - expected).abs().max() > 1e-2


def test_the_trained_miniature_encodes_to_the_bit_as_in_the_library():
    model = "weights:segmenter"
    backend = build(SegmenterConfig(model=model, device="cpu")).backend
    library = SamModel.from_pretrained(resolve_weights(model).source).eval()
    images = [drawn.picture for drawn in held_out(3, 0, num_things=2)]
    pixels = torch.cat([square.pixels for square in backend.squares(images)])
    with torch.inference_mode():
        [ours] = backend.encode(pixels)
        assert torch.equal(ours, library.get_image_embeddings(pixels))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # compilers warn of what they are made of
@pytest.mark.parametrize("kind", ["sam", "sam-hq"])
def test_with_a_compiled_tower_masks_are_the_same_in_full_batches_and_others(
    kind, build_sam, build_sam_hq, tmp_path
):
    save, config = {"sam": (build_sam, SegmenterConfig), "sam-hq": (build_sam_hq, SamHqConfig)}[
        kind
    ]
    ours, plain = (
        build(config(model=save(tmp_path), device="cpu", batch_size=2)) for _ in range(2)
    )
    compile_tower(ours.backend._network.vision_encoder, 2)
    pictures = [drawn.picture for drawn in held_out(3, 0, num_things=2)]  # a batch and one more
    boxes = [np.array([[4, 4, 40, 50]], np.float32)] * len(pictures)
    for found, expected in zip(
        ours.segment(pictures, boxes), plain.segment(pictures, boxes), strict=True
    ):
        np.testing.assert_allclose(found.predicted_ious, expected.predicted_ious, atol=1e-5)
        assert (np.asarray(found.masks) != np.asarray(expected.masks)).mean() < 1e-3
