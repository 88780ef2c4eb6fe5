"""Scores: one subject on one benchmark, in a process of its own.

`python -m tasks.scores --config job.json` is that process.
"""

import sys
from pathlib import Path
from typing import Any, Literal

from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.benchmarks.open_images import OpenImages
from evaluation.scoring.config import ScoringConfig
from evaluation.scoring.measured import Measured
from evaluation.scoring.on_labels import score_baseline, score_student
from evaluation.scoring.on_points import score_baseline_points, score_student_points
from evaluation.scoring.results import Subject
from models.devices import pick_device
from models.labelling.config import DetectorConfig, SegmenterConfig
from models.labelling.detectors import GroundingDino
from models.labelling.segmenters import Sam
from models.student.config import StudentConfig
from models.student.text_embeddings import TextEncoder
from models.student.trained import load_student
from models.student.zegclip import ZegClip
from models.weights import weights_identity
from storage.identity import derive_seed, digest
from tasks.measuring import measure_in_child, run_document

Kind = Literal["student", "untrained", "baseline"]


class ScoreJob(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What is scored, on what, and how."""

    kind: Kind
    """A trained student, the same student before training, or the detector with the segmenter."""
    run: str
    """Folder of the training run; the scores go to `scores` below it."""
    seed: int = 0
    """Seed of the untrained student, as its training run has it."""
    student: StudentConfig
    """The student's geometry."""
    detector: DetectorConfig
    """Of the baseline."""
    segmenter: SegmenterConfig
    """Of the baseline."""
    benchmark: BenchmarkConfig
    """Images and truth."""
    scoring: ScoringConfig
    """How it is scored."""
    device: str = "auto"
    """Where it runs."""

    @property
    def folder(self) -> Path:
        """Where the scores go: a folder for each benchmark folder and way of scoring."""
        settings = digest([self.benchmark, self.scoring])[:8]
        return Path(self.run).expanduser() / "scores" / settings


def describe_subject(job: ScoreJob) -> Subject:
    """Say what a job scores; equal fingerprints stand for equal weights and settings.

    Raises:
        InputError: If weights or the checkpoint are missing.
    """
    details: dict[str, str] = {"seed": str(job.seed)}
    if job.kind == "student":
        _, meta = load_student(job.run)
        weights = f"{meta['fingerprint']}@{meta['step']}"
        details = {"steps": str(meta["step"]), "seed": str(meta["config"]["seed"])}
    elif job.kind == "untrained":
        clip = weights_identity(job.student.clip, job.student.revision)
        weights = digest([clip, job.student, job.seed])
    else:
        weights = digest([job.detector.identity(), job.segmenter.identity()])
        details = {"detector": job.detector.model, "segmenter": job.segmenter.model}
        details |= {
            "box threshold": f"{job.detector.box_threshold:g}",
            "text threshold": f"{job.detector.text_threshold:g}",
        }
    names = {"student": "student", "untrained": "untrained student"}
    name = names.get(job.kind, "detector + segmenter")
    return Subject(kind=job.kind, name=name, fingerprint=weights, details=details)


def run_job(job: ScoreJob) -> Measured:
    """Score a subject in this process.

    Raises:
        DataError: If files of the benchmark or the checkpoint are damaged.
        InputError: If files or weights are missing.
    """
    benchmark = open_benchmark(job.benchmark)
    how: Any = {"subject": describe_subject(job), "config": job.scoring, "out": job.folder}
    if job.kind == "baseline":
        detector = GroundingDino(job.detector.model_copy(update={"device": job.device}))
        segmenter = Sam(job.segmenter.model_copy(update={"device": job.device}))
        if isinstance(benchmark, OpenImages):
            return score_baseline_points(detector, segmenter, benchmark, **how)
        return score_baseline(detector, segmenter, benchmark, **how)
    device = pick_device(job.device)
    student = _student(job).to(device)
    encoder = TextEncoder.load(job.student.clip, job.student.revision).to(device)
    if isinstance(benchmark, OpenImages):
        return score_student_points(student, encoder, benchmark, **how)
    return score_student(student, encoder, benchmark, **how)


def _student(job: ScoreJob) -> ZegClip:
    if job.kind == "student":
        return load_student(job.run)[0]
    import torch

    torch.manual_seed(derive_seed("student", job.seed))
    return ZegClip.from_config(job.student)


@task(
    name="score",
    task_run_name="score {job.kind} on {job.benchmark.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def score(job: ScoreJob) -> Any:
    """Score a subject in a process of its own.

    Returns:
        The scores; in a state named ``Cached`` if they were measured before.

    Raises:
        ChildFailedError: If scoring ended with an error.
        InputError: If files or weights are missing.
    """
    open_benchmark(job.benchmark).check()
    subject = describe_subject(job)
    document = f"job-{job.kind}-{job.benchmark.name}.json"
    return measure_in_child("tasks.scores", job, subject, document)


def main(arguments: list[str] | None = None) -> int:
    """Run the job of a JSON file; returns the exit code."""
    return run_document(ScoreJob, run_job, "python -m tasks.scores", arguments)


if __name__ == "__main__":
    sys.exit(main())
