"""What a training run is made of; the defaults are those of the released code."""

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from models.student.config import StudentConfig
from training.augmentation import AugmentationConfig
from training.losses import LossConfig
from training.negatives import NegativesConfig


class OptimiserConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """AdamW with a polynomial fall of the learning rate after a linear rise."""

    steps: int = Field(default=20_000, gt=0)
    """Updates of the weights."""
    batch_size: int = Field(default=64, gt=0)
    """Pairs an update, over all processes and micro-batches."""
    micro_batch_size: int | None = Field(default=None, gt=0)
    """Pairs that go through the network at once; nothing means all of a process's share."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Highest learning rate."""
    min_learning_rate: float = Field(default=1e-6, ge=0)
    """Where the polynomial fall ends."""
    power: float = Field(default=0.9, gt=0)
    """Exponent of the fall."""
    warmup_steps: int = Field(default=1_500, ge=0)
    """Updates over which the rate rises."""
    warmup_ratio: float = Field(default=1e-6, ge=0, le=1)
    """Share of the rate with which the rise begins."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Of all trained tensors, norms and biases too: the released exemptions never matched."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient; nothing leaves it as it is."""
    average: float | None = Field(default=None, gt=0, lt=1)
    """Decay of a running mean of the weights that is kept beside them and preferred when a
    checkpoint is loaded; nothing keeps none."""

    def rate(self, step: int) -> float:
        """Learning rate of an update, counted from 0."""
        left = (1.0 - step / self.steps) ** self.power
        rate = (self.learning_rate - self.min_learning_rate) * left + self.min_learning_rate
        if step < self.warmup_steps:
            rate *= 1.0 - (1.0 - step / self.warmup_steps) * (1.0 - self.warmup_ratio)
        return rate


class TrainingConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """One run: data, student, recipe, machine."""

    dataset: str
    """Root of a dataset (path or object-store URL), or a folder that holds its tars."""
    degraded_shards: Literal["skip", "use"] = "skip"
    """Whether shards below the dataset's minimum yield are trained on."""
    out: str
    """Folder of the run: `checkpoints/`, `metrics.jsonl`, `tensorboard/`, `text/`."""
    vocabulary: str
    """Name of the vocabulary that the label maps index."""
    templates: str = "single"
    """Template set of the class texts."""
    student: StudentConfig
    """The network."""
    classes_per_image: int = Field(default=100, gt=0)
    """Names m that an image is trained against, its own among them; capped at the vocabulary."""
    negatives: NegativesConfig = NegativesConfig()
    """Names that are kept out of an image's negatives."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """Random views."""
    losses: LossConfig = LossConfig()
    """Terms and their weights."""
    optimiser: OptimiserConfig = OptimiserConfig()
    """Schedule and batch."""
    seed: int = Field(default=0, ge=0)
    """Root of every random choice."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1` ...; `auto` takes CUDA where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the network: `auto` is bfloat16 on a GPU and float32 on a CPU. Weights, losses
    and updates are float32 always."""
    threads: int = Field(default=4, ge=0)
    """Threads that read, decode and augment; 0 does it between the updates."""
    cache_bytes: int = Field(default=2 * 1024**3, ge=0)
    """Decoded pairs are kept in memory if all of them need no more than this."""
    mixed_shards: int | None = Field(default=None, gt=0)
    """Shards whose samples are mixed at a time; nothing mixes all. For a remote dataset that is
    larger than the shard cache, which must hold twice as many."""
    shard_cache: str | None = None
    """Folder where shards of a remote dataset are kept, best on a fast local disk; several runs may
    share it. Nothing means `shards/` of `out`."""
    shard_cache_bytes: int = Field(default=64 * 1024**3, ge=0)
    """What the shards there may take."""
    checkpoint_every: int = Field(default=2_000, gt=0)
    """Updates between checkpoints."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Newest checkpoints that are kept."""
    log_every: int = Field(default=50, gt=0)
    """Updates between lines of the log; `metrics.jsonl` has a line for each."""
    wandb: str | None = None
    """Project of Weights & Biases that gets the metrics too; needs the extra `wandb`."""
    resume_from: str | None = None
    """Folder of the checkpoint to go on from instead of the newest one of `out`; newer ones are
    moved aside."""

    @model_validator(mode="after")
    def _check_batch(self) -> "TrainingConfig":
        micro = self.optimiser.micro_batch_size
        if micro is not None and self.optimiser.batch_size % micro:
            msg = (
                f"batch_size is {self.optimiser.batch_size}, expected a multiple of "
                f"micro_batch_size {micro}"
            )
            raise ValueError(msg)
        return self

    def identity(self) -> dict[str, object]:
        """Fields that decide the weights that come out; places and speed are left out."""
        places = {"dataset", "out", "device", "shard_cache", "resume_from"}
        habits = {"threads", "cache_bytes", "shard_cache_bytes"}
        habits |= {"checkpoint_every", "keep_checkpoints", "log_every", "wandb"}
        return self.model_dump(mode="json", exclude=places | habits)
