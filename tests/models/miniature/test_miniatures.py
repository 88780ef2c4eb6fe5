"""The shortest trainings of autoencoder, painter and judge, end to end."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from models.miniature.judge import training as judge
from models.miniature.judge.network import load
from models.miniature.miniatures import train
from models.miniature.painter import training as painter
from models.miniature.painter.config import Config
from models.miniature.vae import training as vae
from models.miniature.vae.network import decode, encode, untrained_network
from models.miniature.vae.pictures import pictures
from models.miniature.world import CLASSES, sample_scene
from models.painting.config import PainterConfig
from models.painting.painters import DiffusionPairPainter
from models.protocols import PairRequest

SHORTEST = Config(steps=3, attention_steps=1, text_steps=3, batch=4, chunk=64, bf16=False)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    train(
        vae.MINIATURE, vae.Config(steps=3, bf16=False), folder / "painter" / "vae", folder / "state"
    )
    train(painter.MINIATURE, SHORTEST, folder / "painter", folder / "state")
    train(judge.MINIATURE, judge.Config(steps=2, batch=8), folder / "judge", folder / "state")
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
    train(painter.MINIATURE, SHORTEST, tmp_path / "painter", tmp_path / "state")
    first, again = (
        json.loads((folder / "painter" / "training.json").read_text())["first_losses"]
        for folder in (weights, tmp_path)
    )
    assert again == first


def test_whitening_changes_the_latents_and_not_the_pictures():
    torch.manual_seed(1)
    autoencoder = untrained_network().eval()
    rng = np.random.default_rng(2)
    images = pictures([sample_scene(rng) for _ in range(16)])
    with torch.no_grad():
        before = decode(autoencoder, encode(autoencoder, images))
        vae.whiten(autoencoder, seed=3)
        latents = encode(autoencoder, images)
        after = decode(autoencoder, latents)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-3)
    assert latents.std((0, 2, 3)).sub(1).abs().max() < 0.5


def test_the_judge_gives_a_probability_to_each_class_and_to_nothing(weights):
    images = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    chances = load(weights / "judge").probabilities(images)
    assert chances.shape == (3, len(CLASSES) + 1)
    assert ((chances > 0) & (chances < 1)).all()
