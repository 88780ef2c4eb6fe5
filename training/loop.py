"""The training loop: from committed shards to a checkpoint, resumed exactly where it stopped."""

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.finiteness import find_not_finite
from models.student.text_embeddings import load_embeddings
from models.student.trained import list_checkpoints, load_weights
from models.student.zegclip import ZegClip
from models.threads import usable_cores
from models.weights import weights_identity
from storage.class_groups import left_out_ids
from storage.errors import InputError
from storage.identity import derive_seed, digest
from storage.locks import hold_folder
from storage.paths import local_path
from storage.vocabulary import Vocabulary, load_vocabulary
from training.batch_room import Batch
from training.checkpoints import (
    Checkpoint,
    read_checkpoint_record,
    restore_checkpoint,
    save_checkpoint,
    set_later_aside,
)
from training.config import ARITHMETIC, OptimiserConfig, TrainingConfig
from training.data import Batches, BatchPlan, SampleFiles, find_sources
from training.disk import explain_no_room
from training.divergence import diverged, lower_settings, not_finite
from training.losses import counterfactual_loss, mask_losses, presence, weighted_sum
from training.metrics import MetricsLog
from training.processes import Processes, join_processes, processes_here
from training.self_training import own_labels
from training.shard_cache import ShardCache, ShardFile
from training.shares import source_shares
from training.tracking import Tracker, require_wandb

_log = logging.getLogger(__name__)

CHECKPOINT_FOLDER = "checkpoints"

StepMetrics = dict[str, float]


def train_student(
    config: TrainingConfig, on_step: Callable[[StepMetrics], None] | None = None
) -> Path:
    """Train a student, or go on with the training that `out` holds.

    A finished run returns at once. Started by torchrun, all processes share the batch.

    Args:
        config: Data, student, recipe and machine.
        on_step: Called in the first process after every update with the row that was logged.

    Returns:
        Folder of the newest checkpoint.

    Raises:
        DataError: If shards or the newest checkpoint are damaged.
        DivergedError: If a loss, a gradient or a weight is not a finite number; no checkpoint of
            such a state is written.
        InputError: If data, weights or vocabulary are missing, the batch cannot be shared among
            the processes, `out` belongs to another run, the disk is full, or Weights & Biases is
            wanted and not to be had.
        LeaseHeldError: If somebody else trains in `out`.
        TransientError: If an object store does not answer.
    """
    if config.wandb is not None:
        require_wandb()
    out = local_path(config.out, "out")
    vocabulary = load_vocabulary(config.vocabulary)
    left_out = left_out_ids(vocabulary, config.zero_shot.left_out)
    sources = find_sources(config)
    meta = student_run_identity(config, vocabulary, sources)
    with (
        explain_no_room(out),
        join_processes(config.device) as processes,
        hold_folder(out) if processes.is_first else nullcontext(),
    ):
        share = _Share.of(config.optimiser, processes)
        finished = find_finished(config, meta)
        if finished is not None:
            processes.wait()
            return finished
        _refuse_earlier_views(config, meta)
        start = restore_checkpoint(out / CHECKPOINT_FOLDER, meta, config.resume_from)
        first = start.step if start else 0
        if first < config.optimiser.steps:
            learner = StudentLearner(config, vocabulary, processes)
            if start is not None:
                learner.restore(start)
                if processes.is_first:
                    set_later_aside(out / CHECKPOINT_FOLDER, first)
                _log.info("going on from step %d of %d", first, config.optimiser.steps)
            with _shard_cache(config, sources) as cache:
                parts = _parts(config, vocabulary, left_out, sources, cache)
                ahead = _stream(parts, share, first, view_threads(config), processes.device)
                _run(learner, ahead, share, out, meta, first, on_step)
        processes.wait()
    return list_checkpoints(out / CHECKPOINT_FOLDER)[-1]


def student_run_identity(
    config: TrainingConfig, vocabulary: Vocabulary, sources: Sequence[Sequence[ShardFile]]
) -> dict[str, Any]:
    """Say what the weights depend on; its digest is the fingerprint of the run's checkpoints.

    Args:
        config: The run.
        vocabulary: Its vocabulary.
        sources: The tars of each source.

    Raises:
        InputError: If CLIP's weights are missing, or names that are left out are unknown.
    """
    shards = [shard for own in sources for shard in own]
    found = {
        "config": config.identity(),
        "vocabulary": {"name": vocabulary.name, "digest": vocabulary.digest},
        "dataset": {
            "shards": len(shards),
            "digest": digest([shard.fingerprint for shard in shards]),
        },
        "clip": weights_identity(config.student.clip, config.student.revision),
    }
    if left_out := left_out_ids(vocabulary, config.zero_shot.left_out):
        found["left_out"] = [vocabulary[class_id].name for class_id in left_out]
    if len(sources) > 1:
        found["dataset"]["shards"] = [len(own) for own in sources]
    return found


def find_finished(config: TrainingConfig, meta: Mapping[str, Any]) -> Path | None:
    """The last checkpoint of a run that is over, if it was made of the same data and settings.

    A run that is to go on from a chosen checkpoint is not over. One that ended when Pillow computed
    the views is.

    Args:
        config: The run.
        meta: Its `student_run_identity`.

    Raises:
        DataError: If that checkpoint is damaged.
    """
    checkpoints = list_checkpoints(local_path(config.out) / CHECKPOINT_FOLDER)
    if not checkpoints or config.resume_from is not None:
        return None
    record = read_checkpoint_record(checkpoints[-1])
    known = {digest(meta), digest(_with_earlier_views(meta))}
    is_over = record["step"] >= config.optimiser.steps and record["fingerprint"] in known
    return checkpoints[-1] if is_over else None


def _with_earlier_views(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of the same run when Pillow computed its views."""
    views = meta["config"]["augmentation"]
    earlier = {name: value for name, value in views.items() if name not in ARITHMETIC}
    return {**meta, "config": {**meta["config"], "augmentation": earlier}}


def _refuse_earlier_views(config: TrainingConfig, meta: Mapping[str, Any]) -> None:
    """Refuse to go on with other views than a run has begun with.

    Raises:
        DataError: If the checkpoint is damaged.
        InputError: If its views were computed by Pillow.
    """
    present = list_checkpoints(local_path(config.out) / CHECKPOINT_FOLDER)[-1:]
    chosen = present if config.resume_from is None else [local_path(config.resume_from)]
    for path in chosen:
        if read_checkpoint_record(path)["fingerprint"] == digest(_with_earlier_views(meta)):
            message = (
                f"checkpoint {path} is of an earlier version, whose views were computed by Pillow: "
                "OpenCV computes them now, and one run would have both; train into another out "
                "folder, or end the run with the version that began it"
            )
            raise InputError(message)


@dataclass(frozen=True)
class _Share:
    """The part of every batch that this process computes, in micro-batches.

    Micro-batches are numbered over all processes, so that their contents and their randomness do
    not depend on who computes them.

    Attributes:
        size: Pairs a micro-batch.
        own: Numbers of this process's micro-batches.
        count: Micro-batches of a batch.
    """

    size: int
    own: range
    count: int

    @classmethod
    def of(cls, config: OptimiserConfig, processes: Processes) -> "_Share":
        size = config.micro_batch_size or max(1, config.batch_size // processes.count)
        if config.batch_size % (size * processes.count):
            message = (
                f"a batch of {config.batch_size} cannot be shared by {processes.count} processes "
                f"in micro-batches of {size}: change batch_size or micro_batch_size"
            )
            raise InputError(message)
        each = config.batch_size // (size * processes.count)
        first = processes.rank * each
        return cls(size, range(first, first + each), each * processes.count)

    def positions(self, first: int, steps: int) -> Iterator[list[int]]:
        """First positions of this process's micro-batches of every step from the first on."""
        for step in range(first, steps):
            yield [(step * self.count + number) * self.size for number in self.own]


_OPTIMISERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


class StudentLearner:
    """The student with all that an update needs.

    Args:
        config: Data, student, recipe and machine.
        vocabulary: Classes that images are trained against.
        processes: This process among its equals.

    Raises:
        InputError: If CLIP's weights are missing or its text tower does not fit the student.
    """

    def __init__(
        self, config: TrainingConfig, vocabulary: Vocabulary, processes: Processes
    ) -> None:
        torch.manual_seed(derive_seed("student", config.seed))
        self.config = config
        self.processes = processes
        self.student = ZegClip.from_config(config.student).to(processes.device).train()
        if config.compile and processes.device.type == "cuda":
            self.student.compile_layers()
        self.parameters = dict(self.student.trainable_parameters())
        self.average = self._copied() if config.optimiser.average is not None else None
        # One kernel instead of many on a GPU; None is torch's own choice.
        self._fused = True if processes.device.type == "cuda" else None
        self.optimiser = _OPTIMISERS[config.optimiser.kind](
            self.parameters.values(),
            lr=config.optimiser.learning_rate,
            weight_decay=config.optimiser.weight_decay,
            fused=self._fused,
        )
        self.text = load_embeddings(
            config.student.clip,
            config.student.revision,
            [record.embedding_phrases for record in vocabulary],
            config.templates,
            folder=local_path(config.out) / "text",
        ).to(processes.device)
        left_out = left_out_ids(vocabulary, config.zero_shot.left_out)
        self.left_out = torch.tensor(left_out, dtype=torch.long)
        bfloat16 = config.precision == "bfloat16" or (
            config.precision == "auto" and processes.device.type == "cuda"
        )
        self.dtype = torch.bfloat16 if bfloat16 else torch.float32
        count = sum(p.numel() for p in self.parameters.values())
        _log.info("%s parameters learn, on %s in %s", f"{count:,}", processes.device, self.dtype)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up the state of a checkpoint."""
        load_weights(self.student, checkpoint.weights)
        # A checkpoint may be of another device, and must not say how this one computes.
        groups = [group | {"fused": self._fused} for group in checkpoint.optimiser["param_groups"]]
        self.optimiser.load_state_dict({**checkpoint.optimiser, "param_groups": groups})
        if self.average is not None and checkpoint.average is not None:
            for name, tensor in checkpoint.average.items():
                self.average[name].copy_(tensor)

    def checkpoint(self, step: int, meta: dict[str, Any]) -> Checkpoint:
        """The state after `step` updates."""
        return Checkpoint(step, meta, self.parameters, self.average, self.optimiser.state_dict())

    def update(self, step: int, batches: Sequence[Batch], share: _Share) -> StepMetrics:
        """Do one update of the weights.

        Args:
            step: Number of the update, from 0.
            batches: This process's micro-batches.
            share: Which ones these are.

        Returns:
            `step`, `loss` and its terms without weights (means over the whole batch), `lr` and
            `gradient` (norm before clipping).

        Raises:
            DivergedError: If one of them is not a finite number, in which case the weights stay
                what they were, or if the weights that a checkpoint would get are not finite.
        """
        rate = self.config.optimiser.rate(step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        if step >= self.config.names_known_from:
            batches = [self._named(batch) for batch in batches]
        num_present = self._mean_present(batches, share.count)
        sums: dict[str, Tensor] = {}
        for number, batch in zip(share.own, batches, strict=True):
            torch.manual_seed(derive_seed("update", self.config.seed, step, number))
            terms = self._losses(batch, num_present)
            loss = weighted_sum(terms, self.config.losses)
            (loss / len(batches)).backward()
            for name, value in {"loss": loss, **terms}.items():
                sums[name] = sums.get(name, torch.zeros_like(value.detach())) + value.detach()
        self.processes.average_gradients(self.parameters.values())
        norm = nn.utils.clip_grad_norm_(
            self.parameters.values(), self.config.optimiser.clip_norm or float("inf")
        )
        totals = self.processes.total(torch.stack(list(sums.values()))) / share.count
        # The only wait for the device in an update; every process has the same numbers here.
        *means, gradient = torch.cat([totals, norm[None]]).tolist()
        row = {"step": step, **dict(zip(sums, means, strict=True)), "lr": rate}
        row["gradient"] = gradient
        self._refuse(step, not_finite(row))
        self.optimiser.step()
        self._follow()
        if self.is_kept(step + 1):
            self._refuse_weights(step)
        return row

    def is_kept(self, done: int) -> bool:
        """Whether a checkpoint is written after this many updates."""
        return done % self.config.checkpoint_every == 0 or done == self.config.optimiser.steps

    def _refuse(self, step: int, found: list[str]) -> None:
        """Stop a run of which some numbers are not finite, in all processes."""
        if not found:
            return
        config = self.config.optimiser
        where = f"step {step + 1} of {config.steps} (learning rate {config.rate(step):.4g})"
        ways = lower_settings("optimiser.", config.learning_rate, config.clip_norm)
        if self.dtype != torch.float32:
            ways.append("set precision to float32")
        then = "start again; there is no checkpoint yet"
        out = local_path(self.config.out)
        for newest in list_checkpoints(out / CHECKPOINT_FOLDER)[-1:]:
            then = (
                f"train into another out folder, since {out} keeps its settings; its last good "
                f"checkpoint is {newest}"
            )
        raise diverged(where, found, ways, then)

    def _refuse_weights(self, step: int) -> None:
        averages = {f"the mean of {name}": mean for name, mean in (self.average or {}).items()}
        name = find_not_finite(self.parameters | averages)
        self._refuse(step, [f"the weight {name} is not finite"] if name else [])

    def _losses(self, batch: Batch, num_present: Tensor) -> dict[str, Tensor]:
        """Terms of one micro-batch, without weights."""
        device, config = self.processes.device, self.config.losses
        image = batch.image.to(device, non_blocking=True)
        text = self.text[batch.class_ids.to(device)]
        other = None
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            image = self.student.normalise(image)
            if config.counterfactual_weight > 0 and len(batch.twins):
                twin = batch.counterfactual.to(device, non_blocking=True)
                patches, cls, other = self.student.encode_pair(image, self.student.normalise(twin))
            else:
                patches, cls = self.student.encode(image)
            logits = self.student.scores(patches, cls, text)
        targets = batch.targets.to(device, non_blocking=True)
        active = batch.active.to(device, non_blocking=True)
        terms = mask_losses(
            logits, targets, config, active=active, present=batch.present, num_present=num_present
        )
        if other is not None:
            own = cls if len(other) == len(cls) else cls[batch.twins.to(device)]
            terms["counterfactual"] = counterfactual_loss(own, other, len(cls))
        elif config.counterfactual_weight > 0:
            # Other micro-batches and processes may have pairs: all add up the same terms.
            terms["counterfactual"] = terms["mask"].new_zeros(())
        return terms

    @torch.no_grad()
    def _named(self, batch: Batch) -> Batch:
        """A batch of which the student itself has named the background."""
        device = self.processes.device
        text = self.text[batch.class_ids.to(device)]
        self.student.eval()  # a teacher without dropout
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            patches, cls = self.student.encode(self.student.normalise(batch.image.to(device)))
            logits = self.student.scores(patches, cls, text)
        self.student.train()
        unseen = torch.isin(batch.class_ids, self.left_out)
        least = self.config.zero_shot.least_score
        targets = own_labels(logits, batch.targets.to(device), unseen, least)
        return replace(batch, targets=targets, present=presence(targets, logits.shape[1]).cpu())

    def _mean_present(self, batches: Sequence[Batch], count: int) -> Tensor:
        """Present classes a micro-batch, averaged over the whole batch: the released divisor."""
        own = float(sum(batch.num_present for batch in batches))
        return self.processes.total(torch.tensor(own, device=self.processes.device)) / count

    def _copied(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def _follow(self) -> None:
        decay = self.config.optimiser.average
        if self.average is not None and decay is not None:
            for name, parameter in self.parameters.items():
                self.average[name].lerp_(parameter, 1.0 - decay)


@dataclass(frozen=True)
class _Part:
    """Some updates of a run, and what their batches are made of."""

    steps: range
    open: Callable[[], Batches]


def _parts(
    config: TrainingConfig,
    vocabulary: Vocabulary,
    left_out: tuple[int, ...],
    sources: Sequence[Sequence[ShardFile]],
    cache: ShardCache,
) -> list[_Part]:
    """The parts of a run: one, or two where left-out names are known in the second."""

    def opened(*, names_known: bool) -> Batches:
        samples = SampleFiles(
            [shard for shards in sources for shard in shards],
            vocabulary,
            cache_bytes=config.cache_bytes,
            shard_cache=cache,
            left_out=() if names_known else left_out,
        )
        plan = replace(_batch_plan(config), left_out=left_out, names_known=names_known)
        return Batches(samples, plan, [len(each) for each in sources])

    turn, steps = config.names_known_from, config.optimiser.steps
    return [
        _Part(range(turn), partial(opened, names_known=False)),
        _Part(range(turn, steps), partial(opened, names_known=True)),
    ]


def view_threads(config: TrainingConfig) -> int:
    """Threads that make views in this process."""
    if config.threads is not None:
        return config.threads
    return max(1, usable_cores() // processes_here())


def _stream(
    parts: Sequence[_Part], share: _Share, first: int, threads: int, device: torch.device
) -> Generator[list[Batch]]:
    """The batches of all updates from the first one on; there is one at least.

    The part of the first one is opened at once, so that its faults come before anything is written;
    others are opened when they are reached.
    """
    left = [(part, range(max(first, part.steps.start), part.steps.stop)) for part in parts]
    left = [(part, steps) for part, steps in left if steps]
    opened = left[0][0].open()

    def batches() -> Generator[list[Batch]]:
        own = opened
        for number, (part, steps) in enumerate(left):
            own = part.open() if number else own
            positions = share.positions(steps.start, steps.stop)
            pinned = device.type == "cuda" and threads > 0
            yield from own.stream(positions, share.size, threads, pinned=pinned)

    return batches()


def _run(  # noqa: PLR0913
    learner: StudentLearner,
    ahead: Generator[list[Batch]],
    share: _Share,
    out: Path,
    meta: dict[str, Any],
    first: int,
    on_step: Callable[[StepMetrics], None] | None,
) -> None:
    """Do all updates that are left."""
    config, steps = learner.config, learner.config.optimiser.steps
    if not learner.processes.is_first:
        with closing(ahead):
            for step, parts in enumerate(ahead, first):
                learner.update(step, parts, share)
        return
    with ExitStack() as stack:
        stack.enter_context(closing(ahead))
        sinks = []
        if config.wandb is not None:
            sinks.append(stack.enter_context(Tracker(config.wandb, out, meta)).write)
        log = MetricsLog(out, first=first, steps=steps, log_every=config.log_every)
        sinks.append(stack.enter_context(log).write)
        began = time.monotonic()
        for step, parts in enumerate(ahead, first):
            row = learner.update(step, parts, share)
            row["seconds"], began = time.monotonic() - began, time.monotonic()
            for write in sinks:
                write(row)
            if learner.is_kept(step + 1):
                state = learner.checkpoint(step + 1, meta)
                save_checkpoint(out / CHECKPOINT_FOLDER, state, keep=config.keep_checkpoints)
            if on_step is not None:
                on_step(row)


def _shard_cache(config: TrainingConfig, sources: Sequence[Sequence[ShardFile]]) -> ShardCache:
    folder = local_path(config.shard_cache or Path(config.out) / "shards", "shard_cache")
    cache = ShardCache(folder, config.shard_cache_bytes)
    remote = [[shard for shard in own if shard.is_remote] for own in sources]
    if any(remote):
        cache.require_room(remote, config.mixed_shards)
    return cache


def _batch_plan(config: TrainingConfig) -> BatchPlan:
    return BatchPlan(
        side=config.student.image_size,
        classes_per_image=config.classes_per_image,
        negatives=config.negatives,
        augmentation=config.augmentation,
        padding=config.student.mean_colour,
        seed=config.seed,
        mixed_shards=config.mixed_shards,
        shares=source_shares([source.weight for source in config.drawn]),
    )
