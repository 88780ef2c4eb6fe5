"""The shipped painter and judge are what their scripts make, and as good as their records say."""

import json
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from models.miniature import world
from models.miniature.judge import training as judge
from models.miniature.judge.scoring import score
from models.miniature.loop import step_seed
from models.miniature.painter import training as painter
from models.miniature.painter.network import scheduler
from models.miniature.painter.noise import random_times
from models.miniature.vae import training as vae

WEIGHTS = Path(world.__file__).parent / "weights"
STEPS = 5
"""Of a training at its true size, which takes seconds each."""


def record(name):
    return json.loads((WEIGHTS / name / "training.json").read_text(encoding="utf-8"))


def config(module, name):
    values = record(name)["config"]
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return module.Config(**values | lists)


def losses(step, seed, count):
    """The losses of the first steps, torch seeded for each as the loop does."""
    found = []
    for index in range(count):
        torch.manual_seed(step_seed(seed, index))
        found.append(step(index)["loss"])
    return found


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_shipped_configs_are_the_defaults_of_the_scripts():
    assert config(painter, "painter") == painter.Config()
    assert config(judge, "judge") == judge.Config()
    assert config(vae, "painter/vae") == vae.Config()


def test_the_judge_scores_as_recorded():
    metrics = score(WEIGHTS / "judge", 600, seed=0)
    assert metrics == pytest.approx(record("judge")["metrics"], abs=0.01)
    assert metrics["accuracy"] > 0.98


def test_the_autoencoder_scores_as_recorded():
    network = AutoencoderKL.from_pretrained(WEIGHTS / "painter" / "vae").eval()
    assert vae.psnr(network) == pytest.approx(record("painter/vae")["metrics"]["psnr"], abs=0.1)


@pytest.mark.full
@pytest.mark.timeout(1800)  # half a minute a step where bfloat16 is not in the processor
def test_the_scripts_repeat_the_first_losses_of_the_shipped_autoencoder():
    step = vae.task(vae.Config()).step
    found = losses(step, vae.Config().seed, STEPS)
    assert found == pytest.approx(record("painter/vae")["first_losses"][:STEPS], rel=0.03)


def test_the_scripts_repeat_the_first_losses_of_the_shipped_judge():
    step = judge.task(judge.Config(), WEIGHTS / "judge").step
    found = losses(step, judge.Config().seed, 20)
    assert found == pytest.approx(record("judge")["first_losses"], rel=0.03)


@pytest.mark.full
def test_the_scripts_repeat_the_first_losses_of_the_shipped_painter(tmp_path):
    defaults = painter.Config()
    step = painter.task(defaults, WEIGHTS / "painter", tmp_path).step
    found = losses(step, defaults.seed, STEPS)
    assert found == pytest.approx(record("painter")["first_losses"][:STEPS], rel=0.03)


@pytest.mark.parametrize("done", [0.0, 1.0])
def test_noise_levels_are_mostly_in_the_middle(done):
    times = random_times(2000, done, scheduler().alphas_cumprod)
    assert times.min() >= 0
    assert times.max() <= 999
    assert ((times > 200) & (times < 800)).float().mean() > 0.6
