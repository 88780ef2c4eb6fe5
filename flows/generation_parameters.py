"""The parameters of generation: they compose what each package owns."""

from typing import Annotated

from pydantic import BaseModel, Field

from models.labellers import AnyLabellerConfig
from models.profiles import load_profile
from models.registry import WriterConfig
from storage.plan import DatasetSpec
from tasks.recipe import Recipe
from tasks.rules import (
    DetectionRules,
    MaskRules,
    OtherRules,
    PairRules,
    PromptRules,
    TwinRules,
)

__all__ = ["AdvancedSettings", "GenerationParameters"]

Root = Annotated[str, Field(min_length=1)]
Samples = Annotated[int, Field(ge=1)]
MinPerClass = Annotated[int, Field(ge=1)] | None
MaxExtra = Annotated[float, Field(ge=0, le=100)]
ReadyAfterShards = Annotated[int, Field(ge=1)] | None


class AdvancedSettings(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Settings that most runs leave as they are."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of every random choice."""
    samples_per_shard: int = Field(default=1000, ge=1)
    """Samples that are packed into one tar; changing it packs anew and makes nothing again."""
    two_class_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the samples that name two classes."""
    texts_per_class_set: int = Field(default=10, ge=1)
    """Consecutive samples with the same classes; their texts are asked for together."""
    writer: WriterConfig | None = None
    """Who writes the texts instead of the profile's writer."""
    labeller: AnyLabellerConfig | None = None
    """Who labels the pictures instead of the profile's labeller."""
    reuse: str | None = Field(default=None, min_length=1)
    """Another dataset, a folder or an object-store URL: what its stages made, and this dataset's
    would make alike, is taken over instead of made again."""
    writer_limit: str | None = None
    """Name of a Prefect concurrency limit that every use of the writer must fit into, over all
    workers; it must exist."""
    prompts: PromptRules = PromptRules()
    """When a text is good enough."""
    pairs: PairRules = PairRules()
    """When a pair of images is good enough."""
    detections: DetectionRules = DetectionRules()
    """When the detector has found what was asked for."""
    masks: MaskRules = MaskRules()
    """When a mask is good enough."""
    twins: TwinRules = TwinRules()
    """How counterfactual images are made."""
    others: OtherRules = OtherRules()
    """Whether images are looked through for objects that nobody asked for."""
    min_yield: float = Field(default=0.25, ge=0, le=1)
    """A shard of several classes with a smaller share of written samples is degraded: training
    leaves it out."""
    device: str = "auto"
    """Where the models run: auto, cpu, cuda, cuda:1 ..."""
    batch_size: int | None = Field(default=None, ge=1)
    """Images that a network sees at once; empty means what the profile says."""
    shards_in_flight: int = Field(default=6, ge=1, le=64)
    """Shards worked on at once in this process: writing and packing overlap with painting."""
    max_failed_shards: int = Field(default=3, ge=1)
    """Start no more shards after this many have failed."""
    breaker_samples: int = Field(default=200, ge=0)
    """The run stops when nearly all of the last so many samples of a stage were dropped for one
    reason; 0 never stops it."""
    breaker_share: float = Field(default=0.9, ge=0, le=1)
    """Nearly all means more than this share."""
    accept_failed: bool = False
    """Pack shards without the samples that no service delivered, instead of asking again."""


USUAL = AdvancedSettings()
"""The settings as they are when nobody gives any."""


class GenerationParameters(AdvancedSettings, frozen=True):
    """What to generate, and where."""

    root: Root
    """Dataset: a folder or an object-store URL. An existing dataset is resumed or extended."""
    samples: Samples
    """Samples to plan for the slice. More than before extends the slice."""
    min_per_class: MinPerClass = None
    """Written samples that every class of the slice shall have; classes that yield less get extra
    samples."""
    max_extra: MaxExtra = 1.0
    """Most extra samples over all classes, as a multiple of `samples`."""
    slice: str = "all"
    """Classes: all, a named slice (lvis-r, voc20, ...), a range of ids (0:100), or names between
    commas."""
    profile: str = "miniature"
    """Models and their parameters: a shipped profile, or the path of a YAML file."""
    shards: str = "all"
    """Shards of the slice to work on: all, or indices and ranges such as 0-3,7."""
    ready_after_shards: ReadyAfterShards = None
    """Announce the dataset as ready for training once this many good shards are committed."""

    @property
    def spec(self) -> DatasetSpec:
        """What fixes the plan."""
        return DatasetSpec(
            vocabulary=load_profile(self.profile).vocabulary,
            seed=self.seed,
            samples_per_shard=self.samples_per_shard,
            two_class_share=self.two_class_share,
            texts_per_class_set=self.texts_per_class_set,
        )

    @property
    def recipe(self) -> Recipe:
        """How samples are made, on the device asked for."""
        others = {"writer": self.writer, "labeller": self.labeller}
        profile = load_profile(self.profile).model_copy(
            update={role: config for role, config in others.items() if config is not None}
        )
        return Recipe(
            profile=profile.on_device(self.device, self.batch_size),
            prompts=self.prompts,
            pairs=self.pairs,
            detections=self.detections,
            masks=self.masks,
            twins=self.twins,
            others=self.others,
        )
