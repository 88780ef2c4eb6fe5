"""Subjects: what can be scored. Each says what it is, how it is scored, and scores itself.

What a subject is, is read from records and settings; a network is built for measuring alone, in the
process that measures.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from evaluation.benchmarks.contract import Benchmark
from evaluation.benchmarks.open_images import OpenImages
from evaluation.scoring.config import ScoringConfig, ViewConfig
from evaluation.scoring.measured import Measured
from evaluation.scoring.on_closed_sets import (
    ClosedSetPredictor,
    closed_set_protocol,
    score_closed_set,
)
from evaluation.scoring.on_labels import (
    baseline_protocol,
    score_baseline,
    score_student,
    student_protocol,
)
from evaluation.scoring.on_points import (
    baseline_point_protocol,
    score_baseline_points,
    score_student_points,
    student_point_protocol,
)
from evaluation.scoring.point_results import PointProtocol
from evaluation.scoring.results import ScoreProtocol, Subject
from models.devices import pick_device
from models.labellers import (
    AnyLabellerConfig,
    build_labeller,
    labeller_identity,
    on_device,
    parts_of,
)
from models.student.config import StudentConfig
from models.student.trained import describe_student, load_student
from models.weights import weights_identity
from storage.class_groups import load_zero_shot, trained_unseen
from storage.errors import InputError
from storage.identity import derive_seed, digest
from training.closed_sets.trained import TrainedSet, load_closed_set, read_closed_set_record

AnyBenchmark = Benchmark | OpenImages


class _SubjectConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    pass


class TrainedStudent(_SubjectConfig, frozen=True):
    """The student of a training run."""

    kind: Literal["student"] = "student"
    run: str
    """Folder of the run."""

    @property
    def name(self) -> str:
        """Its name in reports."""
        return "student"

    def check(self) -> None:
        """Check nothing: training comes first."""

    def describe(self) -> Subject:
        """Describe what is scored.

        Raises:
            DataError: If the checkpoint is damaged.
            InputError: If there is none.
        """
        return _describe_trained(describe_student(self.run))

    def protocol(
        self, benchmark: AnyBenchmark, config: ScoringConfig
    ) -> ScoreProtocol | PointProtocol:
        """What the scores will depend on besides the weights."""
        return _student_protocol(benchmark, config)

    def measure(
        self, benchmark: AnyBenchmark, config: ScoringConfig, *, out: Path, device: str
    ) -> Measured:
        """Load the newest checkpoint and score it.

        Raises:
            DataError: If files of the benchmark or the checkpoint are damaged.
            InputError: If files or weights are missing.
        """
        student, meta = load_student(self.run)
        clip = StudentConfig.model_validate(meta["config"]["student"])
        subject = _describe_trained(meta, config.zero_shot)
        how: dict[str, Any] = {"subject": subject, "config": config, "out": out}
        return _score_student(student, clip, benchmark, device, how)


class UntrainedStudent(_SubjectConfig, frozen=True):
    """A student before training."""

    kind: Literal["untrained"] = "untrained"
    student: StudentConfig
    """Its geometry."""
    seed: int = 0
    """Its seed, as its training run has it."""

    @property
    def name(self) -> str:
        """Its name in reports."""
        return "untrained student"

    def check(self) -> None:
        """Refuse missing weights of CLIP.

        Raises:
            InputError: If they are not there; says what to do.
        """
        self.student.check()

    def describe(self) -> Subject:
        """Describe what is scored; equal fingerprints stand for equal weights.

        Raises:
            InputError: If weights are missing.
        """
        clip = weights_identity(self.student.clip, self.student.revision)
        return Subject(
            kind="untrained",
            name=self.name,
            fingerprint=digest([clip, self.student, self.seed]),
            details={"seed": str(self.seed)},
        )

    def protocol(
        self, benchmark: AnyBenchmark, config: ScoringConfig
    ) -> ScoreProtocol | PointProtocol:
        """What the scores will depend on besides the weights."""
        return _student_protocol(benchmark, config)

    def measure(
        self, benchmark: AnyBenchmark, config: ScoringConfig, *, out: Path, device: str
    ) -> Measured:
        """Build it and score it.

        Raises:
            DataError: If files of the benchmark are damaged.
            InputError: If files or weights are missing.
        """
        import torch

        from models.student.zegclip import ZegClip

        torch.manual_seed(derive_seed("student", self.seed))
        how: dict[str, Any] = {"subject": self.describe(), "config": config, "out": out}
        return _score_student(
            ZegClip.from_config(self.student), self.student, benchmark, device, how
        )


class Baseline(_SubjectConfig, frozen=True):
    """A labeller: what makes the masks of a dataset, asked about a benchmark."""

    kind: Literal["baseline"] = "baseline"
    labeller: AnyLabellerConfig
    """Finds the classes and cuts them out."""

    @property
    def name(self) -> str:
        """Its name in reports."""
        kind = self.labeller.kind
        return "detector + segmenter" if kind == "grounded" else kind

    def check(self) -> None:
        """Refuse missing weights.

        Raises:
            InputError: If some are not there; says what to do.
        """
        for config in parts_of(self.labeller).values():
            config.check()

    def describe(self) -> Subject:
        """Describe what is scored; equal fingerprints stand for equal weights and settings.

        Raises:
            InputError: If weights are missing.
        """
        return Subject(
            kind="baseline",
            name=self.name,
            fingerprint=digest(labeller_identity(self.labeller)),
            details=dict(self._details()),
        )

    def _details(self) -> Iterator[tuple[str, str]]:
        """Weights and thresholds, as far as the kinds have them."""
        for role, config in parts_of(self.labeller).items():
            yield role.value, str(getattr(config, "model", config.kind))
            for name, value in config:
                if name.endswith("_threshold") and isinstance(value, float):
                    yield name.replace("_", " "), f"{value:g}"

    def protocol(
        self, benchmark: AnyBenchmark, config: ScoringConfig
    ) -> ScoreProtocol | PointProtocol:
        """What the scores will depend on besides the labeller."""
        if isinstance(benchmark, OpenImages):
            return baseline_point_protocol(benchmark, config)
        return baseline_protocol(benchmark, config)

    def measure(
        self, benchmark: AnyBenchmark, config: ScoringConfig, *, out: Path, device: str
    ) -> Measured:
        """Load it and score it.

        Raises:
            DataError: If files of the benchmark are damaged.
            InputError: If files or weights are missing.
        """
        labeller = build_labeller(on_device(self.labeller, {"device": device}))
        how: dict[str, Any] = {"subject": self.describe(), "config": config, "out": out}
        if isinstance(benchmark, OpenImages):
            return score_baseline_points(labeller, benchmark, **how)
        return score_baseline(labeller, benchmark, **how)


class ClosedSetRun(_SubjectConfig, frozen=True):
    """The segmenter of a closed-set run."""

    kind: Literal["closed-set"] = "closed-set"
    run: str
    """Folder of the run."""

    @property
    def name(self) -> str:
        """Its name in reports."""
        return Path(self.run).name

    def check(self) -> None:
        """Check nothing: training comes first."""

    def describe(self) -> Subject:
        """Describe what is scored.

        Raises:
            DataError: If the run's record is damaged.
            InputError: If the run is not over.
        """
        return _describe_closed_set(read_closed_set_record(Path(self.run)))

    def protocol(
        self, benchmark: AnyBenchmark, config: ScoringConfig
    ) -> ScoreProtocol | PointProtocol:
        """What the scores will depend on besides the weights.

        Raises:
            InputError: If the benchmark has points and no label maps.
        """
        record = read_closed_set_record(Path(self.run))
        return closed_set_protocol(
            _with_labels(benchmark),
            config,
            view=view_of(record),
            num_classes=len(record.closed_set.names),
        )

    def measure(
        self, benchmark: AnyBenchmark, config: ScoringConfig, *, out: Path, device: str
    ) -> Measured:
        """Load the network and score it.

        Raises:
            DataError: If files of the benchmark or the run are damaged.
            InputError: If files are missing, or the benchmark has points and no label maps.
        """
        labelled = _with_labels(benchmark)
        place = pick_device(device)
        network, record = load_closed_set(Path(self.run))
        predictor = ClosedSetPredictor(
            network.to(place), record.closed_set, labelled.classes, view_of(record), place
        )
        subject = _describe_closed_set(record)
        return score_closed_set(predictor, labelled, subject=subject, config=config, out=out)


AnySubject = Annotated[
    TrainedStudent | UntrainedStudent | Baseline | ClosedSetRun, Field(discriminator="kind")
]
"""Whatever can be scored."""


def _describe_trained(meta: dict[str, Any], zero_shot: str | None = None) -> Subject:
    """Describe a trained student; for a split also what it knows of the unseen classes."""
    details = {"steps": str(meta["step"]), "seed": str(meta["config"]["seed"])}
    if left_out := meta.get("left_out"):
        details["trained without"] = ", ".join(left_out)
        if meta["config"]["zero_shot"]["transductive"]:
            details["trained without"] += " (names without masks in the second half)"
    if zero_shot is not None:
        known = trained_unseen(load_zero_shot(zero_shot), left_out or ())
        details["unseen classes that it was trained on"] = ", ".join(known) or "none"
    return Subject(
        kind="student",
        name="student",
        fingerprint=f"{meta['fingerprint']}@{meta['step']}",
        details=details,
    )


def _student_protocol(
    benchmark: AnyBenchmark, config: ScoringConfig
) -> ScoreProtocol | PointProtocol:
    if isinstance(benchmark, OpenImages):
        return student_point_protocol(benchmark, config)
    return student_protocol(benchmark, config)


def _score_student(
    student: Any, clip: StudentConfig, benchmark: AnyBenchmark, device: str, how: dict[str, Any]
) -> Measured:
    from models.student.text_embeddings import TextEncoder

    place = pick_device(device)
    encoder = TextEncoder.load(clip.clip, clip.revision).to(place)
    if isinstance(benchmark, OpenImages):
        return score_student_points(student.to(place), encoder, benchmark, **how)
    return score_student(student.to(place), encoder, benchmark, **how)


def _describe_closed_set(record: TrainedSet) -> Subject:
    return Subject(
        kind="closed-set",
        name=f"{record.config.name} on {record.closed_set.name}",
        fingerprint=record.fingerprint,
        details={
            "steps": str(record.config.steps),
            "images": str(record.num_samples),
            "seed": str(record.config.seed),
        },
    )


def view_of(record: TrainedSet) -> ViewConfig:
    """At which size a closed-set network is shown an image."""
    config = record.config
    return ViewConfig(short_side=config.short_side, long_side=config.long_side, window=None)


def _with_labels(benchmark: AnyBenchmark) -> Benchmark:
    if isinstance(benchmark, OpenImages):
        message = "open_images has answers at points, expected label maps: choose another benchmark"
        raise InputError(message)
    return benchmark
