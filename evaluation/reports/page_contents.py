"""What a report says, whatever it is written in."""

from collections.abc import Mapping
from dataclasses import dataclass

from evaluation.reports.boards import Board
from evaluation.reports.dataset_facts import DatasetFacts
from evaluation.reports.gallery import ClassChip, QuadrupletCard
from evaluation.reports.point_boards import PointBoard
from evaluation.reports.predictions import Prediction
from evaluation.reports.tiles import Tile
from evaluation.reports.training_curves import TrainingCurves


@dataclass(frozen=True)
class Page:
    """A report, section by section.

    Attributes:
        title: Heading.
        subtitle: Where the dataset is.
        made: When and by what.
        tiles: The few numbers at the head.
        commands: What makes a section that is missing.
        dataset: Counts; none for a report about runs alone.
        quadruplets: Samples.
        benchmarks: Scores on label maps.
        points: Scores on points.
        predictions: Images with what was predicted.
        prediction_classes: Their legend.
        trainings: Curves.
    """

    title: str
    subtitle: str
    made: str
    tiles: list[Tile]
    commands: Mapping[str, str]
    dataset: DatasetFacts | None
    quadruplets: list[QuadrupletCard]
    benchmarks: list[Board]
    points: list[PointBoard]
    predictions: list[Prediction]
    prediction_classes: list[ClassChip]
    trainings: list[TrainingCurves]
