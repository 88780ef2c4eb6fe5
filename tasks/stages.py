"""The stages, in the order of the work, and the keys of what they make."""

from collections.abc import Mapping, Sequence
from typing import Any

from storage.identity import digest
from storage.plan import DatasetSpec, ShardRange
from storage.records import PlannedSample, Stage
from tasks import checks, detections, masks, others, pairs, prompts, shards, twins
from tasks.cells import short_digest
from tasks.declarations import Declaration
from tasks.recipe import Recipe

STAGES: Mapping[Stage, Declaration] = {
    declaration.stage: declaration
    for declaration in (
        prompts.DECLARATION,
        pairs.DECLARATION,
        detections.DECLARATION,
        masks.DECLARATION,
        twins.DECLARATION,
        checks.DECLARATION,
        others.DECLARATION,
        shards.DECLARATION,
    )
}
"""Every stage by its name, in order."""


def stages_of(recipe: Recipe) -> list[Stage]:
    """The stages that the samples of a recipe pass, in order."""
    return [stage for stage, each in STAGES.items() if each.is_part(recipe)]


class StageKeys:
    """The stages of a recipe and the keys of their outputs; models are identified once.

    Args:
        recipe: How samples are made.

    Raises:
        InputError: If weights or templates are missing.

    Attributes:
        stages: The recipe's stages, in order.
        inputs: Those that commit pieces, in order, each with those that a sample must have passed.
        reads: The inputs of each whose output is part of the key.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.stages = stages_of(recipe)
        self.inputs: Mapping[Stage, tuple[Stage, ...]] = {
            stage: tuple(each for each in STAGES[stage].inputs if each in self.stages)
            for stage in self.stages
            if STAGES[stage].make is not None
        }
        self.reads: Mapping[Stage, tuple[Stage, ...]] = {
            stage: tuple(each for each in inputs if each not in STAGES[stage].unread(recipe))
            for stage, inputs in self.inputs.items()
        }
        self._configs = {stage: STAGES[stage].config(recipe) for stage in self.stages}
        self._digests = {
            stage: digest(
                {
                    "stage": stage.value,
                    "version": STAGES[stage].version,
                    "config": self._configs[stage],
                }
            )
            for stage in self.stages
        }

    def describe(self) -> dict[str, Any]:
        """What each stage's output depends on, for the dataset's spec."""
        return {stage.value: config for stage, config in self._configs.items() if config}

    def key(self, stage: Stage, sample: PlannedSample, inputs: Sequence[str]) -> str:
        """Identify what a stage makes of a sample.

        Args:
            stage: The stage.
            sample: The planned sample.
            inputs: Digests of what the stage reads of it, in the order of `reads`.

        Returns:
            16 hex digits; equal keys mean equal outputs, on any machine, in any order.
        """
        parts = (self._digests[stage], sample.key, sample.class_ids, sample.seed, *inputs)
        return short_digest(repr(parts).encode())

    def shard_key(self, spec: DatasetSpec, shard: ShardRange) -> str:
        """Identify a finished shard, without planning its samples.

        Args:
            spec: What fixes the plan.
            shard: Which samples.

        Returns:
            64 hex digits.
        """
        return digest(
            {
                "stages": {stage.value: each for stage, each in self._digests.items()},
                "plan": spec.model_dump(mode="json", exclude={"samples_per_shard"}),
                "slice": shard.slice_id,
                "samples": [shard.start, shard.stop],
            }
        )


def stage_table() -> str:
    """All stages as a Markdown table, for `docs/architecture.md`."""
    rows = ["| stage | version | reads | model | what happens |", "|---|---|---|---|---|"]
    rows += [
        f"| {each.stage.value} | {each.version} | {', '.join(each.inputs) or 'the plan'} | "
        f"{each.role.value if each.role else '-'} | {each.about} |"
        for each in STAGES.values()
    ]
    return "\n".join(rows) + "\n"
