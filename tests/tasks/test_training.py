import pytest
import torch

from storage.errors import DataError, IncompleteError, InputError
from storage.store import Store
from tasks.training import find_trained_student, require_shards, write_document
from training.checkpoints import Checkpoint, save_checkpoint
from training.config import TrainingConfig


def test_training_waits_for_enough_good_shards(tmp_path):
    Store.create(tmp_path / "d", {"min_yield": 0.5})
    with pytest.raises(IncompleteError, match=r"has 0 good shards .* 3 are wanted"):
        require_shards(str(tmp_path / "d"), 3)


def test_training_on_no_dataset_is_refused(tmp_path):
    with pytest.raises(InputError, match="neither a dataset nor a folder with tars"):
        require_shards(str(tmp_path), 1)


def test_a_damaged_last_checkpoint_is_said_unless_another_one_is_chosen(tmp_path):
    (tmp_path / "train-0.tar").write_bytes(b"")
    fields = {
        "dataset": str(tmp_path),
        "out": str(tmp_path / "run"),
        "vocabulary": "miniature",
        "student": {"clip": "weights:clip"},
    }
    config = TrainingConfig(**fields)
    first, last = (
        save_checkpoint(
            tmp_path / "run" / "checkpoints",
            Checkpoint(step, {}, {"a": torch.zeros(1)}, None, {}),
            keep=2,
        )
        for step in (10, 20)
    )
    assert find_trained_student(config) is None
    (last / "checkpoint.json").write_bytes(b"{")
    with pytest.raises(DataError, match=f"to go on, set resume_from to {first}"):
        find_trained_student(config)
    assert find_trained_student(TrainingConfig(**fields, resume_from=str(first))) is None


def test_two_documents_of_one_folder_do_not_overwrite_each_other(tmp_path):
    paths = [write_document(text, tmp_path, "train") for text in ("{}", "[]", "{}")]
    assert paths[0] == paths[2] != paths[1]
    assert [path.read_text() for path in paths] == ["{}", "[]", "{}"]
