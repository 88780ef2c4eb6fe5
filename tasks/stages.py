"""The stages, in the order of the work, and how far a shard is."""

from collections.abc import Mapping
from typing import Any

from storage.commits import Commit
from storage.records import PlannedShard, Stage
from storage.store import Store
from tasks import detections, masks, pairs, prompts, shards
from tasks.declarations import Declaration, Done
from tasks.recipe import Recipe

STAGES: Mapping[Stage, Declaration] = {
    declaration.stage: declaration
    for declaration in (
        prompts.DECLARATION,
        pairs.DECLARATION,
        detections.DECLARATION,
        masks.DECLARATION,
        shards.DECLARATION,
    )
}
"""Every stage by its name, in order."""


class StageKeys:
    """The keys of a recipe's outputs; models and templates are identified once.

    Args:
        recipe: How samples are made.

    Raises:
        InputError: If weights or templates are missing.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._configs = {stage: each.config(recipe) for stage, each in STAGES.items()}

    def describe(self) -> dict[str, Any]:
        """What each stage's output depends on, for the dataset's spec."""
        return {stage.value: config for stage, config in self._configs.items() if config}

    def key(self, stage: Stage, shard: PlannedShard, done: Done) -> str:
        """The key of a stage's output for a shard; see `Declaration.key`."""
        return STAGES[stage].key(self._configs[stage], shard, done)

    def find_done(self, store: Store, shard: PlannedShard) -> dict[Stage, Commit]:
        """Find the finished stages of a shard; changes nothing.

        Returns:
            The commits of its stages, in order, up to the first one that is missing.
        """
        done: dict[Stage, Commit] = {}
        for stage in STAGES:
            commit = store.look(stage, shard.name, self.key(stage, shard, done))
            if commit is None:
                break
            done[stage] = commit
        return done


def stage_table() -> str:
    """All stages as a Markdown table, for `docs/architecture.md`."""
    rows = ["| stage | version | reads | model | what happens |", "|---|---|---|---|---|"]
    rows += [
        f"| {each.stage.value} | {each.version} | {', '.join(each.inputs) or 'the plan'} | "
        f"{each.role.value if each.role else '-'} | {each.about} |"
        for each in STAGES.values()
    ]
    return "\n".join(rows) + "\n"
