"""How the detector, the segmenter and CLIP learn and are saved."""

import pytest
import torch
from transformers import SamModel

from models.miniature.optimisation import Schedule, save_half
from models.miniature.segmenter.network import untrained_network


def test_half_precision_files_load_as_float32(tmp_path):
    network = untrained_network()
    save_half(network, tmp_path)
    for loaded in (
        SamModel.from_pretrained(tmp_path),
        SamModel.from_pretrained(tmp_path, dtype=torch.float32),
    ):
        assert {p.dtype for p in loaded.parameters()} == {torch.float32}
        for new, old in zip(loaded.parameters(), network.parameters(), strict=True):
            torch.testing.assert_close(new, old, rtol=1e-3, atol=1e-6)
    size = (tmp_path / "model.safetensors").stat().st_size
    assert size < 2.2 * sum(p.numel() for p in network.parameters())


def test_the_second_cycle_begins_at_half_the_rate():
    schedule = Schedule(300, 1e-3, flat=0.5, second=100, warmup=10)
    assert schedule.rate(50) == pytest.approx(1e-3)
    assert schedule.rate(199) < 1e-4
    assert schedule.rate(220) == pytest.approx(5e-4)
    assert schedule.rate(299) < 5e-5
    assert [schedule.rate(i) for i in range(200)] == [
        Schedule(200, 1e-3, flat=0.5, warmup=10).rate(i) for i in range(200)
    ]
