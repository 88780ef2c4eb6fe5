"""Geometry of boxes."""

import pytest
import torch

from models.miniature.boxes import box_iou, centred, corners, generalised_iou


def test_overlap_of_boxes():
    first = torch.tensor([0.0, 0.0, 2.0, 2.0])
    second = torch.tensor([1.0, 0.0, 3.0, 2.0])
    far = torch.tensor([4.0, 0.0, 6.0, 2.0])
    assert float(box_iou(first, second)) == pytest.approx(1 / 3)
    assert float(generalised_iou(first, second)) == pytest.approx(1 / 3)
    assert float(generalised_iou(first, far)) == pytest.approx(-1 / 3)


def test_centre_and_size_are_undone_by_corners():
    boxes = torch.tensor([[0.5, 0.25, 0.5, 0.125], [0.0, 1.0, 0.0, 2.0]])
    assert corners(boxes).tolist()[0] == [0.25, 0.1875, 0.75, 0.3125]
    assert torch.equal(centred(corners(boxes)), boxes)
