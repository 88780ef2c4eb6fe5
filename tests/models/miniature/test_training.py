"""How the miniature detector, segmenter and CLIP are trained."""

from pathlib import Path

import pytest
import torch

from models.miniature.clip import training as clip
from models.miniature.detector import training as detector
from models.miniature.loop import Run, fit
from models.miniature.miniatures import Task
from models.miniature.segmenter import training as segmenter
from models.miniature.vae import network as vae


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vae")
    vae.untrained_network().save_pretrained(folder)
    return str(folder)


def tasks(name: str, folder: Path, autoencoder: str, seed: int = 0) -> Task:
    """The smallest training of a miniature."""
    if name == "detector":
        finder = detector.Config(batch=4, encoder_steps=2, autoencoder=autoencoder, seed=seed)
        return detector.task(finder)
    if name == "segmenter":
        return segmenter.task(segmenter.Config(batch=2, seed=seed))
    reader = clip.Config(per_class=1, pairs=2, empties=2, autoencoder=autoencoder, seed=seed)
    return clip.task(reader, folder)


@pytest.mark.parametrize("name", ["detector", "segmenter", "clip"])
def test_a_training_that_was_stopped_ends_with_the_same_weights(tmp_path, autoencoder, name):
    def weights(folder: str, *stops: int) -> dict:
        for stop in stops:
            task = tasks(name, tmp_path, autoencoder)
            fit(Run(name, tmp_path / folder, stop, 0), task.parts, task.step)
        return task.parts["mean"].state_dict()

    whole, resumed = weights("whole", 4), weights("resumed", 2, 4)
    start = tasks(name, tmp_path, autoencoder).parts["mean"].state_dict()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert any(not torch.equal(whole[key], start[key]) for key in whole)


@pytest.mark.parametrize("name", ["detector", "segmenter", "clip"])
def test_a_step_of_another_seed_has_another_loss(tmp_path, autoencoder, name):
    def loss(seed: int) -> float:
        return tasks(name, tmp_path, autoencoder, seed).step(0)["loss"]

    assert loss(0) == loss(0)
    assert loss(0) != loss(1)


def test_a_loss_falls_when_the_detector_learns_one_batch(autoencoder):
    config = detector.Config(batch=4, encoder_steps=0, autoencoder=autoencoder)
    network, losses = detector.objective(config)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3)
    values = []
    for _ in range(25):
        found = losses(0)
        optimiser.zero_grad()
        found["loss"].backward()
        optimiser.step()
        values.append(float(found["loss"].detach()))
    assert min(values[-3:]) < 0.5 * values[0]
