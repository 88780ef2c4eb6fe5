"""What our deformable attention must do: give what the library's layers give."""

import copy

import pytest
import torch
from transformers import GroundingDinoForObjectDetection, MMGroundingDinoForObjectDetection
from transformers.models.grounding_dino.modeling_grounding_dino import (
    MultiScaleDeformableAttention,
)

from models.labelling.deformable_attention import attend_to_points, weighted_points

SIZES = [(10, 13), (5, 7), (3, 4)]


@pytest.fixture(scope="module", params=["grounding-dino", "mm-grounding-dino"])
def network(request, build_detector, build_mm_detector, tmp_path_factory):
    """The library's network with attention that looks further than to its own cell."""
    save, kind = {
        "grounding-dino": (build_detector, GroundingDinoForObjectDetection),
        "mm-grounding-dino": (build_mm_detector, MMGroundingDinoForObjectDetection),
    }[request.param]
    made = kind.from_pretrained(save(tmp_path_factory.mktemp("dino"))).eval()
    torch.manual_seed(0)
    for name, weight in made.named_parameters():
        if "sampling_offsets" in name or "attention_weights" in name:
            torch.nn.init.normal_(weight)
    return made


@torch.inference_mode()
def answered(network):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(2, 3, 64, 96, generator=generator)
    mask = torch.ones(2, 64, 96, dtype=torch.int64)
    mask[1, 48:] = 0
    ids = torch.tensor([[101, 5, 1012, 102]] * 2)
    found = network(pixel_values=pixels, pixel_mask=mask, input_ids=ids)
    return torch.cat([found.logits[..., :4], found.pred_boxes], dim=-1)


def test_answers_are_those_of_the_library_to_the_bit(network):
    ours = copy.deepcopy(network)
    attend_to_points(ours, None)
    assert torch.equal(answered(ours), answered(network))


def test_where_it_looks_matters_here(network):
    other = copy.deepcopy(network)
    for name, weight in other.named_parameters():
        if "sampling_offsets" in name:
            torch.nn.init.zeros_(weight)
    assert (answered(other) - answered(network)).abs().max() > 1e-3


def points(seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    cells = sum(rows * columns for rows, columns in SIZES)
    values = torch.randn(2, cells, 4, 8, generator=generator)
    places = torch.rand(2, 11, 4, 3, 5, 2, generator=generator) * 1.6 - 0.3  # some are outside
    weights = torch.rand(2, 11, 4, 3, 5, generator=generator)
    shapes = torch.tensor(SIZES)
    starts = torch.tensor([0, 130, 165])
    return values.to(dtype), shapes, starts, places.to(dtype), weights.to(dtype)


@pytest.mark.parametrize("seed", range(5))
def test_points_are_weighted_as_by_the_library(seed):
    values, shapes, starts, places, weights = given = points(seed)
    library = MultiScaleDeformableAttention()
    expected = library(values, shapes, SIZES, starts, places, weights, 64)
    torch.testing.assert_close(weighted_points(*given), expected, rtol=0, atol=1e-5)


def test_a_point_by_hand():
    values = torch.arange(6.0).reshape(1, 6, 1, 1)  # rows 0 1 2 and 3 4 5
    shapes, starts = torch.tensor([[2, 3]]), torch.tensor([0])
    # the middle of the first cell; between all four on the right; half outside on the left
    places = torch.tensor([[1 / 6, 1 / 4], [2 / 3, 1 / 2], [0.0, 1 / 4]]).reshape(1, 3, 1, 1, 1, 2)
    found = weighted_points(values, shapes, starts, places, torch.ones(1, 3, 1, 1, 1))
    torch.testing.assert_close(found.flatten(), torch.tensor([0.0, (1 + 2 + 4 + 5) / 4, 0.0]))
    found = weighted_points(values + 1, shapes, starts, places, torch.ones(1, 3, 1, 1, 1))
    torch.testing.assert_close(found.flatten(), torch.tensor([1.0, 4.0, 0.5]))


def test_places_in_half_precision_are_read_in_whole():
    values, shapes, starts, places, weights = points(0, torch.float16)
    found = weighted_points(values, shapes, starts, places, weights)
    whole = weighted_points(values.float(), shapes, starts, places.float(), weights.float())
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), whole, rtol=0, atol=2e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # compilers warn of what they are made of
def test_compiled_it_answers_the_same_for_full_batches_and_for_others(network):
    ours = copy.deepcopy(network)
    attend_to_points(ours, 2)
    torch.testing.assert_close(answered(ours), answered(network), rtol=0, atol=1e-4)
    other = copy.deepcopy(network)
    attend_to_points(other, 3)  # two images are not a full batch: the library's own steps
    assert torch.equal(answered(other), answered(network))
