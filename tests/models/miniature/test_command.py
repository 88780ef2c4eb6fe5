"""`python -m models.miniature`: what it refuses, what it runs side by side, and where."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch

from models.miniature.__main__ import FOLDERS, WEIGHTS, Options, app, train, train_all
from models.miniature.clip import training as clip
from models.miniature.detector import training as detector
from models.miniature.judge import training as judge
from models.miniature.painter import training as painter
from models.miniature.segmenter import training as segmenter
from models.miniature.vae import training as vae
from storage.errors import IncompleteError, InputError

AUTOENCODER = str(WEIGHTS / FOLDERS["vae"])
MINIATURES = {
    module.MINIATURE.name: module.MINIATURE
    for module in (vae, painter, detector, segmenter, clip, judge)
}


def test_a_name_that_is_no_miniature_is_refused_with_the_names_that_are():
    with pytest.raises(InputError, match="nobody is not a miniature, expected one of vae, painter"):
        train("nobody")


def test_a_training_without_the_autoencoder_says_what_to_train_first(tmp_path):
    with pytest.raises(InputError, match="painter/vae, which is not there; train vae first"):
        train("judge", out=tmp_path / "weights", state=tmp_path / "state")
    assert not list(tmp_path.iterdir())


def test_a_device_that_is_not_there_is_refused_before_anything_is_started(tmp_path):
    for refused in (lambda **k: train("vae", **k), train_all):
        with pytest.raises(InputError, match="device 'cuda:99' is not there"):
            refused(out=tmp_path, state=tmp_path, options=Options(device="cuda:99"))
    assert not list(tmp_path.iterdir())


def test_a_training_is_told_the_device_that_is_there():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert Options().changes() == {"device": expected, "threads": 1}
    assert Options(device="cpu", seed=0).changes() == {"device": "cpu", "seed": 0, "threads": 1}


def test_options_go_on_to_each_training_as_they_came():
    given = Options(steps=2, seed=0, device="cpu", threads=3)
    _, bound, _ = app.parse_args(["train", "vae", *given.flags()])
    assert bound.kwargs["options"] == given


def test_jobs_must_be_positive(tmp_path):
    with pytest.raises(InputError, match="0 jobs, expected at least 1"):
        train_all(out=tmp_path, state=tmp_path, jobs=0)


def test_a_training_that_fails_is_named_with_its_log(tmp_path):
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "vae.pt").write_bytes(b"no checkpoint")
    with pytest.raises(IncompleteError, match=f"vae failed, see {tmp_path}/vae.log"):
        train_all(out=tmp_path / "weights", state=tmp_path, jobs=2)
    assert "Error" in (tmp_path / "vae.log").read_text()
    assert not (tmp_path / "painter.log").exists()


@pytest.mark.parametrize("name", FOLDERS)
def test_the_card_that_ships_is_the_one_that_a_training_writes(name):
    folder, miniature = WEIGHTS / FOLDERS[name], MINIATURES[name]
    entry = json.loads((folder / "training.json").read_text())
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in entry["config"].items()}
    card = miniature.card(miniature.config(**config), entry["metrics"])
    shipped = (folder / "README.md").read_text().partition("\n## Origin")[0]
    # a metric is rounded once for the card, and twice on its way through the record
    assert re.sub(r"\d+\.\d+", "#", shipped) == re.sub(r"\d+\.\d+", "#", card)


@pytest.mark.full
def test_all_are_trained_side_by_side_and_a_second_call_trains_nothing_again(tmp_path):
    command = [sys.executable, "-m", "models.miniature", "train-all", "--jobs", "2", "--steps", "2"]
    command += ["--out", str(tmp_path / "weights"), "--state", str(tmp_path / "state")]
    for _ in range(2):
        subprocess.run(command, check=True)
    for name, folder in FOLDERS.items():
        entry = json.loads((tmp_path / "weights" / folder / "training.json").read_text())
        assert entry["config"]["steps"] == len(entry["first_losses"]) == 2
        assert f"train {name} --seed" in (tmp_path / "weights" / folder / "README.md").read_text()
        log = (tmp_path / "state" / f"{name}.log").read_text()
        assert log.count("step 2 of 2, 0.0 min left") == 1


def first_loss(name, device, folder):
    """The loss of the first step, in float32 so that devices can be compared."""
    small = {
        "vae": {"bf16": False},
        "painter": {"bf16": False, "text_steps": 2, "chunk": 64},
        "detector": {"encoder_steps": 0, "autoencoder": AUTOENCODER},
        "clip": {"autoencoder": AUTOENCODER},
    }
    if name == "painter":
        shutil.copytree(AUTOENCODER, folder / "painter" / "vae")
    miniature = MINIATURES[name]
    config = miniature.config(device=device, **small.get(name, {}))
    out = WEIGHTS / "judge" if name == "judge" else folder / name
    step = miniature.task(config, out, folder).step
    torch.manual_seed(0)
    return step(0)["loss"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", FOLDERS)
def test_a_gpu_learns_from_the_same_scenes(tmp_path, name):
    there, here = (first_loss(name, device, tmp_path / device) for device in ("cuda", "cpu"))
    # bfloat16 is rounded in another order, and the autoencoder draws its noise on the device
    assert there == pytest.approx(here, rel=0.05)
