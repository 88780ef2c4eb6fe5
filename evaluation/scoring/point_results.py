"""Results on single points, as files hold them."""

from typing import Literal

from evaluation.scoring.points import Aggregate, Binarise, Candidates
from evaluation.scoring.results import PublishedResult, Subject, slug
from storage.records import Record


class PointProtocol(Record, frozen=True):
    """Everything that a number depends on besides the weights."""

    benchmark: str
    """Class set of the benchmark."""
    split: str
    """Part of the benchmark."""
    num_images: int
    """Images with a yes or a no; those without a candidate are not shown."""
    coverage: str = ""
    """Which share of the images that is, if some are not there."""
    num_classes: int
    """Classes with a yes or a no in the split."""
    candidates: Candidates
    """Which classes are asked for in an image."""
    binarise: Binarise
    """What is compared with the threshold."""
    threshold: float
    """The threshold."""
    strict: bool
    """Whether a value equal to the threshold is not predicted."""
    aggregate: Aggregate
    """What the headline's mean is taken over."""
    with_background: bool
    """Whether the headline averages foreground and background IoU."""
    scores: str
    """What a class's map holds."""
    text: str
    """How a class name becomes text."""
    view: str
    """At which size and in which windows an image is shown."""
    preset: str
    """The published protocol that was followed; empty if none was named."""
    preset_changes: tuple[str, ...]
    """Settings that differ from it."""
    preset_omits: tuple[str, ...]
    """What is left out of the original, or done differently."""


class PointAverage(Record, frozen=True):
    """One way to average."""

    aggregate: Aggregate
    """What the mean is taken over."""
    with_background: bool
    """Whether each IoU is the mean of foreground and background."""
    p_miou: float | None
    """The mean in [0, 1]; none if nothing has an IoU."""
    count: int
    """Classes or pairs that have an IoU."""


class PointCurvePoint(Record, frozen=True):
    """The headline at another threshold."""

    threshold: float
    """The threshold."""
    p_miou: float | None
    """The mean in [0, 1]; none if nothing has an IoU."""


class PointClass(Record, frozen=True):
    """One class, summed over the images in which it was a candidate."""

    label: str
    """What Open Images knows it by."""
    name: str
    """Its display name."""
    iou: float | None
    """Foreground IoU in [0, 1]; none if no point counts."""
    hits: int
    """Yes-points predicted."""
    alarms: int
    """No-points predicted."""
    misses: int
    """Yes-points not predicted."""
    rejections: int
    """No-points not predicted."""


class AnswerCounts(Record, frozen=True):
    """The answers in the images."""

    yes: int
    """Points on their class."""
    no: int
    """Points not on their class."""
    unsure: int
    """Left out: people were unsure."""
    unnamed: int
    """Left out: the question was no class but free text."""


class PointScores(Record, frozen=True):
    """The scores of a subject on single points."""

    measure: Literal["points"] = "points"
    """Tells these scores from those on label maps."""
    subject: Subject
    """What was scored."""
    protocol: PointProtocol
    """How."""
    p_miou: float
    """The headline, in [0, 1]."""
    averages: tuple[PointAverage, ...]
    """Every way to average, at the same threshold."""
    classes: tuple[PointClass, ...]
    """The classes that were candidates somewhere, by label."""
    answers: AnswerCounts
    """What the points are; of the candidates' points alone the counts of the classes tell."""
    curve: tuple[PointCurvePoint, ...]
    """The headline at other thresholds, from the same pass."""
    published: tuple[PublishedResult, ...]
    """Published numbers on the same split."""
    benchmark_digest: str = ""
    """Digest of the benchmark's files, see `Benchmark.contents`; empty in older files."""
    seconds: float
    """Wall time of the pass."""
    created: str
    """UTC time, ISO 8601."""
    engine_version: str
    """Version of the code."""

    @property
    def file_name(self) -> str:
        """Name of the file that holds these scores."""
        parts = (self.protocol.benchmark, self.protocol.split, self.subject.name)
        return "-".join(("scores", *map(slug, parts))) + ".json"
