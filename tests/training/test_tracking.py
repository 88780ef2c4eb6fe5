import sys
from pathlib import Path

import pytest

from storage.errors import InputError
from training.config import TrainingConfig
from training.loop import train_student


def test_a_missing_package_is_said_before_anything_is_loaded(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    settings |= {"wandb": "project", "dataset": "nowhere"}
    with pytest.raises(InputError, match="run `pip install wandb`"):
        train_student(TrainingConfig(**settings))


def test_the_project_is_no_part_of_what_the_weights_depend_on(settings):
    with_one = TrainingConfig(**{**settings, "wandb": "project"})
    assert with_one.identity() == TrainingConfig(**settings).identity()


@pytest.fixture
def fresh_wandb():
    """The package without memory of an earlier test's environment."""
    wandb = pytest.importorskip("wandb", reason="the extra wandb is not installed")
    wandb.teardown()
    yield wandb
    wandb.teardown()


@pytest.mark.slow
def test_offline_runs_hold_every_update_and_go_on_under_the_same_name(
    settings, monkeypatch, fresh_wandb
):
    monkeypatch.setenv("WANDB_MODE", "offline")
    settings |= {"wandb": "project"}
    out, rows = Path(settings["out"]), []
    for resume_from in (None, str(out / "checkpoints" / "step-00000004")):
        settings["resume_from"] = resume_from
        train_student(TrainingConfig(**settings), rows.append)
    fresh_wandb.teardown()  # its process writes until it ends
    first, second = sorted((out / "wandb").glob("offline-run-*/*.wandb"))
    assert first.name == second.name
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5, 4, 5]
    for path, part in ((first, rows[:6]), (second, rows[6:])):
        kept = path.read_bytes()
        assert b"classes_per_image" in kept
        assert all(repr(row[name]).encode() in kept for row in part for name in ("loss", "lr"))


@pytest.mark.usefixtures("fresh_wandb")
def test_without_a_login_the_ways_out_are_said(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(InputError, match="run `wandb login`, or set WANDB_MODE=offline"):
        train_student(TrainingConfig(**{**settings, "wandb": "project"}))
