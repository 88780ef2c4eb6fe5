"""The shared training loop, and the shortest trainings of painter and judge, end to end."""

import json
import shutil
import time

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from models.miniature import judge, loop, painter, vae
from models.miniature.world import CLASSES, sample_scene
from models.painting.config import PainterConfig
from models.painting.painters import DiffusionPairPainter
from models.protocols import PairRequest

SHORTEST = painter.Config(steps=3, text_steps=3, batch=4, chunk=64, bf16=False)


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
        noise = float(loop.step_rng(run.seed, index).normal())
        loss = (line(inputs) - 3 * inputs - noise).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss.item()}

    loop.fit(run, {"line": line, "optimizer": optimizer}, step)
    return line.weight.item(), loop.losses(run)


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path):
    whole = regression(loop.Run("line", tmp_path / "whole", 30, 5, save_every=7))
    run = loop.Run("line", tmp_path / "parts", 30, 5, save_every=7)
    with pytest.raises(PowerCutError):
        regression(run, stop_at=17)
    assert regression(run) == whole


def test_a_finished_run_does_nothing_more(tmp_path):
    run = loop.Run("line", tmp_path, 12, 5)
    first = regression(run)
    assert regression(run, stop_at=0) == first


def test_the_cost_of_a_run_that_was_interrupted_covers_all_of_it(tmp_path):
    def fit(steps):
        run = loop.Run("nap", tmp_path, steps, 1)
        return loop.fit(run, {}, lambda _: time.sleep(0.02) or {"loss": 0.0})

    first, whole, again = fit(5), fit(10), fit(10)
    assert 0.1 <= first.wall < whole.wall
    assert whole.wall >= 0.2
    assert again == whole
    assert whole.processor < whole.wall


def test_another_seed_gives_other_losses(tmp_path):
    first = regression(loop.Run("line", tmp_path / "a", 5, 1))
    second = regression(loop.Run("line", tmp_path / "b", 5, 2))
    assert first[1] != second[1]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    vae.train(vae.Config(steps=3, bf16=False), folder / "painter" / "vae", folder / "state")
    painter.train(SHORTEST, folder / "painter", folder / "state")
    judge.train(judge.Config(steps=2, batch=8), folder / "judge", folder / "state")
    return folder


def test_a_trained_painter_paints_pairs_through_the_pipeline(weights):
    config = PainterConfig(model=str(weights / "painter"), height=64, width=64, steps=2)
    request = PairRequest("a red bus on the beach", "a red nothing on the beach", 4)
    (pair,) = DiffusionPairPainter(config).paint([request])
    assert pair.image.shape == pair.counterfactual.shape == (64, 64, 3)
    assert pair.image.std() > 0


def test_trained_weights_can_be_read_by_others(weights):
    made = weights / "plain"
    made.mkdir()
    assert (weights / "painter").stat().st_mode == made.stat().st_mode


def test_the_record_beside_the_weights_holds_config_metrics_and_losses(weights):
    record = json.loads((weights / "painter" / "training.json").read_text())
    assert record["config"]["steps"] == 3
    assert len(record["first_losses"]) == 3
    assert set(record["metrics"]) == {"loss"}
    assert len((weights / "painter" / "losses.csv").read_text().splitlines()) == 4


def test_the_model_card_names_the_command_and_its_cost(weights):
    card = (weights / "painter" / "README.md").read_text()
    assert "miniature train painter --seed 1 --steps 3 --device cpu --threads 1\n" in card
    assert "0 minutes, 0 of processor time" in card


def test_the_autoencoder_that_others_learn_from_is_the_painters_own(weights):
    file = weights / "painter" / "vae" / "diffusion_pytorch_model.safetensors"
    assert {tensor.dtype for tensor in load_file(file).values()} == {torch.float16}
    pipeline = StableDiffusionPipeline.from_pretrained(weights / "painter")
    for name, tensor in load_file(file).items():
        assert torch.equal(pipeline.vae.state_dict()[name], tensor.float())


def test_the_same_seed_repeats_the_losses(weights, tmp_path):
    shutil.copytree(weights / "painter" / "vae", tmp_path / "painter" / "vae")
    painter.train(SHORTEST, tmp_path / "painter", tmp_path / "state")
    first, again = (
        json.loads((folder / "painter" / "training.json").read_text())["first_losses"]
        for folder in (weights, tmp_path)
    )
    assert again == first


def test_whitening_changes_the_latents_and_not_the_pictures():
    torch.manual_seed(1)
    autoencoder = vae.build().eval()
    rng = np.random.default_rng(2)
    images = vae.pictures([sample_scene(rng) for _ in range(16)])
    with torch.no_grad():
        before = vae.decode(autoencoder, vae.encode(autoencoder, images))
        vae.whiten(autoencoder, seed=3)
        latents = vae.encode(autoencoder, images)
        after = vae.decode(autoencoder, latents)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-3)
    assert latents.std((0, 2, 3)).sub(1).abs().max() < 0.5


def test_the_judge_gives_a_probability_to_each_class_and_to_nothing(weights):
    images = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    chances = judge.load(weights / "judge").probabilities(images)
    assert chances.shape == (3, len(CLASSES) + 1)
    assert ((chances > 0) & (chances < 1)).all()


@pytest.mark.parametrize("done", [0.0, 1.0])
def test_noise_levels_are_mostly_in_the_middle(done):
    times = painter._times(2000, done, painter.scheduler().alphas_cumprod)
    assert times.min() >= 0
    assert times.max() <= 999
    assert ((times > 200) & (times < 800)).float().mean() > 0.6
