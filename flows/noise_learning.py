"""Noise learning: segmenters are trained on all parts of a dataset but one, and judge that one."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from pydantic import BaseModel, Field
from rich.console import Console

from evaluation.scoring.agreement import Agreement
from evaluation.scoring.config import ScoringConfig
from flows.exclusions import who_is_here
from flows.live_page import engine_log
from flows.local_steps import LocalExecutor
from flows.training_parameters import (
    NO_SETTINGS,
    ChangedSettings,
    DatasetRoot,
    ProfileName,
    TrainAndEvaluateParameters,
    closed_set_jobs,
    training_config,
)
from models.profiles import load_profile
from storage.documents import merge, validate
from storage.errors import IncompleteError, InputError
from storage.folds import Fold
from storage.locks import refuse_other_files
from storage.paths import local_path
from storage.store import Store
from tasks.closed_sets import ClosedSetTraining
from tasks.folds import Against, FoldJob, FoldJudging
from tasks.noise import NoiseRules, NoiseVerdict, Ranking, apply_noise
from tasks.step_tasks import run_as_task
from tasks.steps import Execute, RunStep
from tasks.subjects import ClosedSetRun, TrainedStudent
from tasks.training import StudentTraining, refuse_other_vocabulary, require_shards
from training.closed_sets.config import ClosedSetRequest

__all__ = ["NoiseParameters", "learn_noise"]

Folds = Annotated[int, Field(ge=2, le=100)]
KeptShare = Annotated[float, Field(gt=0, le=1)]


class NoiseParameters(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Which dataset is judged, by whom, and what becomes of it."""

    dataset: DatasetRoot
    """Root of the dataset."""
    out: str = Field(min_length=1)
    """Folder for the segmenters of the folds and what they find; an interrupted run goes on."""
    profile: ProfileName = "miniature"
    """Whose student is trained, and how it is scored: a shipped profile, or a YAML file."""
    folds: Folds = 3
    """Parts of the dataset: each is judged by a segmenter that was trained on all others."""
    keep: KeptShare = 0.7
    """Share of the judged samples that stay."""
    ranking: Ranking = "class"
    """Whether a sample is compared with others of its class, or with all."""
    against: Against = "dataset"
    """Whether a prediction may name all classes that the dataset shows, or the sample's own only;
    those of a vocabulary with many synonyms are better judged against their own."""
    training: ChangedSettings = Field(default_factory=dict)
    """Training settings of the students that differ from the profile's."""
    scoring: ChangedSettings = Field(default_factory=dict)
    """Scoring settings that differ from the profile's: background rule, threshold, windows."""
    closed_set: ClosedSetRequest | None = None
    """An ordinary segmenter that judges instead of the student."""


def plan_noise(parameters: NoiseParameters) -> list[tuple[RunStep[Any], FoldJudging]]:
    """For each fold the training of a segmenter, and what it is asked.

    Raises:
        IncompleteError: No good shard is committed.
        InputError: There is no dataset, its vocabulary is not the profile's, a setting does not
            fit, or the folder holds something else.
    """
    Store.open(parameters.dataset)
    profile = load_profile(parameters.profile)
    refuse_other_vocabulary(parameters.dataset, profile.vocabulary)
    require_shards(parameters.dataset, 1)
    out = local_path(parameters.out, "out")
    refuse_other_files(out, "noise learning", marks=("fold-*",))
    scoring = validate(
        ScoringConfig, merge(profile.scoring, parameters.scoring), "scoring settings"
    )
    steps: list[tuple[RunStep[Any], FoldJudging]] = []
    for number in range(parameters.folds):
        fold = Fold(number=number, of=parameters.folds)
        folder = out / f"fold-{number + 1}-of-{parameters.folds}"
        training, subject = _trained(parameters, fold, folder)
        job = FoldJob(
            dataset=parameters.dataset,
            vocabulary=profile.vocabulary,
            fold=fold,
            subject=subject,
            scoring=scoring,
            against=parameters.against,
            out=str(folder / f"agreement-{parameters.against}-{subject.name}"),
        )
        steps.append((training, FoldJudging(job)))
    return steps


def judge_all(
    steps: Sequence[tuple[RunStep[Any], FoldJudging]], execute: Execute
) -> dict[str, Agreement]:
    """Train and judge fold by fold; what was done before is found.

    Returns:
        How far each sample's mask and a prediction agree, by its key.

    Raises:
        IncompleteError: No sample could be judged.
    """
    agreements: dict[str, Agreement] = {}
    for training, judging in steps:
        execute(training)
        agreements |= execute(judging).result.samples
    if not agreements:
        message = "no sample could be judged: the segmenters know no class of the dataset"
        raise IncompleteError(message)
    return agreements


@flow(name="learn-noise", flow_run_name="{dataset}", persist_result=False)
def learn_noise(  # noqa: PLR0913 - the fields of a form
    *,
    dataset: DatasetRoot,
    out: str,
    profile: ProfileName = "miniature",
    folds: Folds = 3,
    keep: KeptShare = 0.7,
    ranking: Ranking = "class",
    against: Against = "dataset",
    training: ChangedSettings = NO_SETTINGS,
    scoring: ChangedSettings = NO_SETTINGS,
    closed_set: ClosedSetRequest | None = None,
) -> NoiseVerdict:
    """Leave the samples out of a dataset whose masks segmenters trained on others contradict most.

    Each training and each fold is a task, and found done a second time.

    Args:
        dataset: Root of the dataset.
        out: Folder for the segmenters of the folds and what they find; an interrupted run goes on.
        profile: Whose student is trained: a shipped profile, or the path of a YAML file.
        folds: Parts of the dataset; each is judged by a segmenter trained on all others.
        keep: Share of the judged samples that stay.
        ranking: Compare a sample with others of its class, or with all.
        against: Let a prediction name all classes that the dataset shows, or the sample's own.
        training: Training settings of the students that differ from the profile's.
        scoring: Scoring settings that differ from the profile's.
        closed_set: An ordinary segmenter that judges instead of the student.

    Raises:
        IncompleteError: No good shard is committed, or no sample can be judged.
        InputError: There is no dataset, or a setting does not fit.
    """
    values = {
        "dataset": dataset,
        "out": out,
        "profile": profile,
        "folds": folds,
        "keep": keep,
        "ranking": ranking,
        "against": against,
        "training": training,
        "scoring": scoring,
        "closed_set": closed_set,
    }
    parameters = validate(NoiseParameters, values, "parameters of learn-noise")
    with engine_log():
        return _learn(parameters, run_as_task)


def learn_noise_locally(
    parameters: NoiseParameters, console: Console, *, change: bool = True
) -> NoiseVerdict:
    """Do the same in this process.

    Args:
        parameters: What is judged, and by whom.
        console: Where progress is shown.
        change: Whether samples are left out; otherwise it is only said what would be.
    """
    return _learn(parameters, LocalExecutor(console), change=change)


def verdict_words(verdict: NoiseVerdict, dataset: str, *, change: bool) -> Iterator[str]:
    """Say in lines what noise learning came to."""
    stay = verdict.judged - verdict.dropped
    yield (
        f"{verdict.judged} samples judged: {stay} stay, {verdict.dropped} are left out "
        f"(mean agreement {verdict.mean_kept:.3f} and {verdict.mean_dropped:.3f})"
    )
    if verdict.by_hand:
        yield f"{verdict.by_hand} more would be left out, but were taken back by hand"
    if not change:
        yield f"{verdict.changed} samples would change; nothing was written"
    elif verdict.changed:
        yield f"{verdict.changed} samples changed; 'magicseg exclusions list {dataset}' names them"
    else:
        yield "nothing to do: all of it was said before"


def _learn(parameters: NoiseParameters, execute: Execute, *, change: bool = True) -> NoiseVerdict:
    agreements = judge_all(plan_noise(parameters), execute)
    rules = NoiseRules(keep=parameters.keep, ranking=parameters.ranking)
    store = Store.open(parameters.dataset)
    return apply_noise(store, agreements, rules, who=who_is_here(), change=change)


def _trained(
    parameters: NoiseParameters, fold: Fold, folder: Path
) -> tuple[RunStep[Any], TrainedStudent | ClosedSetRun]:
    """The training of a fold's segmenter, and who that will be."""
    if parameters.closed_set is not None and parameters.training:
        message = "training has settings of a student, but a closed set judges: leave one of them"
        raise InputError(message)
    run = TrainAndEvaluateParameters(
        dataset=parameters.dataset,
        out=str(folder),
        profile=parameters.profile,
        training=parameters.training,
        closed_sets=() if parameters.closed_set is None else (parameters.closed_set,),
    )
    if parameters.closed_set is None:
        config = training_config(run).model_copy(update={"held_out": fold})
        return StudentTraining(config), TrainedStudent(run=str(folder))
    (job,) = closed_set_jobs(run)
    step = ClosedSetTraining(job.model_copy(update={"held_out": fold}))
    return step, ClosedSetRun(run=job.config.out)
