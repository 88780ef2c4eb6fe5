"""What a report says, whatever it is written in."""

from collections.abc import Mapping
from dataclasses import dataclass

from evaluation.reports.boards import Board
from evaluation.reports.close_ups import CloseUps, WithoutImages
from evaluation.reports.costs import CostTable
from evaluation.reports.dataset_facts import DatasetFacts
from evaluation.reports.gallery import ClassChip, QuadrupletCard
from evaluation.reports.left_out import LeftOut
from evaluation.reports.point_boards import PointBoard
from evaluation.reports.predictions import Prediction
from evaluation.reports.tiles import Tile
from evaluation.reports.training_curves import TrainingCurves
from evaluation.reports.two_runs import TwoRuns


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
        close_ups: Single images, class by class.
        without_images: Scores of which no single image is known.
        left_out: Exclusions; none for a report about runs alone.
        costs: What was recorded of money and seconds.
        two_runs: The run and another one side by side, if that was asked for.
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
    close_ups: list[CloseUps]
    without_images: WithoutImages
    left_out: LeftOut | None
    costs: list[CostTable]
    two_runs: TwoRuns | None
    trainings: list[TrainingCurves]
