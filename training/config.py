"""What a training run is made of; nothing here needs torch.

The defaults are those of the released code.
"""

import math
import re
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from models.student.config import StudentConfig
from storage.folds import Fold
from training.shares import source_shares


class NegativesConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Which names are kept out of an image's negatives: by default none, as released."""

    synonyms: bool = False
    """Classes that share a name or a synonym with one of the image's own: "fish" the animal and
    "fish" the food."""
    contained_names: bool = False
    """Classes whose names contain, or are contained in, a name of one of the image's own: "school
    bus" for "bus", but "dog collar" for "dog" too."""
    broader: bool = False
    """Hypernyms of the image's own classes, at any remove: "bus" and "motor vehicle" for "school
    bus". Such a name is true of the object."""
    narrower: bool = False
    """Hyponyms of the image's own classes, at any remove: "school bus" for "bus". Such a name may
    be true of the object."""
    mentioned: bool = False
    """Classes that the sample's text names, whether they were asked for or not: "sofa" for "a dog
    on a sofa" that was written for "dog"."""
    unjudged: bool = True
    """Classes that nobody looked for in a real image: "lamp" for one of PASCAL VOC, whose
    background is none of its 20 classes and may show a lamp. Generated samples have none."""


_GRID = re.compile(r"[1-9]x[1-9]")
_PUBLISHED_GRIDS = {
    "1x2": 1_500.0,
    "2x1": 1_500.0,
    "2x2": 3_000.0,
    "3x3": 4_000.0,
    "5x5": 3_000.0,
    "6x6": 2_000.0,
    "7x7": 2_000.0,
    "8x8": 1_000.0,
}
"""How many images DiffuMask's script makes of each: 18,000."""


class ZeroShotConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Names that the student is not trained on (ZegCLIP, arXiv 2212.03588), to be scored on them.

    They are no names of any image, and their pixels are of unknown class. Samples that show nothing
    else are skipped.
    """

    left_out: tuple[str, ...] = ()
    """Classes of the vocabulary, and splits such as `voc15_5`, which stand for their unseen
    classes; empty trains on all."""
    transductive: bool = False
    """In the second half of the updates the names are known, still without masks: what no seen
    class is marked on gets the best left-out name by the student itself. All samples are shown
    then."""
    least_score: float = Field(default=0.0, ge=0, lt=1)
    """Sigmoid score that such a pixel's best name must have; where it has less, its class is
    unknown. At 0, as in ZegCLIP, all background gets a name, which suits benchmarks without
    background alone."""

    @model_validator(mode="after")
    def _has_names(self) -> "ZeroShotConfig":
        if self.transductive and not self.left_out:
            message = (
                "transductive is set and left_out is empty, expected the names that have no masks: "
                "name them, or leave transductive out"
            )
            raise ValueError(message)
        return self


ARITHMETIC = {"arithmetic": "opencv"}
"""What computes views, as an identity says it; that of a run that began before says nothing, and
its views are Pillow's."""


class AugmentationConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """How views differ from the stored images."""

    added_later: ClassVar[dict[str, frozenset[str]]] = {
        "splice": frozenset({"splice_grids"}),
        "perspective": frozenset({"perspective_shift"}),
        "blur": frozenset({"blur_sigma"}),
        "occlusion": frozenset({"occlusion_patches", "occlusion_size"}),
    }
    """Probabilities, each with what only counts if it is not 0; while it is, older identities and
    new ones are the same."""

    min_scale: float = Field(default=0.5, gt=0)
    """Smallest short side of the resized image, in crops."""
    max_scale: float = Field(default=2.0, gt=0)
    """Largest short side of the resized image, in crops."""
    crop_rule: Literal["released", "object"] = "released"
    """Which of `crop_tries` random crops is taken: the first with two classes of which none has
    more than `max_class_share` (else the last, which may show no object at all), or the first that
    shows a quarter of the labelled pixels."""
    crop_tries: int = Field(default=10, gt=0)
    """Crops tried."""
    max_class_share: float = Field(default=0.75, gt=0, le=1)
    """Share of the labelled pixels that one class may have under the released rule."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a left-right flip; 0 where orientation means something."""
    brightness: float = Field(default=32.0, ge=0, le=255)
    """Largest shift of all levels of 255; each of the four distortions happens every other time."""
    contrast: float = Field(default=0.5, ge=0, lt=1)
    """Levels are multiplied by up to 1 plus or minus this."""
    saturation: float = Field(default=0.5, ge=0, lt=1)
    """Saturation is multiplied by up to 1 plus or minus this."""
    hue: float = Field(default=36.0, ge=0, le=180)
    """Largest turn of the hue in degrees."""
    shared_colours: bool = False
    """Distort the colours of both images of a pair alike."""
    splice: float = Field(default=0.0, ge=0, le=1)
    """Share of views that show several samples side by side, as DiffuMask splices them."""
    splice_grids: dict[str, float] = Field(default=_PUBLISHED_GRIDS)
    """Rows x columns of those views, each with its weight. The default is DiffuMask's, 20 samples a
    view on average; smaller grids take less time to read."""
    perspective: float = Field(default=0.0, ge=0, le=1)
    """Share of views that are seen from aside."""
    perspective_shift: float = Field(default=0.3, gt=0, lt=1)
    """How far each corner may move inwards, in halves of the side."""
    blur: float = Field(default=0.0, ge=0, le=1)
    """Share of views that are blurred."""
    blur_sigma: float = Field(default=2.0, gt=0.1)
    """Largest standard deviation of the Gaussian in pixels of the view."""
    occlusion: float = Field(default=0.0, ge=0, le=1)
    """Share of views of which plain rectangles hide parts; their labels are ignored."""
    occlusion_patches: int = Field(default=3, ge=1)
    """Most rectangles."""
    occlusion_size: float = Field(default=0.25, gt=0, le=1)
    """Longest side of a rectangle, in sides of the view."""

    @model_validator(mode="after")
    def _check_scales(self) -> "AugmentationConfig":
        if self.min_scale > self.max_scale:
            message = f"min_scale is {self.min_scale}, expected at most max_scale {self.max_scale}"
            raise ValueError(message)
        return self

    @field_validator("splice_grids")
    @classmethod
    def _check_grids(cls, grids: dict[str, float]) -> dict[str, float]:
        wrong = [name for name in grids if not _GRID.fullmatch(name) or name == "1x1"]
        if wrong or not grids:
            found = f"{wrong[0]!r} is" if wrong else "it is empty"
            message = f"{found}, expected rows x columns such as '2x3', from 1x2 to 9x9"
            raise ValueError(message)
        if not all(0 < weight < math.inf for weight in grids.values()):
            message = f"the weights are {list(grids.values())}, expected positive ones"
            raise ValueError(message)
        return grids

    def identity(self) -> dict[str, Any]:
        """Say what the views depend on."""
        found = self.model_dump(mode="json") | ARITHMETIC
        for name, parts in self.added_later.items():
            if not found[name]:
                for unused in (name, *parts):
                    del found[unused]
        return found


class LossConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Which losses, and how much of each."""

    normalisation: Literal["released", "paper"] = "released"
    """`released`: focal sum over queries by present classes; `paper`: means over everything."""
    ignored_pixels: Literal["negative", "mask"] = "mask"
    """Pixels of unknown class and padding: `negative` for all names as released, or left out."""
    focal_weight: float = Field(default=100.0, ge=0)
    """Weight of the focal loss."""
    dice_weight: float = Field(default=1.0, ge=0)
    """Weight of the dice loss."""
    counterfactual_weight: float = Field(default=1.0, ge=0)
    """Weight of the counterfactual loss; at 0 the counterfactual images are not even encoded."""


class OptimiserConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Adam or AdamW with a polynomial fall of the learning rate after a linear rise."""

    kind: Literal["adamw", "adam"] = "adamw"
    """`adamw`, as the released code has it, or `adam`, as the MagicSeg paper (arXiv 2603.19575)
    says: there weight decay is a part of the gradient, and 0 makes the two the same."""
    steps: int = Field(default=20_000, gt=0)
    """Updates of the weights."""
    batch_size: int = Field(default=64, gt=0)
    """Pairs an update, over all processes and micro-batches."""
    micro_batch_size: int | None = Field(default=None, gt=0)
    """Pairs that go through the network at once; empty means all of a process's share."""
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
    """Largest norm of the gradient; empty leaves it as it is."""
    average: float | None = Field(default=None, gt=0, lt=1)
    """Decay of a running mean of the weights that is kept beside them and preferred when a
    checkpoint is loaded; empty keeps none."""

    def rate(self, step: int) -> float:
        """Learning rate of an update, counted from 0."""
        left = (1.0 - step / self.steps) ** self.power
        rate = (self.learning_rate - self.min_learning_rate) * left + self.min_learning_rate
        if step < self.warmup_steps:
            rate *= 1.0 - (1.0 - step / self.warmup_steps) * (1.0 - self.warmup_ratio)
        return rate


class TrainingSource(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """One of several sources of samples."""

    dataset: str = Field(min_length=1)
    """Root of a dataset (path or object-store URL), or a folder of tars, such as an import."""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Its share of the samples drawn is this by the sum of all weights."""


class TrainingConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """One run: data, student, recipe, machine."""

    dataset: str = ""
    """Root of a dataset (path or object-store URL), or a folder that holds its tars."""
    sources: tuple[TrainingSource, ...] = ()
    """Instead of `dataset`: several sources, drawn from by their weights."""
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
    held_out: Fold | None = None
    """Samples of the dataset that are not trained on, so that the student can judge them; noise
    learning sets it. What noise learning said of samples before does not count then."""
    classes_per_image: int = Field(default=100, gt=0)
    """Names m that an image is trained against, its own among them; capped at the vocabulary."""
    negatives: NegativesConfig = NegativesConfig()
    """Names that are kept out of an image's negatives."""
    zero_shot: ZeroShotConfig = ZeroShotConfig()
    """Names that are not trained on."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """Random views."""
    losses: LossConfig = LossConfig()
    """Terms and their weights."""
    optimiser: OptimiserConfig = OptimiserConfig()
    """Schedule and batch."""
    seed: int = Field(default=0, ge=0)
    """Seed of every random choice."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1` ...; `auto` takes CUDA where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the network: `auto` is bfloat16 on a GPU and float32 on a CPU. Weights, losses
    and updates are float32 always."""
    compile: bool = True
    """On a GPU, compile the student's layers in the first step, which takes about half a minute;
    steps are shorter from then on. Losses differ by rounding."""
    threads: int | None = Field(default=None, ge=0)
    """Threads that read, decode and augment; 0 does it between the updates. Empty means as many as
    there are cores that this process may use; processes of one machine share them. Batches are the
    same for every number."""
    cache_bytes: int = Field(default=2 * 1024**3, ge=0)
    """Decoded pairs are kept in memory if all of them need no more than this."""
    mixed_shards: int | None = Field(default=None, gt=0)
    """Shards whose samples are mixed at a time; empty mixes all. For a remote dataset that is
    larger than the shard cache, which must hold twice as many."""
    shard_cache: str | None = None
    """Folder where shards of a remote dataset are kept, best on a fast local disk; several runs may
    share it. Empty means `shards/` of `out`."""
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
            message = (
                f"batch_size is {self.optimiser.batch_size}, expected a multiple of "
                f"micro_batch_size {micro}"
            )
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _check_sources(self) -> "TrainingConfig":
        if bool(self.dataset) == bool(self.sources):
            found = "both are there" if self.dataset else "neither is"
            message = f"expected either dataset or sources, but {found}: give one of them"
            raise ValueError(message)
        source_shares([source.weight for source in self.sources])
        return self

    @property
    def names_known_from(self) -> int:
        """The update, from 0, from which on left-out names are known; in most runs there is none.

        ZegCLIP's self-training has the second half of the updates.
        """
        steps = self.optimiser.steps
        return steps // 2 if self.zero_shot.transductive else steps

    @property
    def drawn(self) -> tuple[TrainingSource, ...]:
        """What samples are drawn from: one source, or several by their weights."""
        return self.sources or (TrainingSource(dataset=self.dataset),)

    def identity(self) -> dict[str, object]:
        """Fields that decide the weights that come out; places and speed are left out."""
        places = {"dataset", "sources", "out", "device", "shard_cache", "resume_from"}
        places |= {"held_out"}  # what is left out of a shard is a part of its fingerprint
        upkeep = {"compile", "threads", "cache_bytes", "shard_cache_bytes"}
        upkeep |= {"checkpoint_every", "keep_checkpoints", "log_every", "wandb"}
        found = self.model_dump(mode="json", exclude=places | upkeep)
        found["augmentation"] = self.augmentation.identity()
        if self.optimiser.kind == "adamw":
            del found["optimiser"]["kind"]  # runs of earlier versions are known without it
        if self.negatives.unjudged:
            del found["negatives"]["unjudged"]
        if not self.zero_shot.left_out:
            del found["zero_shot"]
        if len(self.sources) > 1:
            found["shares"] = source_shares([source.weight for source in self.sources])
        return found
