"""The miniature SAM."""

import pytest
import torch

from models.miniature.segmenter.scoring import jittered


def test_jitter_is_in_proportion_to_the_box():
    boxes = torch.tensor([[10.0, 10.0, 20.0, 50.0]]).repeat(1, 500, 1)
    moved = jittered(boxes, 0.05, torch.Generator().manual_seed(0)) - boxes
    deviation = moved.std((0, 1))
    assert deviation[0] == pytest.approx(0.5, rel=0.15)
    assert deviation[1] == pytest.approx(2.0, rel=0.15)
