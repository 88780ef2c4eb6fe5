import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.student.text_embeddings import load_embeddings
from models.student.trained import list_checkpoints, load_student
from models.student.zegclip import ZegClip
from storage.codecs import decode_image, decode_label_map
from storage.errors import DataError, InputError
from storage.metrics import read_metrics
from storage.shards import pack
from storage.vocabulary import load_vocabulary
from training.config import OptimiserConfig, TrainingConfig
from training.loop import StudentLearner, train_student
from training.processes import Processes


def weights(path):
    return {name: p.detach().clone() for name, p in load_student(path)[0].trainable_parameters()}


class Stop(Exception):  # noqa: N818 - stands for the user's Ctrl-C
    pass


def checkpoint_folder(config):
    return Path(config.out) / "checkpoints"


def stop_after(step):
    def on_step(row):
        if row["step"] == step:
            raise Stop

    return on_step


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_a_stopped_run_ends_with_the_same_weights_and_losses(settings, tmp_path):
    whole = train_student(TrainingConfig(**settings))
    stopped = TrainingConfig(**{**settings, "out": str(tmp_path / "stopped")})
    with pytest.raises(Stop):
        train_student(stopped, stop_after(2))
    resumed = train_student(stopped)
    assert_equal(weights(whole), weights(resumed))
    rows = [read_metrics(tmp_path / name) for name in ("run", "stopped")]
    terms = ("step", "loss", "mask", "dice", "counterfactual", "lr", "gradient")
    assert [[r[t] for t in terms] for r in rows[0]] == [[r[t] for t in terms] for r in rows[1]]
    assert [r["step"] for r in rows[0]] == list(range(6))


@pytest.mark.slow
def test_a_killed_process_ends_with_the_same_weights(settings, tmp_path):
    settings["optimiser"]["steps"] = 40
    whole = train_student(TrainingConfig(**settings))
    killed = {**settings, "out": str(tmp_path / "killed")}
    path = tmp_path / "run.json"
    path.write_text(json.dumps(killed))
    command = [sys.executable, "-m", "training", "--config", str(path)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while len(read_metrics(tmp_path / "killed")) < 7 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list_checkpoints(tmp_path / "killed" / "checkpoints")) >= 1
    assert_equal(weights(whole), weights(train_student(TrainingConfig(**killed))))


def test_a_finished_run_does_nothing_more(settings):
    config = TrainingConfig(**settings)
    first = train_student(config)
    stamp = first.stat().st_mtime_ns
    assert train_student(config, stop_after(0)) == first
    assert first.stat().st_mtime_ns == stamp


def test_a_checkpoint_does_not_say_how_the_optimiser_computes(settings):
    """One of a GPU, whose kernels are fused, goes on on a CPU as one of a CPU."""
    config = TrainingConfig(**settings)
    learner = StudentLearner(
        config, load_vocabulary("miniature"), Processes(0, 1, torch.device("cpu"))
    )
    [group] = learner.optimiser.param_groups
    assert group["fused"] is None
    state = learner.checkpoint(0, {})
    fused = [{**each, "fused": True, "lr": 0.5} for each in state.optimiser["param_groups"]]
    learner.restore(replace(state, optimiser={**state.optimiser, "param_groups": fused}))
    [group] = learner.optimiser.param_groups
    assert (group["fused"], group["lr"]) == (None, 0.5)


def test_micro_batches_give_the_update_of_the_whole_batch(settings, tmp_path):
    # Dropout differs between micro-batches of another size, so it is switched off.
    settings["student"] |= {"prompt_dropout": 0.0, "decoder_dropout": 0.0}
    settings["optimiser"] |= {"steps": 1}
    whole = weights(train_student(TrainingConfig(**settings)))
    settings["optimiser"] |= {"micro_batch_size": 1}
    parts = weights(train_student(TrainingConfig(**{**settings, "out": str(tmp_path / "parts")})))
    rows = [read_metrics(tmp_path / name)[0] for name in ("run", "parts")]
    for term in ("loss", "mask", "dice", "counterfactual", "gradient"):
        assert rows[0][term] == pytest.approx(rows[1][term], rel=1e-4)
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one_with_two_micro_batches(settings, tmp_path):
    settings["optimiser"] |= {"micro_batch_size": 2}
    one = weights(train_student(TrainingConfig(**settings)))
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**settings, "out": str(tmp_path / "two")}))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *launch, "-m", "training", "--config", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    assert ran.stdout.splitlines() == [str(tmp_path / "two" / "checkpoints" / "step-00000006")]
    two = weights(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-6)


def test_threads_change_nothing(settings, tmp_path):
    inline = weights(train_student(TrainingConfig(**settings)))
    settings |= {"threads": 3, "out": str(tmp_path / "threads")}
    assert_equal(inline, weights(train_student(TrainingConfig(**settings))))


def test_other_data_or_recipe_is_refused_in_words(settings):
    train_student(TrainingConfig(**settings))
    other = {**settings, "classes_per_image": 7}
    with pytest.raises(InputError, match=r"config\.classes_per_image: 5 -> 7"):
        train_student(TrainingConfig(**other))


def test_adam_differs_from_adamw_in_the_decay_of_the_weights_alone(settings, tmp_path):
    def trained(kind, decay):
        changes = {"kind": kind, "weight_decay": decay}
        out = str(tmp_path / f"{kind}{decay}")
        changed = {**settings, "optimiser": {**settings["optimiser"], **changes}, "out": out}
        return weights(train_student(TrainingConfig(**changed)))

    adam, adamw = trained("adam", 0.0), trained("adamw", 0.0)
    assert_equal(adam, adamw)
    decayed = [trained(kind, 0.1) for kind in ("adam", "adamw")]
    assert any(not torch.equal(decayed[0][name], decayed[1][name]) for name in adam)


def test_a_run_of_an_earlier_version_is_the_same_run(settings):
    identity = TrainingConfig(**settings).identity()
    assert "kind" not in identity["optimiser"]
    assert "compile" not in identity
    assert TrainingConfig(**settings, compile=False).identity() == identity
    other = {**settings["optimiser"], "kind": "adam"}
    assert TrainingConfig(**{**settings, "optimiser": other}).identity() != identity


def test_other_clip_weights_are_refused_when_a_run_goes_on_and_when_its_student_is_loaded(
    settings, clip_folder, tmp_path
):
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    settings["student"] |= {"clip": str(folder)}
    path = train_student(TrainingConfig(**settings))
    tensors = load_file(folder / "model.safetensors")
    tensors["vision_model.post_layernorm.bias"] += 0.1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r'clip: "sha256:\w+" -> "sha256:\w+"'):
        train_student(TrainingConfig(**settings))
    with pytest.raises(InputError, match=r"trained on CLIP weights sha256:\w+, but .* holds"):
        load_student(path)


@contextmanager
def files_of_at_most(size):
    """What a write meets on a full disk: this many bytes fit into a file, and no more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_and_costs_no_checkpoint(settings, tmp_path):
    whole = train_student(TrainingConfig(**settings))
    settings |= {"out": str(tmp_path / "full")}
    config = TrainingConfig(**settings)
    with pytest.raises(Stop):
        train_student(config, stop_after(2))
    (first,) = list_checkpoints(checkpoint_folder(config))
    size = (first / "student.safetensors").stat().st_size
    with files_of_at_most(size - 1), pytest.raises(InputError, match="free some space"):
        train_student(config)
    assert [p.name for p in checkpoint_folder(config).iterdir()] == [first.name]
    assert_equal(weights(whole), weights(train_student(config)))


def test_a_damaged_checkpoint_is_used_no_more_and_the_one_before_only_when_asked(settings):
    config = TrainingConfig(**{**settings, "keep_checkpoints": 3})
    expected = weights(train_student(config))
    _, second, last = list_checkpoints(checkpoint_folder(config))
    file = last / "student.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DataError, match=f"set resume_from to {second}"):
        train_student(config)
    with pytest.raises(DataError, match="damaged"):
        load_student(last)
    assert second.exists()
    chosen = TrainingConfig(**{**settings, "keep_checkpoints": 3, "resume_from": str(second)})
    assert_equal(expected, weights(train_student(chosen)))
    assert [p.name for p in (checkpoint_folder(config) / "set-aside").iterdir()] == [
        "000-" + last.name
    ]


def test_only_trained_tensors_are_saved(settings):
    path = train_student(TrainingConfig(**settings))
    student, meta = load_student(path)
    assert not any(name.startswith("vision.") for name in weights(path))
    assert meta["step"] == 6
    assert meta["config"]["student"]["num_prompt_tokens"] == 2
    assert not student.training


def test_the_running_mean_is_what_a_checkpoint_loads_and_outlives_a_stop(settings, tmp_path):
    settings |= {"checkpoint_every": 1, "keep_checkpoints": 9}
    settings["optimiser"] |= {"average": 0.75, "steps": 4}
    config = TrainingConfig(**settings)
    whole = train_student(config)
    stored = [
        load_file(path / "student.safetensors")
        for path in list_checkpoints(checkpoint_folder(config))
    ]
    found = weights(whole)
    for name in found:
        mean = torch.lerp(stored[0][f"average.{name}"], stored[1][name], 0.25)
        for later in stored[2:]:
            mean = torch.lerp(mean, later[name], 0.25)
        torch.testing.assert_close(found[name], mean, rtol=1e-6, atol=1e-7)
        assert not torch.equal(found[name], stored[-1][name])
    stopped = TrainingConfig(**{**settings, "out": str(tmp_path / "stopped")})
    with pytest.raises(Stop):
        train_student(stopped, stop_after(1))
    assert_equal(found, weights(train_student(stopped)))


def test_bfloat16_computes_near_float32_and_keeps_float32_weights(settings, tmp_path):
    train_student(TrainingConfig(**settings))
    settings |= {"precision": "bfloat16", "out": str(tmp_path / "short")}
    path = train_student(TrainingConfig(**settings))
    assert all(t.dtype == torch.float32 for t in load_file(path / "student.safetensors").values())
    exact, short = (read_metrics(tmp_path / name) for name in ("run", "short"))
    assert [row["loss"] for row in exact] != [row["loss"] for row in short]
    for term in ("mask", "dice", "counterfactual"):
        assert short[0][term] == pytest.approx(exact[0][term], rel=0.02)
    settings |= {"out": str(tmp_path / "again")}
    with pytest.raises(Stop):
        train_student(TrainingConfig(**settings), stop_after(3))
    assert_equal(weights(path), weights(train_student(TrainingConfig(**settings))))


def test_the_number_of_trained_parameters_is_logged_at_the_start(settings, caplog):
    caplog.set_level("INFO", logger="training")
    path = train_student(TrainingConfig(**settings))
    count = sum(tensor.numel() for tensor in weights(path).values())
    assert caplog.messages[0].startswith(f"{count:,} parameters learn, on cpu")


def test_without_its_weight_the_counterfactual_is_not_looked_at(settings):
    settings["losses"] = {"counterfactual_weight": 0.0}
    train_student(TrainingConfig(**settings))
    rows = read_metrics(checkpoint_folder(TrainingConfig(**settings)).parent)
    assert "counterfactual" not in rows[0]


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="expected a multiple of micro_batch_size 3"):
        TrainingConfig(
            dataset="d",
            out="o",
            vocabulary="v",
            student={"clip": "c"},
            optimiser={"batch_size": 4, "micro_batch_size": 3},
        )


def test_the_learning_rate_rises_and_falls_as_released():
    config = OptimiserConfig()
    assert config.rate(0) == pytest.approx(2e-4 * 1e-6)
    assert config.rate(1_500) == pytest.approx((2e-4 - 1e-6) * (1 - 0.075) ** 0.9 + 1e-6)
    assert config.rate(750) == pytest.approx(
        ((2e-4 - 1e-6) * (1 - 0.0375) ** 0.9 + 1e-6) * (1 - 0.5 * (1 - 1e-6))
    )


@pytest.mark.slow
def test_eight_scenes_are_learnt_by_heart(settings, draw, tmp_path):
    """The masks of the scenes themselves get right, which no untrained student comes near."""
    folder = tmp_path / "eight"
    folder.mkdir()
    drawn = [draw(100 + i) for i in range(8)]
    (folder / "train-0.tar").write_bytes(pack(drawn))
    recipe = {"steps": 250, "batch_size": 8, "warmup_steps": 10, "learning_rate": 3e-3}
    still = {"min_scale": 1.0, "max_scale": 1.0, "flip": 0.0}
    colours = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
    settings |= {"dataset": str(folder), "optimiser": recipe, "augmentation": still | colours}
    settings |= {"checkpoint_every": 250, "classes_per_image": 14}
    settings["student"] |= {"clip": "weights:clip", "image_size": 64}
    settings["student"] |= {"decoder_init": "similarity"}
    config = TrainingConfig(**settings)
    path = train_student(config)
    rows = read_metrics(Path(config.out))
    first, last = (sum(r["mask"] for r in part) / 10 for part in (rows[:10], rows[-10:]))
    assert last < 0.5 * first
    untrained = ZegClip.from_config(config.student).eval()
    assert mean_overlap(load_student(path)[0], config, drawn) > 0.6
    assert mean_overlap(untrained, config, drawn) < 0.3


def mean_overlap(student, config, drawn):
    """Mean IoU of the own class at a sigmoid of 1/2."""
    phrases = [record.embedding_phrases for record in load_vocabulary("miniature")]
    text = load_embeddings(config.student.clip, None, phrases, config.templates)
    overlaps = []
    for sample in drawn:
        pixels = torch.from_numpy(decode_image(sample.image_bytes)).permute(2, 0, 1)[None]
        with torch.no_grad():
            logits = student(student.normalise(pixels), text)[0, sample.class_ids[0]]
        truth = torch.from_numpy(decode_label_map(sample.mask_bytes) > 0)
        found = logits > 0
        overlaps.append(float((found & truth).sum() / (found | truth).sum()))
    return sum(overlaps) / len(overlaps)
