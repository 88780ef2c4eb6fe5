"""What a generation run would do: its shards, how far each is, and what is left."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from flows.generation_costs import Remainder, RunCost, cost_lines, estimate_costs
from flows.generation_parameters import GenerationParameters
from flows.generation_run import GenerationRun, named_slice, open_run, select_shards
from flows.quota_words import print_quota
from flows.quotas import QuotaReport, survey
from storage.layout import cell_name
from storage.plan import ShardRange, cell_size, count_shards, shard_range
from storage.records import PlannedSample, Record, Stage
from storage.slices import Slice
from tasks.earlier_layout import earlier_stages
from tasks.stages import stages_of


class StagePlan(Record, frozen=True):
    """One stage of a slice."""

    stage: Stage
    """The stage."""
    committed: int
    """Chosen shards for which it is committed."""
    to_do: int
    """Chosen shards for which it is not."""


class GenerationPlan(Record, frozen=True):
    """What a run would do."""

    root: str
    """The dataset."""
    is_new: bool
    """Whether there is no dataset yet."""
    slice_id: str
    """8 hex digits of the slice."""
    slice: str
    """Name of the slice."""
    num_classes: int
    """Classes of the slice."""
    absent: tuple[str, ...] = ()
    """Classes of the benchmark that the slice is named after which the vocabulary does not have."""
    samples: int
    """Samples planned."""
    shards: int
    """Shards of the slice."""
    chosen: int
    """Shards of the slice that the run would work on; the stages count these."""
    stages: tuple[StagePlan, ...]
    """How far the stages are."""
    quota: QuotaReport | None = None
    """The extra samples that are known now; nothing if no quota or no dataset is there."""
    cost: RunCost | None = None
    """What the run will cost; nothing if there is nothing to do."""


def describe_plan(parameters: GenerationParameters) -> GenerationPlan:
    """Compare what is asked for with what is committed; nothing is written.

    Raises:
        InputError: The parameters mean nothing, weights are missing, or the dataset that is there
            was made with other settings.
        DamagedError: There is a quota, and what tells the fate of samples is damaged.
    """
    shards = count_shards(parameters.spec, parameters.samples)
    chosen = len(select_shards(parameters.shards, shards))
    run = open_run(parameters)
    classes = named_slice(parameters) if run is None else run.classes
    committed = dict.fromkeys(stages_of(parameters.recipe), 0)
    texts: dict[str, list[PlannedSample]] = {}
    if run is not None:
        committed, texts = _count_done(run)
    left = _planned(parameters, classes, shards) if run is None else run.todo
    store = None if run is None else run.store
    return GenerationPlan(
        root=parameters.root,
        is_new=run is None,
        slice_id=classes.slice_id,
        slice=classes.label,
        num_classes=len(classes.class_ids),
        absent=classes.absent,
        samples=parameters.samples,
        shards=shards,
        chosen=chosen,
        stages=tuple(
            StagePlan(stage=stage, committed=count, to_do=chosen - count)
            for stage, count in committed.items()
        ),
        quota=survey(run).quota if run is not None and parameters.min_per_class else None,
        cost=estimate_costs(parameters, classes, Remainder(left, texts), store) if left else None,
    )


def _planned(parameters: GenerationParameters, classes: Slice, shards: int) -> list[ShardRange]:
    """The shards that a new dataset would have made."""
    chosen = select_shards(parameters.shards, shards)
    return [shard_range(parameters.spec, classes, index, parameters.samples) for index in chosen]


def _count_done(
    run: GenerationRun,
) -> tuple[dict[Stage, int], dict[str, list[PlannedSample]]]:
    """How far the chosen shards are.

    Returns:
        How many shards there are for which each stage has decided about every sample; and, for
        each shard that was begun, the samples that have no text yet.
    """
    texts: dict[str, list[PlannedSample]] = {}
    done = dict.fromkeys(run.keys.stages, len(run.finished))
    begun = {path.split("/")[-2] for path in run.store.log.paths(Stage.PROMPTS)}
    size = cell_size(run.parameters.spec)
    for shard in run.todo:
        cells = range(shard.start // size, -(-shard.stop // size))
        names = {cell_name(shard.slice_id, index) for index in cells} | {shard.name}
        if begun.isdisjoint(names):
            continue
        work = run.work(shard)
        earlier = earlier_stages(work)
        texts[shard.name] = [
            sample
            for state in work.states()
            if Stage.PROMPTS not in earlier
            for sample in state.missing(Stage.PROMPTS)
        ]
        for stage in work.keys.inputs:
            if stage not in earlier and any(state.missing(stage) for state in work.states()):
                break
            done[stage] += 1
    return done, texts


def absent_words(name: str, absent: Sequence[str]) -> str:
    """Say why a slice has fewer classes than the benchmark that it is named after."""
    what = (
        f"{absent[0]!r} is no class" if len(absent) == 1 else f"{', '.join(absent)} are no classes"
    )
    return f"{name} leaves out {len(absent)} of the benchmark's classes: {what} of the vocabulary"


def print_plan(plan: GenerationPlan, console: Console) -> None:
    """Print a plan as a table."""
    state = "new dataset" if plan.is_new else "existing dataset"
    chosen = "" if plan.chosen == plan.shards else f", {plan.chosen} of them chosen"
    console.print(
        f"{plan.root} ({state}): slice {plan.slice} = {plan.num_classes} classes, "
        f"{plan.samples} samples in {plan.shards} shards{chosen}, slice id {plan.slice_id}",
        markup=False,
        soft_wrap=True,
    )
    if plan.absent:
        console.print(absent_words(plan.slice, plan.absent), markup=False, soft_wrap=True)
    table = Table("stage", "shards committed", "shards to do")
    for row in plan.stages:
        table.add_row(row.stage.value, str(row.committed), str(row.to_do))
    console.print(table)
    for line in cost_lines(plan.cost) if plan.cost is not None else ():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    print_quota(plan.quota, console)
