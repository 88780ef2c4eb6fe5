"""The recipe: everything that the outputs of the stages depend on, and their keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from models.profiles import Profile
from models.writing.instructions import INSTRUCTIONS_VERSION
from models.writing.templates import load_templates
from models.writing.writers import ChatWriterConfig, WriterConfig
from storage.commits import Commit, Counts
from storage.identity import Encoded, digest
from storage.records import PlannedShard, Stage
from storage.store import Store
from storage.vocabulary import load_vocabulary
from tasks.detections import DetectionRules
from tasks.masks import MaskRules
from tasks.pairs import PairRules
from tasks.prompts import PromptRules

STAGE_VERSIONS: Mapping[Stage, int] = {
    Stage.PROMPTS: 1,
    Stage.PAIRS: 1,
    Stage.DETECTIONS: 1,
    Stage.MASKS: 1,
    Stage.SHARDS: 1,
}
"""Raise a stage's version by hand when its code changes what it produces."""

INPUTS: Mapping[Stage, tuple[Stage, ...]] = {
    Stage.PROMPTS: (),
    Stage.PAIRS: (Stage.PROMPTS,),
    Stage.DETECTIONS: (Stage.PAIRS,),
    Stage.MASKS: (Stage.PAIRS, Stage.DETECTIONS),
    Stage.SHARDS: (Stage.PROMPTS, Stage.PAIRS, Stage.DETECTIONS, Stage.MASKS),
}
"""Whose outputs a stage reads."""

Done = Mapping[Stage, Commit]
"""What is committed for one shard."""


@dataclass(frozen=True)
class Made:
    """What a stage made of a shard.

    Attributes:
        data: The bytes to store; empty for a shard without survivors.
        counts: Where the samples went.
        manifest: Parquet bytes of the manifest; final stage only.
    """

    data: bytes | memoryview
    counts: Counts
    manifest: bytes = b""


_WRITER_EXECUTION = frozenset(
    {
        "base_url",
        "api_key_env",
        "max_tokens_field",
        "timeout",
        "max_retries",
        "first_wait",
        "max_wait",
        "prices",
        "budget_usd",
        "budget_tokens",
        "concurrency",
    }
)
"""Where a model is served and what it may cost says nothing about its texts."""


class Recipe(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """How samples are made."""

    profile: Profile
    """Vocabulary, models, revisions and their parameters."""
    prompts: PromptRules = PromptRules()
    """When a text is good enough."""
    pairs: PairRules = PairRules()
    """When a pair of images is good enough."""
    detections: DetectionRules = DetectionRules()
    """When the detector has found what was asked for."""
    masks: MaskRules = MaskRules()
    """When a mask is good enough."""

    def config(self, stage: Stage) -> dict[str, Any]:
        """Say what a stage's output depends on besides its inputs and the plan.

        Settings that say only how to execute (device, batch size, concurrency) are not part of
        it: to change them repeats no work.
        """
        return {
            name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
            for name, value in self._parts(stage).items()
        }

    def _parts(self, stage: Stage) -> dict[str, Any]:
        """Only the asked stage's models are identified: that looks at their files."""
        profile = self.profile
        vocabulary = load_vocabulary(profile.vocabulary).digest
        match stage:
            case Stage.PROMPTS:
                return {
                    "vocabulary": vocabulary,
                    "writer": _writer_identity(profile.writer),
                    "tokenizer": profile.painter.identity()["weights"],
                    "rules": self.prompts,
                }
            case Stage.PAIRS:
                return {
                    "painter": profile.painter.identity(),
                    "rules": self.pairs,
                    "image_format": profile.image_format,
                }
            case Stage.DETECTIONS:
                return {
                    "vocabulary": vocabulary,
                    "detector": profile.detector.identity(),
                    "rules": self.detections,
                }
            case Stage.MASKS:
                return {"segmenter": profile.segmenter.identity(), "rules": self.masks}
            case Stage.SHARDS:
                return {}

    def describe(self) -> dict[str, Any]:
        """Every stage's config, for the dataset's spec."""
        configs = {stage.value: self.config(stage) for stage in Stage}
        return {name: config for name, config in configs.items() if config}

    def key(self, stage: Stage, shard: PlannedShard, done: Done) -> str:
        """Identify a stage's output for a shard.

        Args:
            stage: Which stage.
            shard: The planned samples: a shard that grew has another key than before.
            done: At least the commits that the stage reads.

        Returns:
            64 hex digits; equal keys mean equal outputs, on any machine, in any order.
        """
        inputs = [done[source].object for source in INPUTS[stage]]
        return digest(
            {
                "stage": stage.value,
                "version": STAGE_VERSIONS[stage],
                "samples": Encoded(shard.samples_json),
                "config": self.config(stage),
                "inputs": [ref.sha256 if ref else "" for ref in inputs],
            }
        )


def _writer_identity(config: WriterConfig) -> dict[str, Any]:
    if isinstance(config, ChatWriterConfig):
        fields = config.model_dump(mode="json", exclude=set(_WRITER_EXECUTION))
        return {**fields, "instructions": INSTRUCTIONS_VERSION}
    return {"templates": digest(load_templates(config.templates))}


def find_done(store: Store, recipe: Recipe, shard: PlannedShard) -> dict[Stage, Commit]:
    """Look up how far a shard is.

    Returns:
        The commits of its stages, in order, up to the first one that is missing.
    """
    done: dict[Stage, Commit] = {}
    for stage in Stage:
        commit = store.find(stage, shard.name, recipe.key(stage, shard, done))
        if commit is None:
            break
        done[stage] = commit
    return done
