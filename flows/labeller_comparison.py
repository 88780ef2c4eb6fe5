"""Labellers compared fairly: the same pictures for each, and the same networks trained on each.

Every seed's pictures are painted once, with all attention maps that any of the labellers reads; the
datasets of the others take them over.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field, model_validator

from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.reports.comparison_files import write_comparison
from evaluation.reports.comparisons import Comparison, LabelledSet, TrainedSubject
from evaluation.reports.sheets import LabelledScene
from evaluation.scoring.measured import Measured, headline
from flows.generation_parameters import GenerationParameters
from flows.run_plan import check_benchmarks, scoring_configs
from flows.training_parameters import TrainAndEvaluateParameters, training_config
from models.attention_maps import MapsWanted
from models.labellers import AnyLabellerConfig, maps_wanted
from models.profiles import load_profile, require_weights
from storage.codecs import decode_image, decode_label_map
from storage.current_samples import CurrentSamples
from storage.documents import merge, validate
from storage.errors import BudgetError, EngineError, IncompleteError, InputError
from storage.paths import local_path
from storage.records import IGNORE_LABEL, Stage
from storage.shards import Sample
from storage.store import Store
from tasks.drawn_agreement import DrawnAgreement, agree_on_scenes, draw_scenes, mask_iou
from tasks.progress import StoppedError
from training.closed_sets.config import ClosedSetRequest

_log = logging.getLogger(__name__)

STUDENT = "student"
_SCENES = 12
_DRAWN_VOCABULARY = "miniature"
_FIXED = {"root", "seed", "profile", "labeller", "reuse"}
_NAME = r"^[a-z0-9][a-z0-9-]*$"

Name = Annotated[str, Field(pattern=_NAME)]
MakeDataset = Callable[[GenerationParameters], object]
MeasureRun = Callable[[TrainAndEvaluateParameters], Sequence[Measured]]


class ComparisonParameters(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Which labellers to compare, on what, and where to put it."""

    out: str = Field(min_length=1)
    """Folder for datasets, runs and the report. What is finished is not made again."""
    profile: str = "miniature"
    """Models that they share: a shipped profile, or the path of a YAML file."""
    labellers: dict[Name, AnyLabellerConfig | None] = Field(min_length=1)
    """Labellers by the name that the report shows; null means the profile's. The first is what the
    others are compared to."""
    generation: dict[str, Any]
    """Generation settings of all datasets: `samples` at least; not `root`, `seed`, `profile`,
    `labeller` or `reuse`."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Training settings of the student that differ from the profile's."""
    scoring: dict[str, Any] = Field(default_factory=dict)
    """Scoring settings that differ from the profile's."""
    student: bool = True
    """Train the profile's student on each dataset."""
    closed_sets: tuple[ClosedSetRequest, ...] = ()
    """Ordinary segmenters to train on each dataset; they need the extra `mmseg`."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0, 1, 2), min_length=1)
    """Each seed is other pictures, and a training of everything on every labeller's masks."""
    benchmarks: tuple[BenchmarkConfig, ...] = ()
    """Benchmarks to score on."""
    drawn_scenes: int = Field(default=0, ge=0)
    """Drawn scenes on which masks are compared with exact ones; for the drawn world alone."""
    min_shards: int = Field(default=1, ge=1)
    """Good shards that a dataset must have."""

    @model_validator(mode="after")
    def _check(self) -> "ComparisonParameters":
        if "://" in self.out:
            message = f"out is {self.out}, expected a folder of this machine"
            raise ValueError(message)
        if len(set(self.seeds)) < len(self.seeds):
            message = f"seeds {list(self.seeds)} hold one twice, expected each once"
            raise ValueError(message)
        fixed = sorted(_FIXED & self.generation.keys())
        if fixed:
            message = f"generation sets {fixed}, which the comparison itself sets"
            raise ValueError(message)
        if (self.student or self.closed_sets) and not self.benchmarks:
            message = "benchmarks are empty, expected one to score what is trained on"
            raise ValueError(message)
        return self


class LabellerComparison:
    """A comparison, worked out from its parameters.

    Attributes:
        parameters: What to compare.
        datasets: What is generated, by labeller and seed.
        runs: What is trained and scored on each.

    Args:
        parameters: What to compare.

    Raises:
        InputError: If a setting is unknown or does not fit.
    """

    def __init__(self, parameters: ComparisonParameters) -> None:
        self.parameters = parameters
        self._recorded = _recorded_for(parameters)
        self.datasets = {
            (name, seed): self._dataset(name, seed)
            for seed in parameters.seeds
            for name in parameters.labellers
        }
        self.runs = {key: self._run(*key) for key in self.datasets} if self.subjects else {}
        if parameters.drawn_scenes and self._vocabulary != _DRAWN_VOCABULARY:
            message = (
                f"drawn_scenes is {parameters.drawn_scenes} and the profile's vocabulary is "
                f"{self._vocabulary!r}, expected {_DRAWN_VOCABULARY!r}, of which scenes can be "
                "drawn; set drawn_scenes to 0"
            )
            raise InputError(message)

    @property
    def folder(self) -> Path:
        """Where the report goes."""
        return local_path(self.parameters.out, "out")

    @property
    def subjects(self) -> tuple[str, ...]:
        """What is trained on each dataset."""
        student = (STUDENT,) if self.parameters.student else ()
        return (*student, *map(_closed_set_name, self.parameters.closed_sets))

    @property
    def _vocabulary(self) -> str:
        return load_profile(self.parameters.profile).vocabulary

    def _dataset(self, name: str, seed: int) -> GenerationParameters:
        given = self.parameters
        first = next(iter(given.labellers))
        parent = f"{given.out.rstrip('/')}/datasets"
        settings: dict[str, Any] = {
            "root": f"{parent}/{name}-seed{seed}",
            "seed": seed,
            "profile": given.profile,
            "labeller": given.labellers[name],
        }
        if name != first:
            settings["reuse"] = f"{parent}/{first}-seed{seed}"
        generation = dict(given.generation)
        if self._recorded is not None:
            record = {"record": self._recorded.model_dump(mode="json")}
            generation["pairs"] = merge(generation.get("pairs", {}), record)
        return validate(GenerationParameters, generation | settings, f"generation of {name}")

    def _run(self, name: str, seed: int) -> TrainAndEvaluateParameters:
        given = self.parameters
        parameters = TrainAndEvaluateParameters(
            dataset=self.datasets[name, seed].root,
            out=f"{given.out.rstrip('/')}/runs/{name}-seed{seed}",
            profile=given.profile,
            min_shards=given.min_shards,
            training=merge(given.training, {"seed": seed}),
            scoring=given.scoring,
            benchmarks=given.benchmarks,
            closed_sets=tuple(
                each.model_copy(update={"settings": {"seed": seed, **each.settings}})
                for each in given.closed_sets
            ),
            untrained=False,
            baseline=False,
        )
        training_config(parameters)
        scoring_configs(parameters)
        return parameters


def check_comparison(comparison: LabellerComparison) -> None:
    """Check everything that can be checked before anything is paid for; nothing is written.

    Raises:
        InputError: If weights or files of a benchmark are missing, or a labeller reads attention
            that the painter cannot give.
    """
    for dataset in comparison.datasets.values():
        require_weights(dataset.recipe.models())
        dataset.recipe.check_recording()
    if comparison.parameters.student:
        load_profile(comparison.parameters.profile).student.check()
    check_benchmarks(comparison.parameters.benchmarks)


def walk_comparison(
    comparison: LabellerComparison,
    generate: MakeDataset,
    measure: MeasureRun,
    measure_closed_sets: MeasureRun,
) -> Comparison:
    """Label, train and score everything; finished work is found, not repeated.

    A training that fails does not stop the others. The report is rewritten after each.

    Args:
        comparison: What is wanted.
        generate: Makes a dataset, or finds it complete.
        measure: Trains and scores the student on one, or finds that done.
        measure_closed_sets: The same for all closed-set segmenters.

    Raises:
        BudgetError: A limit was reached.
        EngineError: A dataset could not be made.
    """
    for dataset in comparison.datasets.values():
        generate(dataset)
    sets, scenes = _label_sets(comparison)
    progress = _Progress(comparison, sets, scenes)
    progress.write()
    for key, run in comparison.runs.items():
        if comparison.parameters.student:
            progress.take(key, (STUDENT,), measure, run)
        if closed_sets := tuple(map(_closed_set_name, comparison.parameters.closed_sets)):
            progress.take(key, closed_sets, measure_closed_sets, run)
    return progress.write()


def require_measured(comparison: Comparison) -> None:
    """Check that everything is measured.

    Raises:
        IncompleteError: Something is not.
    """
    if left := len(comparison.unfinished):
        message = (
            f"{left} of {len(comparison.trained)} trainings are not measured, the report says "
            "why; run again to go on"
        )
        raise IncompleteError(message)


class _Progress:
    """The results so far."""

    def __init__(
        self,
        comparison: LabellerComparison,
        sets: Sequence[LabelledSet],
        scenes: Sequence[LabelledScene],
    ) -> None:
        self._comparison = comparison
        self._sets = tuple(sets)
        self._scenes = tuple(scenes)
        self._metrics: dict[str, str] = {}
        self._trained = {
            (name, seed, subject): TrainedSubject(labeller=name, seed=seed, subject=subject)
            for name, seed in comparison.runs
            for subject in comparison.subjects
        }

    def take(
        self,
        key: tuple[str, int],
        subjects: Sequence[str],
        measure: MeasureRun,
        run: TrainAndEvaluateParameters,
    ) -> None:
        """MeasureRun some subjects, and remember what came of it."""
        try:
            measured = measure(run)
        except EngineError as error:
            if isinstance(error, InputError | BudgetError | StoppedError):
                raise
            _log.exception("a part of the comparison failed")
            for subject in subjects:
                self._note(key, subject, {"state": "failed", "error": " ".join(str(error).split())})
        else:
            for subject in subjects:
                own = [each for each in measured if _is_of(each, subject)]
                scores = {_benchmark_of(each): headline(each)[1] for each in own}
                self._metrics |= {_benchmark_of(each): headline(each)[0] for each in own}
                self._note(key, subject, {"state": "measured", "scores": scores})
        self.write()

    def write(self) -> Comparison:
        """Write the report of what there is."""
        given = self._comparison.parameters
        found = Comparison(
            profile=given.profile,
            labellers=tuple(given.labellers),
            subjects=self._comparison.subjects,
            seeds=given.seeds,
            benchmarks=tuple(f"{each.name} {each.split}" for each in given.benchmarks),
            metrics=self._metrics,
            sets=self._sets,
            trained=tuple(self._trained.values()),
            settings=given.model_dump(mode="json"),
            engine_version=version("magicseg-engine"),
        )
        write_comparison(found, self._scenes, self._comparison.folder)
        return found

    def _note(self, key: tuple[str, int], subject: str, update: Mapping[str, Any]) -> None:
        place = (*key, subject)
        self._trained[place] = self._trained[place].model_copy(update=update)


def _is_of(measured: Measured, subject: str) -> bool:
    if subject == STUDENT:
        return measured.subject.kind == "student"
    return measured.subject.kind == "closed-set" and measured.subject.name == subject


def _closed_set_name(request: ClosedSetRequest) -> str:
    """What its scores call a closed-set segmenter."""
    return f"{request.recipe} on {request.classes}"


def _benchmark_of(measured: Measured) -> str:
    return f"{measured.protocol.benchmark} {measured.protocol.split}"


def _recorded_for(parameters: ComparisonParameters) -> MapsWanted | None:
    """All maps that any of the labellers reads."""
    own = load_profile(parameters.profile).labeller
    wanted = [maps_wanted(each or own) for each in parameters.labellers.values()]
    read = [each for each in wanted if each is not None]
    if not read:
        return None
    cells = {each.cells for each in read if each.cells is not None}
    if len(cells) > 1:
        message = (
            f"labellers read the attention of cells at the resolutions {sorted(cells)}, of which "
            "one is recorded; set `cell_resolution` of all to one of them"
        )
        raise InputError(message)
    return MapsWanted(
        mentions=any(each.mentions for each in read),
        class_prompt=any(each.class_prompt for each in read),
        cross=tuple(sorted({side for each in read for side in each.cross})),
        cells=min(cells, default=None),
    )


def _label_sets(
    comparison: LabellerComparison,
) -> tuple[list[LabelledSet], list[LabelledScene]]:
    """What the datasets hold, and the first scenes of the first seed with everybody's masks."""
    given = comparison.parameters
    names, first = list(given.labellers), next(iter(given.labellers))
    exact = _exact(comparison)
    sets: list[LabelledSet] = []
    scenes: list[LabelledScene] = []
    for seed in given.seeds:
        samples = {name: _samples(comparison.datasets[name, seed].root) for name in names}
        sets += [
            _labelled_set(
                name, seed, comparison.datasets[name, seed].root, samples, first, exact.get(name)
            )
            for name in names
        ]
        scenes = scenes or _scenes_of(samples, names)
    return sets, scenes


def _exact(comparison: LabellerComparison) -> dict[str, DrawnAgreement]:
    count = comparison.parameters.drawn_scenes
    if not count:
        return {}
    scenes = draw_scenes(count, seed=0)
    first = comparison.parameters.seeds[0]
    return {
        name: agree_on_scenes(comparison.datasets[name, first].recipe.profile, scenes)
        for name in comparison.parameters.labellers
    }


def _samples(root: str) -> dict[int, Sample]:
    return {sample.index: sample for sample in CurrentSamples(Store.open(root))}


def _labelled_set(
    name: str,
    seed: int,
    root: str,
    samples: Mapping[str, Mapping[int, Sample]],
    first: str,
    exact: DrawnAgreement | None,
) -> LabelledSet:
    own, others = samples[name], samples[first]
    common = sorted(own.keys() & others.keys())
    overlaps = [iou for index in common for iou in _overlaps(own[index], others[index])]
    store = Store.open(root)
    slices = store.status()
    dropped: Counter[str] = Counter()
    for part in slices:
        dropped.update({reason.value: count for reason, count in part.dropped.items()})
    return LabelledSet(
        labeller=name,
        seed=seed,
        root=root,
        requested=sum(part.requested for part in slices),
        written=len(own),
        dropped=dict(dropped),
        common=len(common),
        agreement=float(np.mean(overlaps)) if overlaps else None,
        exact=None if exact is None else exact.one,
        exact_two=None if exact is None else exact.two,
        seconds=_seconds_a_sample(store),
    )


def _seconds_a_sample(store: Store) -> float:
    """Seconds that finding and cutting took, for each sample that was painted."""
    found, cut = store.commits(Stage.DETECTIONS), store.commits(Stage.MASKS)
    painted = sum(commit.counts.requested for commit in found)
    return sum(commit.seconds for commit in (*found, *cut)) / max(painted, 1)


def _overlaps(own: Sample, other: Sample) -> list[float]:
    """IoU of two label maps of one picture, class by class, where both are decided."""
    if own.image_bytes != other.image_bytes:
        message = (
            f"samples {own.index} of two labellers show different pictures, expected the same; "
            "verify the datasets"
        )
        raise InputError(message)
    first, second = (decode_label_map(each.mask_bytes) for each in (own, other))
    decided = (first != IGNORE_LABEL) & (second != IGNORE_LABEL)
    return [
        mask_iou((first == label) & decided, (second == label) & decided)
        for label in (class_id + 1 for class_id in own.class_ids)
    ]


def _scenes_of(
    samples: Mapping[str, Mapping[int, Sample]], names: Sequence[str]
) -> list[LabelledScene]:
    first = samples[names[0]]
    chosen = sorted(first)[:: max(1, len(first) // _SCENES)][:_SCENES]
    return [
        LabelledScene(
            decode_image(first[index].image_bytes),
            tuple(
                decode_label_map(samples[name][index].mask_bytes)
                if index in samples[name]
                else None
                for name in names
            ),
            first[index].text,
        )
        for index in chosen
    ]
