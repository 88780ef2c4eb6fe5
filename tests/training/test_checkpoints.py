import json

import pytest
import torch

from models.student.trained import list_checkpoints, load_student
from storage.errors import DataError, InputError
from training.checkpoints import Checkpoint, restore_checkpoint, save_checkpoint, set_later_aside


def checkpoint(step, **meta):
    weights = {"a.weight": torch.full((2, 3), float(step)), "b": torch.zeros(4)}
    average = {name: tensor / 2 for name, tensor in weights.items()}
    optimiser = {"state": {0: {"step": torch.tensor(float(step))}}, "param_groups": [{"lr": 0.1}]}
    return Checkpoint(step, {"config": {"seed": 1, **meta}}, weights, average, optimiser)


META = checkpoint(0).meta


def test_what_was_saved_is_read_back(tmp_path):
    save_checkpoint(tmp_path, checkpoint(500), keep=2)
    found = restore_checkpoint(tmp_path, META, None)
    assert found.step == 500
    assert torch.equal(found.weights["a.weight"], torch.full((2, 3), 500.0))
    assert torch.equal(found.average["a.weight"], torch.full((2, 3), 250.0))
    assert found.optimiser["param_groups"] == [{"lr": 0.1}]


def test_a_new_run_has_nothing_to_go_on_from(tmp_path):
    assert restore_checkpoint(tmp_path / "run", META, None) is None


def test_the_newest_are_kept(tmp_path):
    for step in (10, 20, 30, 40):
        save_checkpoint(tmp_path, checkpoint(step), keep=2)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step-00000030", "step-00000040"]


def test_an_unfinished_write_is_no_checkpoint_and_is_written_anew(tmp_path):
    save_checkpoint(tmp_path, checkpoint(10), keep=2)
    unfinished = tmp_path / ".step-00000020.tmp"
    unfinished.mkdir()
    (unfinished / "student.safetensors").write_bytes(b"half")
    assert restore_checkpoint(tmp_path, META, None).step == 10
    save_checkpoint(tmp_path, checkpoint(20), keep=2)
    assert restore_checkpoint(tmp_path, META, None).step == 20
    assert not unfinished.exists()


@pytest.mark.parametrize("name", ["student.safetensors", "optimiser.pt"])
@pytest.mark.parametrize("damage", ["cut", "changed", "removed"])
def test_damage_is_noticed_and_the_one_before_is_named(tmp_path, name, damage):
    for step in (10, 20):
        save_checkpoint(tmp_path, checkpoint(step), keep=2)
    file = tmp_path / "step-00000020" / name
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(data[:-5] if damage == "cut" else data)
    with pytest.raises(DataError, match=f"{name}.*set resume_from to .*step-00000010"):
        restore_checkpoint(tmp_path, META, None)


def test_the_chosen_checkpoint_is_taken_and_later_ones_are_moved_aside(tmp_path):
    for step in (10, 20):
        save_checkpoint(tmp_path, checkpoint(step), keep=2)
    assert restore_checkpoint(tmp_path, META, str(tmp_path / "step-00000010")).step == 10
    set_later_aside(tmp_path, 10)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step-00000010"]
    assert (tmp_path / "set-aside" / "000-step-00000020" / "checkpoint.json").exists()


def test_a_checkpoint_of_another_run_is_refused_in_words(tmp_path):
    save_checkpoint(tmp_path, checkpoint(10), keep=2)
    with pytest.raises(InputError, match=r"config\.seed: 1 -> 2"):
        restore_checkpoint(tmp_path, {"config": {"seed": 2}}, None)


def test_a_record_that_is_no_json_is_damage(tmp_path):
    path = save_checkpoint(tmp_path, checkpoint(10), keep=2)
    (path / "checkpoint.json").write_bytes(b"{")
    with pytest.raises(DataError, match="is not JSON"):
        restore_checkpoint(tmp_path, META, None)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a checkpoint"):
        load_student(tmp_path)


def test_the_record_names_step_and_fingerprint(tmp_path):
    path = save_checkpoint(tmp_path, checkpoint(10), keep=2)
    record = json.loads((path / "checkpoint.json").read_text())
    assert record["step"] == 10
    assert len(record["fingerprint"]) == 64
