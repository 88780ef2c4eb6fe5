"""Runs of the versions whose views Pillow computed."""

from pathlib import Path

import pytest

from models.student.trained import RECORD_FILE, load_student
from storage.errors import InputError
from storage.identity import canonical_json, digest
from tasks.training import find_trained_student
from training.checkpoints import read_checkpoint_record
from training.config import AugmentationConfig, TrainingConfig
from training.loop import train_student


class Stop(Exception):  # noqa: N818 - stands for the user's Ctrl-C
    pass


def made_earlier(checkpoint):
    """Let a checkpoint say what those of earlier versions say."""
    record = read_checkpoint_record(checkpoint)
    del record["meta"]["config"]["augmentation"]["arithmetic"]
    record["fingerprint"] = digest(record["meta"])
    (checkpoint / RECORD_FILE).write_bytes(canonical_json(record))


def stop_after_the_first_checkpoint(row):
    if row["step"] == 2:
        raise Stop


def test_an_identity_says_what_computes_the_views():
    assert AugmentationConfig().identity()["arithmetic"] == "opencv"


def test_a_run_that_ended_before_is_found_finished_and_readable(settings):
    config = TrainingConfig(**settings)
    checkpoint = train_student(config)
    made_earlier(checkpoint)
    stamp = checkpoint.stat().st_mtime_ns
    assert find_trained_student(config) == checkpoint
    assert train_student(config) == checkpoint
    assert checkpoint.stat().st_mtime_ns == stamp
    assert load_student(checkpoint)
    other = TrainingConfig(**{**settings, "seed": 1})
    assert find_trained_student(other) is None
    with pytest.raises(InputError, match="belongs to another run"):
        train_student(other)


@pytest.mark.parametrize("named", [False, True])
def test_a_run_that_began_before_is_not_gone_on_with(settings, named):
    config = TrainingConfig(**settings)
    with pytest.raises(Stop):
        train_student(config, stop_after_the_first_checkpoint)
    checkpoint = Path(config.out) / "checkpoints" / "step-00000002"
    made_earlier(checkpoint)
    if named:
        config = config.model_copy(update={"resume_from": str(checkpoint)})
    assert find_trained_student(config) is None
    with pytest.raises(InputError, match=r"computed by Pillow: .* train into another out folder"):
        train_student(config)
