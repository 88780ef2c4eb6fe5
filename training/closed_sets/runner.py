"""mmengine's runner, set up for one closed-set segmenter on one exported dataset.

The file `config.py` in its work folder is an ordinary config of mmsegmentation.
"""

import time
import uuid
from collections.abc import Iterator, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.closed_sets.networks import network_document
from models.closed_sets.openmmlab import (
    HOOKS,
    LOOPS,
    SAMPLERS,
    Hook,
    IterBasedTrainLoop,
    MmengineConfig,
    Runner,
)
from models.finiteness import find_not_finite
from storage.exports.folders import IMAGE_FOLDER, LABEL_FOLDER, SPLIT_FILE, ExportedSet
from training.closed_sets.config import ClosedSetConfig
from training.divergence import diverged, lower_settings, not_finite
from training.epochs import MixedEpochs
from training.metrics import MetricsLog
from training.shares import source_shares

_BACKBONES = {"deeplabv3": "backbone", "mask2former": "pixel_level_module.encoder"}


@SAMPLERS.register_module()
class EndlessSampler(torch.utils.data.Sampler[int]):
    """One shuffled pass over the data after another; it can begin anywhere.

    Args:
        dataset: What is drawn from.
        seed: Root of the order.
        first: Draws to leave out.
    """

    def __init__(self, dataset: Sized, seed: int, first: int = 0) -> None:
        self._count = len(dataset)
        self._seed = seed
        self.first = first

    def __len__(self) -> int:
        """Draws of one pass."""
        return self._count

    def __iter__(self) -> Iterator[int]:
        epoch, place = divmod(self.first, self._count)
        while True:
            order = np.random.default_rng((self._seed, epoch)).permutation(self._count)
            yield from order[place:].tolist()
            epoch, place = epoch + 1, 0


@SAMPLERS.register_module()
class MixedSampler(torch.utils.data.Sampler[int]):
    """Images of several datasets by their shares, without end; it can begin anywhere.

    Args:
        dataset: What is drawn from: the datasets, one after the other.
        sizes: Images of each.
        shares: How often each is drawn, see `training.shares`.
        seed: Root of the order.
        first: Draws to leave out.
    """

    def __init__(
        self,
        dataset: Sized,
        sizes: Sequence[int],
        shares: Sequence[int],
        seed: int,
        first: int = 0,
    ) -> None:
        self._count = len(dataset)
        sources = tuple((size,) for size in sizes)
        self._epochs = MixedEpochs(seed, sources, tuple(shares), None)
        self.first = first

    def __len__(self) -> int:
        """All images."""
        return self._count

    def __iter__(self) -> Iterator[int]:
        position = self.first
        while True:
            yield self._epochs.place(position)[1]
            position += 1


@LOOPS.register_module()
class ResumingLoop(IterBasedTrainLoop):
    """A loop that goes on with the next image; the original reads all earlier ones again."""

    def run(self) -> nn.Module:
        """Do the updates that are left."""
        loader = self.dataloader
        loader.sampler.first = self._iter * loader.batch_size
        batches = iter(loader)
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        while self._iter < self._max_iters:
            self.runner.model.train()
            self.run_iter(next(batches))
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model


@HOOKS.register_module()
class MetricsHook(Hook):
    """Writes the record of the run as the student's training does, in place of mmengine's.

    Args:
        out: Folder of the run.
        log_every: Updates between lines of the log.
        ways: What may be changed if the run diverges.
    """

    def __init__(self, out: str, log_every: int, ways: list[str]) -> None:
        self._out = Path(out)
        self._log_every = log_every
        self._ways = ways

    def before_train(self, runner: Any) -> None:
        """Open the record."""
        self._log = MetricsLog(
            self._out, first=runner.iter, steps=runner.max_iters, log_every=self._log_every
        )
        self._began = time.monotonic()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Write a line.

        Raises:
            DivergedError: If the loss is not a finite number; mmengine's checkpoint comes later.
        """
        del data_batch
        row = {name: float(value.detach()) for name, value in outputs.items()}
        rate = max(runner.optim_wrapper.get_lr()["lr"])
        self._refuse(runner, not_finite(row))
        now = time.monotonic()
        self._log.write({"step": batch_idx, **row, "lr": rate, "seconds": now - self._began})
        self._began = now

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Leave mmengine's record out: torch refuses its classes when the checkpoint is read.

        Raises:
            DivergedError: If the weights are not finite.
        """
        name = find_not_finite(checkpoint["state_dict"])
        self._refuse(runner, [f"the weight {name} is not finite"] if name else [])
        checkpoint["message_hub"].update(log_scalars={}, resumed_keys={})

    def after_train(self, runner: Any) -> None:
        """Close the record."""
        del runner
        self._log.__exit__(None, None, None)

    def _refuse(self, runner: Any, found: list[str]) -> None:
        if found:
            rate = max(runner.optim_wrapper.get_lr()["lr"])
            where = f"step {runner.iter + 1} of {runner.max_iters} (learning rate {rate:.4g})"
            then = f"train into another out folder, since {self._out} keeps its settings"
            raise diverged(where, found, self._ways, then)


def run_training(config: ClosedSetConfig, exported: Sequence[ExportedSet], work: Path) -> nn.Module:
    """Do the updates that are left.

    Args:
        config: The run.
        exported: What its data are, in the order of its exports.
        work: Folder of the runner.

    Returns:
        The trained network.

    Raises:
        DivergedError: If a loss or a weight is not a finite number.
    """
    runner = Runner.from_cfg(MmengineConfig(runner_document(config, exported, work)))
    runner.train()
    return runner.model


def runner_document(
    config: ClosedSetConfig, exported: Sequence[ExportedSet], work: Path
) -> dict[str, Any]:
    """Describe a run as a config of mmsegmentation.

    Args:
        config: The run.
        exported: What its data are, in the order of its exports.
        work: Folder of the runner.
    """
    network = network_document(config.network, len(exported[0].labels))
    # Images that end up smaller than a crop are padded to its size.
    network["data_preprocessor"]["size"] = (config.crop, config.crop)
    return {
        "default_scope": "mmseg",
        "experiment_name": uuid.uuid4().hex,
        "work_dir": str(work),
        "model": network,
        "train_dataloader": _loader(config, exported),
        "train_cfg": {"type": "ResumingLoop", "max_iters": config.steps},
        "optim_wrapper": _optimiser(config),
        "param_scheduler": [
            {
                "type": "PolyLR",
                "eta_min": 0.0,
                "power": config.power,
                "begin": 0,
                "end": config.steps,
                "by_epoch": False,
            }
        ],
        "default_hooks": {
            "timer": None,
            "logger": None,
            "sampler_seed": None,
            "checkpoint": {
                "type": "CheckpointHook",
                "by_epoch": False,
                "interval": config.checkpoint_every,
                "max_keep_ckpts": 2,
            },
        },
        "custom_hooks": [
            {
                "type": "MetricsHook",
                "out": config.out,
                "log_every": config.log_every,
                "ways": lower_settings("", config.learning_rate, config.clip_norm),
            }
        ],
        "randomness": {"seed": config.seed},
        "env_cfg": {"mp_cfg": {"mp_start_method": "fork", "opencv_num_threads": 0}},
        "log_level": "ERROR",
        "resume": True,
    }


def _loader(config: ClosedSetConfig, exported: Sequence[ExportedSet]) -> dict[str, Any]:
    sampler: dict[str, Any] = {"type": "EndlessSampler", "seed": config.seed}
    folders = [
        _folder(source.data, own, config)
        for source, own in zip(config.exports, exported, strict=True)
    ]
    dataset = folders[0]
    if len(folders) > 1:
        dataset = {"type": "ConcatDataset", "datasets": folders}
        sampler |= {
            "type": "MixedSampler",
            "sizes": [own.num_samples for own in exported],
            "shares": source_shares([source.weight for source in config.exports]),
        }
    return {
        "batch_size": config.batch_size,
        "num_workers": config.workers,
        "persistent_workers": config.workers > 0,
        "sampler": sampler,
        "dataset": dataset,
    }


def _folder(data: str, exported: ExportedSet, config: ClosedSetConfig) -> dict[str, Any]:
    """The images of an export."""
    return {
        "type": "BaseSegDataset",
        "data_root": data,
        "ann_file": SPLIT_FILE,
        "data_prefix": {"img_path": IMAGE_FOLDER, "seg_map_path": LABEL_FOLDER},
        "img_suffix": exported.image_suffix,
        "metainfo": {"classes": exported.labels},
        "ignore_index": exported.ignore,
        "pipeline": _pipeline(config),
    }


def _pipeline(config: ClosedSetConfig) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations"},
        {
            "type": "RandomResize",
            "scale": (config.long_side, config.short_side),
            "ratio_range": (config.min_scale, config.max_scale),
            "keep_ratio": True,
        },
        {
            "type": "RandomCrop",
            "crop_size": (config.crop, config.crop),
            "cat_max_ratio": config.cat_max_ratio,
        },
        {"type": "RandomFlip", "prob": config.flip},
        {"type": "PhotoMetricDistortion"},
        {"type": "PackSegInputs"},
    ]
    return [step for step in steps if config.photometric or step["type"] != "PhotoMetricDistortion"]


def _optimiser(config: ClosedSetConfig) -> dict[str, Any]:
    backbone = _BACKBONES[config.network.kind]
    clip = {"max_norm": config.clip_norm, "norm_type": 2}
    return {
        "type": "OptimWrapper",
        "optimizer": {
            "type": "AdamW",
            "lr": config.learning_rate,
            "weight_decay": config.weight_decay,
        },
        "clip_grad": None if config.clip_norm is None else clip,
        "paramwise_cfg": {"custom_keys": {backbone: {"lr_mult": config.backbone_rate}}},
    }
