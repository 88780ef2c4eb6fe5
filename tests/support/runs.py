"""Training runs for tests: a miniature student as it is before training, saved as a checkpoint."""

from pathlib import Path

import torch

from models.profiles import load_profile
from models.student.zegclip import ZegClip
from storage.vocabulary import load_vocabulary
from training.checkpoints import Checkpoint, save_checkpoint
from training.config import TrainingConfig
from training.loop import CHECKPOINT_FOLDER, student_run_identity


def write_run(out: Path, *, nan: bool = False) -> Path:
    """Write a run of 0 steps; `nan` spoils one of its values, as a training that diverged does."""
    profile = load_profile("miniature")
    config = TrainingConfig.model_validate(
        {
            **profile.training,
            "dataset": "none",
            "out": str(out),
            "vocabulary": profile.vocabulary,
            "student": profile.student,
        }
    )
    torch.manual_seed(0)
    student = ZegClip.from_config(config.student)
    weights = {name: value.detach().clone() for name, value in student.trainable_parameters()}
    if nan:
        next(iter(weights.values())).view(-1)[0] = torch.nan
    meta = student_run_identity(config, load_vocabulary(config.vocabulary), [])
    save_checkpoint(out / CHECKPOINT_FOLDER, Checkpoint(0, meta, weights, None, {}), keep=1)
    return out
