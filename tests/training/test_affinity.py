import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.labelling.attention.affinity import image_affinities, load_affinity
from models.labelling.attention.affinity_config import AffinityNetConfig
from models.labelling.attention.random_walk import random_walk
from storage.documents import validate
from storage.errors import InputError, LeaseHeldError
from storage.locks import hold_folder
from storage.metrics import read_metrics
from training.affinity import train_affinity
from training.affinity_config import AffinityConfig
from training.affinity_losses import affinity_loss, cell_labels
from training.affinity_views import SeededImage, seeded_view
from training.divergence import DivergedError

NETWORK = AffinityNetConfig(stride=4, widths=(16, 16, 16), embeddings=(16, 16, 16), radius=3)
CONFIG = AffinityConfig(network=NETWORK, crop=32, batch_size=4, epochs=2, device="cpu")


def disk_scene(number):
    """A disk of one colour on another, and the disk."""
    rng = np.random.default_rng(number)
    rows, columns = np.indices((32, 32)) / 32
    centre = rng.uniform(0.35, 0.65, 2)
    disk = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < rng.uniform(0.04, 0.09)
    colours = np.where(disk[..., None], *rng.uniform(0, 255, (2, 3)))
    noisy = colours + rng.normal(0, 8, colours.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), disk


class Disks:
    """Images with their whole labels; one of them may fail to be read."""

    def __init__(self, count, broken=None):
        self.count = count
        self.broken = broken
        self.read = 0

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        self.read += 1
        if self.broken is not None and self.read > self.broken:
            raise Stop
        image, disk = disk_scene(number)
        return SeededImage(image, disk.astype(np.uint16))


class Stop(Exception):  # noqa: N818 - as in the tests of the student's training
    """Ends a run in the middle."""


def train(folder, items=None, config=CONFIG, **settings):
    settings = {"classes": ["disk"], "identity": {"data": "disks"}, **settings}
    return train_affinity(Disks(10) if items is None else items, config, folder, **settings)


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_the_loss_is_the_mean_of_each_kind_of_pair():
    features = torch.tensor([[[[0.0, 0.0, 1.0, 3.0]]]])  # one feature, a row of 4 cells
    labels = torch.tensor([[[0, 0, 7, 7]]])
    apart = [np.exp(-1), np.exp(-1), np.exp(-3)]  # of (0, 2), (1, 2) and (1, 3)
    expected = {
        "background": -np.log(1 + 1e-5),
        "foreground": -np.log(np.exp(-2) + 1e-5),
        "different": np.mean([-np.log(1 + 1e-5 - each) for each in apart]),
    }
    found = affinity_loss(features, labels, 3).item()
    parts = expected["background"] / 4 + expected["foreground"] / 4 + expected["different"] / 2
    assert found == pytest.approx(parts, rel=1e-4)


def test_unsure_cells_and_kinds_that_do_not_occur_count_nothing():
    features = torch.tensor([[[[0.0, 0.5, 9.0]]]], requires_grad=True)
    labels = torch.tensor([[[0, 0, 65535]]])
    loss = affinity_loss(features, labels, 3)
    assert loss.item() == pytest.approx(0.5 / 4, rel=1e-3)
    loss.backward()
    assert features.grad[0, 0, 0].tolist() == pytest.approx([-0.25, 0.25, 0.0], abs=1e-3)
    none = affinity_loss(features, torch.full((1, 1, 3), 65535), 3)
    none.backward()
    assert none.item() == 0.0


def test_pairs_of_two_classes_are_different():
    features = torch.tensor([[[[0.0, 1.0]]]])
    found = affinity_loss(features, torch.tensor([[[1, 2]]]), 2).item()
    assert found == pytest.approx(-np.log(1 + 1e-5 - np.exp(-1)) / 2, rel=1e-4)


def test_a_single_cell_has_no_pairs():
    features = torch.zeros(1, 2, 1, 1, requires_grad=True)
    assert affinity_loss(features, torch.zeros(1, 1, 1, dtype=torch.int64), 5).item() == 0.0


def test_a_cell_has_the_label_of_most_of_its_sure_pixels():
    labels = np.array(
        [
            [0, 0, 5, 65535, 65535, 65535],
            [0, 5, 65535, 65535, 65535, 65535],
            [7, 7, 0, 5, 3, 5],
            [0, 0, 0, 5, 5, 5],
        ],
        np.uint16,
    )
    assert cell_labels(labels, 2).tolist() == [[0, 5, 65535], [0, 0, 5]]
    assert (cell_labels(np.full((4, 4), 65535, np.uint16), 2) == 65535).all()


@pytest.mark.parametrize("size", [(1, 1), (17, 333), (32, 32)])
def test_a_view_has_the_size_of_the_crop_and_keeps_image_and_labels_together(size):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, size).astype(np.uint16)
    item = SeededImage(np.repeat(labels[..., None] * 200, 3, axis=2).astype(np.uint8), labels)
    plain = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0, "flip": 0.5}
    config = CONFIG.model_copy(update=plain)
    for seed in range(4):
        view = seeded_view(item, config, np.random.default_rng(seed))
        assert view.labels.shape == (32, 32)
        assert view.image.shape == (32, 32, 3)
        inside = view.labels != 65535
        assert inside.sum() == min(32, size[0]) * min(32, size[1])
        np.testing.assert_array_equal(view.image[inside][:, 0], view.labels[inside] * 200)


def test_colours_change_and_labels_do_not():
    image, disk = disk_scene(0)
    item = SeededImage(image, disk.astype(np.uint16))
    config = CONFIG.model_copy(update={"flip": 0.0})
    views = [seeded_view(item, config, np.random.default_rng(seed)) for seed in (1, 2)]
    assert np.abs(views[0].image.astype(int) - views[1].image).mean() > 2
    np.testing.assert_array_equal(views[0].labels, views[1].labels)


def test_a_training_leaves_a_network_that_carries_maps_over_what_looks_alike(tmp_path):
    config = CONFIG.model_copy(update={"epochs": 8})
    record = train(tmp_path, Disks(60), config)
    losses = [row["loss"] for row in read_metrics(tmp_path)]
    assert len(losses) == 60 * 8 / 4
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:3])
    network, loaded = load_affinity(tmp_path, "cpu")
    assert loaded == record
    assert record.classes == ("disk",)
    before, after = [], []
    for number in range(1000, 1010):
        image, disk = disk_scene(number)
        shifted = np.roll(disk, 4, axis=0)
        walked = random_walk(
            image_affinities(network, image), shifted[None].astype(np.float32), 4, 3
        )
        mask = walked.argmax(axis=0) == 1
        before.append((shifted & disk).sum() / (shifted | disk).sum())
        after.append((mask & disk).sum() / (mask | disk).sum())
    assert np.mean(after) > np.mean(before) + 0.1


def test_a_stopped_training_ends_with_the_same_weights_and_losses(tmp_path):
    config = CONFIG.model_copy(update={"checkpoint_every": 2})
    whole = train(tmp_path / "whole", config=config)
    with pytest.raises(Stop):
        train(tmp_path / "stopped", Disks(10, broken=13), config)
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    resumed = train(tmp_path / "stopped", config=config)
    assert resumed == whole
    assert_equal(weights_of(tmp_path / "stopped"), weights_of(tmp_path / "whole"))
    rows = [read_metrics(tmp_path / name) for name in ("whole", "stopped")]
    assert [[r["step"], r["loss"]] for r in rows[0]] == [[r["step"], r["loss"]] for r in rows[1]]


PROGRAM = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from test_affinity import CONFIG, Disks, train
train(Path(sys.argv[1]), Disks(40), CONFIG.model_copy(update={"checkpoint_every": 3}))
"""


def start_program(folder):
    here = os.path.dirname(__file__)  # noqa: PTH120 - a text for the path of modules
    command = [sys.executable, "-c", PROGRAM, str(folder), here]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_a_killed_process_ends_with_the_same_weights(tmp_path):
    assert start_program(tmp_path / "whole").wait() == 0
    process = start_program(tmp_path / "killed")
    deadline = time.monotonic() + 120
    while len(read_metrics(tmp_path / "killed")) < 7 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "config.json").exists()
    assert start_program(tmp_path / "killed").wait() == 0
    assert_equal(weights_of(tmp_path / "killed"), weights_of(tmp_path / "whole"))
    assert len(read_metrics(tmp_path / "killed")) == 20


def test_a_finished_training_returns_at_once(tmp_path):
    record = train(tmp_path)
    assert train(tmp_path, Disks(10, broken=0)) == record


def test_what_was_trained_is_not_changed_by_where_it_was_trained(tmp_path):
    torch.manual_seed(5)
    train(tmp_path / "first")
    state = torch.get_rng_state()
    config = CONFIG.model_copy(update={"checkpoint_every": 1, "log_every": 1})
    train(tmp_path / "second", config=config)
    assert_equal(weights_of(tmp_path / "first"), weights_of(tmp_path / "second"))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["cat"]}, 'classes.0: "disk" -> "cat"'),
        ({"identity": {"data": "others"}}, 'items.data: "disks" -> "others"'),
        ({"config": CONFIG.model_copy(update={"seed": 1})}, "config.seed: 0 -> 1"),
        ({"items": Disks(11)}, "items.count: 10 -> 11"),
    ],
)
def test_another_training_in_the_same_folder_is_refused(tmp_path, change, message):
    train(tmp_path / "done")
    config = CONFIG.model_copy(update={"checkpoint_every": 1})
    with pytest.raises(Stop):
        train(tmp_path / "begun", Disks(10, broken=9), config)
    for name in ("done", "begun"):
        with pytest.raises(InputError, match=message):
            train(tmp_path / name, **change)


def test_a_damaged_network_is_refused_and_not_trained_over(tmp_path):
    train(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="bytes of the digest"):
        train(tmp_path)


def test_two_do_not_train_in_one_folder(tmp_path):
    with hold_folder(tmp_path), pytest.raises(LeaseHeldError):
        train(tmp_path)


def test_no_images_are_refused(tmp_path):
    with pytest.raises(InputError, match="no images with seeds"):
        train(tmp_path, Disks(0))


def test_a_rate_that_is_too_high_is_named(tmp_path):
    config = CONFIG.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(DivergedError, match="lower learning_rate"):
        train(tmp_path, config=config)
    assert not (tmp_path / "config.json").exists()


def test_images_without_sure_pixels_teach_nothing_and_break_nothing(tmp_path):
    class Unsure(Disks):
        def __getitem__(self, number):
            item = super().__getitem__(number)
            return SeededImage(item.image, np.full_like(item.labels, 65535))

    train(tmp_path, Unsure(4))
    assert json.loads((tmp_path / "config.json").read_bytes())["classes"] == ["disk"]


def test_a_crop_that_the_grid_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"crop is 30, expected a multiple of network\.stride"):
        validate(AffinityConfig, {"crop": 30, "network": {"stride": 4}}, "config")
