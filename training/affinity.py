"""The training of affinities from seeds, resumed exactly where it stopped.

    folder/model.safetensors, config.json   the network, see `models.labelling.attention.affinity`
    folder/checkpoints                      where a training goes on that was stopped
    folder/metrics.jsonl                    one line an update

Every random draw is derived from the seed and the position, so there is no generator to save.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.devices import pick_device
from models.finiteness import find_not_finite
from models.folders import NETWORK_CONFIG
from models.labelling.attention.affinity import (
    AffinityNet,
    AffinityRecord,
    as_network_input,
    load_affinity,
    save_affinity,
)
from models.threads import in_threads
from storage.errors import InputError
from storage.identity import derive_seed, refuse_drift
from storage.locks import hold_folder
from training.affinity_config import AffinityConfig
from training.affinity_losses import affinity_loss, cell_labels
from training.affinity_views import SeededImage, SeededImages, seeded_view
from training.checkpoints import Checkpoint, restore_checkpoint, save_checkpoint
from training.disk import explain_no_room
from training.divergence import diverged, lower_settings, not_finite
from training.epochs import Epochs
from training.metrics import MetricsLog

_log = logging.getLogger(__name__)

_CHECKPOINTS = "checkpoints"


def train_affinity(
    items: SeededImages,
    config: AffinityConfig,
    folder: Path,
    *,
    classes: Sequence[str],
    identity: Mapping[str, Any],
) -> AffinityRecord:
    """Train a network of affinities, or go on with the training that the folder holds.

    A finished training returns at once. One that was killed goes on from its newest checkpoint and
    ends with the same weights, on the same machine.

    Args:
        items: Images with their seeds.
        config: Network and recipe.
        folder: Of the training; the network is in it when it is over.
        classes: Names of the classes that the seeds are of.
        identity: What the images and seeds depend on, JSON types; another one is another training.

    Returns:
        What the trained network is.

    Raises:
        DataError: If the newest checkpoint is damaged.
        DivergedError: If the loss or a weight is not a finite number.
        InputError: If there are no images, the folder belongs to another training, the trained
            network is damaged, or the disk is full.
        LeaseHeldError: If somebody else trains in the folder.
    """
    count = len(items)
    if not count:
        message = "there are no images with seeds, expected at least one: take more samples"
        raise InputError(message)
    meta = {"config": config.identity(), "classes": list(classes), "items": dict(identity)}
    meta["items"]["count"] = count
    with explain_no_room(folder), hold_folder(folder):
        if (folder / NETWORK_CONFIG).is_file():
            _, record = load_affinity(folder, "cpu")
            _refuse_other(folder, record.trained, meta)
            return record
        learner = _Learner(config, count)
        start = restore_checkpoint(folder / _CHECKPOINTS, meta, None)
        first = 0
        if start is not None:
            learner.restore(start)
            first = start.step
            _log.info("going on from step %d of %d", first, learner.steps)
        _run(learner, items, folder, meta, first)
        return save_affinity(folder, learner.network, tuple(classes), meta)


def _refuse_other(folder: Path, trained: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    refuse_drift(
        f"{folder} holds the network of another training",
        trained,
        meta,
        way_out="Train into another folder, or take the old values back",
    )


class _Learner:
    """The network with all that an update needs.

    Args:
        config: Network and recipe.
        count: Images.
    """

    def __init__(self, config: AffinityConfig, count: int) -> None:
        self.config = config
        self.steps = math.ceil(count * config.epochs / config.batch_size)
        self._epochs = Epochs(derive_seed("affinity", config.seed), (count,), None)
        self._device = pick_device(config.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("affinity", config.seed))
            self.network = AffinityNet(config.network)
        self.network.to(self._device).train()
        weights = [each for each in self.network.parameters() if each.ndim > 1]
        others = [each for each in self.network.parameters() if each.ndim <= 1]
        self._optimiser = torch.optim.SGD(
            [
                {"params": weights, "weight_decay": config.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            momentum=config.momentum,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up the state of a checkpoint."""
        self.network.load_state_dict(dict(checkpoint.weights))
        self._optimiser.load_state_dict(dict(checkpoint.optimiser))

    def checkpoint(self, step: int, meta: Mapping[str, Any]) -> Checkpoint:
        """The state after so many updates."""
        weights = self.network.state_dict()
        return Checkpoint(step, meta, weights, None, self._optimiser.state_dict())

    def rate(self, step: int) -> float:
        """The learning rate of weights at an update."""
        return self.config.learning_rate * (1 - step / self.steps) ** self.config.power

    def update(self, items: SeededImages, step: int) -> float:
        """Do one update; returns its loss."""
        size = self.config.batch_size

        def read(position: int) -> SeededImage:
            _, number = self._epochs.place(position)
            rng = np.random.default_rng(derive_seed("view", self.config.seed, position))
            return seeded_view(items[number], self.config, rng)

        views = in_threads(read, range(step * size, (step + 1) * size))
        stride = self.config.network.stride
        labels = np.stack([cell_labels(view.labels, stride) for view in views])
        images = as_network_input(np.stack([view.image for view in views]))
        for group, factor in zip(self._optimiser.param_groups, (1.0, 2.0), strict=True):
            group["lr"] = factor * self.rate(step)
        features = self.network(images.to(self._device))
        marks = torch.from_numpy(labels.astype(np.int64)).to(self._device)
        loss = affinity_loss(features, marks, self.config.network.radius)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._optimiser.step()
        return float(loss.detach())

    def refuse(self, step: int, found: list[str]) -> None:
        """End a training whose numbers are no longer finite.

        Raises:
            DivergedError: If anything was found.
        """
        if found:
            where = f"step {step} of {self.steps} with the learning rate {self.rate(step):g}"
            ways = lower_settings("", self.config.learning_rate, None)[:1]
            raise diverged(where, found, ways, "then train into another folder")


def _run(
    learner: _Learner, items: SeededImages, folder: Path, meta: Mapping[str, Any], first: int
) -> None:
    """Do the updates that are left."""
    config = learner.config
    with MetricsLog(
        folder, first=first, steps=learner.steps, log_every=config.log_every
    ) as metrics:
        for step in range(first, learner.steps):
            began = time.monotonic()
            loss = learner.update(items, step)
            learner.refuse(step, not_finite({"loss": loss}))
            seconds = time.monotonic() - began
            metrics.write(
                {"step": step, "loss": loss, "lr": learner.rate(step), "seconds": seconds}
            )
            done = step + 1
            if done % config.checkpoint_every == 0 or done == learner.steps:
                wrong = find_not_finite(learner.network.state_dict())
                learner.refuse(step, [] if wrong is None else [f"the weight {wrong} is not finite"])
                save_checkpoint(folder / _CHECKPOINTS, learner.checkpoint(done, meta), keep=1)
