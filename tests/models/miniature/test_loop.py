"""The training loop that all miniatures share."""

import time

import pytest
import torch

from models.miniature.loop import Run, fit, losses, step_rng


class PowerCutError(Exception):
    pass


def regression(run, stop_at=None):
    """Fit a line by noisy gradient steps; returns its weight and the losses."""
    torch.manual_seed(0)
    line = torch.nn.Linear(1, 1)
    optimizer = torch.optim.Adam(line.parameters(), lr=0.1)

    def step(index):
        if index == stop_at:
            raise PowerCutError
        inputs = torch.randn(8, 1)
        noise = float(step_rng(run.seed, index).normal())
        loss = (line(inputs) - 3 * inputs - noise).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss.item()}

    fit(run, {"line": line, "optimizer": optimizer}, step)
    return line.weight.item(), losses(run)


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path):
    whole = regression(Run("line", tmp_path / "whole", 30, 5, save_every=7))
    run = Run("line", tmp_path / "parts", 30, 5, save_every=7)
    with pytest.raises(PowerCutError):
        regression(run, stop_at=17)
    assert regression(run) == whole


def test_a_finished_run_does_nothing_more(tmp_path):
    run = Run("line", tmp_path, 12, 5)
    first = regression(run)
    assert regression(run, stop_at=0) == first


def test_the_cost_of_a_run_that_was_interrupted_covers_all_of_it(tmp_path):
    def rest(steps):
        run = Run("nap", tmp_path, steps, 1)
        return fit(run, {}, lambda _: time.sleep(0.02) or {"loss": 0.0})

    first, whole, again = rest(5), rest(10), rest(10)
    assert 0.1 <= first.wall < whole.wall
    assert whole.wall >= 0.2
    assert again == whole
    assert whole.processor < whole.wall


def test_another_seed_gives_other_losses(tmp_path):
    first = regression(Run("line", tmp_path / "a", 5, 1))
    second = regression(Run("line", tmp_path / "b", 5, 2))
    assert first[1] != second[1]
