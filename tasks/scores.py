"""Scores: one subject on one benchmark, in a process of its own.

`python -m tasks.scores --config job.json` is that process.
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any, Literal

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed
from pydantic import BaseModel

from evaluation.benchmarks import BenchmarkConfig, open_benchmark
from evaluation.measured import Measured, read_measured
from evaluation.open_images import OpenImages
from evaluation.point_scores import score_baseline_points, score_student_points
from evaluation.score import ScoringConfig, Subject, score_baseline, score_student
from models.detectors import DetectorConfig, GroundingDino
from models.segmenters import Sam, SegmenterConfig
from models.text_embeddings import TextEncoder
from models.weights import pick_device, weights_identity
from models.zegclip import StudentConfig, ZegClip
from storage.errors import DataError, EngineError, InputError
from storage.identity import derive_seed, digest
from tasks.children import run_child
from training.checkpoints import load_student

_log = logging.getLogger(__name__)

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


def find_scores(job: ScoreJob, subject: Subject) -> Measured | None:
    """Scores of the same subject under the same settings that were measured before.

    A file that cannot be read is no reason to stop: its scores are measured again.
    """
    for path in sorted(job.folder.glob("scores-*.json")):
        try:
            scores = read_measured(path)
        except DataError as error:
            _log.warning("%s", error)
            continue
        if scores.subject == subject:
            return scores
    return None


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
    scores = find_scores(job, subject)
    if scores is not None:
        return Completed(name="Cached", message="measured before", data=scores)
    job.folder.mkdir(parents=True, exist_ok=True)
    path = job.folder / f"job-{job.kind}-{job.benchmark.name}.json"
    path.write_text(job.model_dump_json(indent=1), encoding="utf-8")
    run_child(
        [sys.executable, "-m", "tasks.scores", "--config", str(path)], job.folder, "score.log"
    )
    scores = find_scores(job, subject)
    if scores is None:
        message = f"scoring wrote no scores of {subject.name} into {job.folder}"
        raise InputError(message)
    return scores


def main(arguments: list[str] | None = None) -> int:
    """Run the job of a JSON file; returns the exit code: 0 done, 2 for anything to be changed."""
    parser = argparse.ArgumentParser(prog="python -m tasks.scores", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="a ScoreJob as JSON")
    path = parser.parse_args(arguments).config
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        run_job(ScoreJob.model_validate_json(path.read_bytes()))
    except EngineError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
