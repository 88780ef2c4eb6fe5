"""What was measured: scores on label maps or on single points, as files hold them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from evaluation.scoring.point_results import PointProtocol, PointScores
from evaluation.scoring.results import ScoreProtocol, Scores
from storage.documents import explain
from storage.errors import DataError, InputError

Measured = Scores | PointScores

Protocol = ScoreProtocol | PointProtocol

_FILE: TypeAdapter[Measured] = TypeAdapter(Annotated[Measured, Field(discriminator="measure")])


def read_measured(path: Path) -> Measured:
    """Read scores of either kind.

    Raises:
        InputError: If there is no such file.
        DataError: If it holds something else.
    """
    try:
        return _FILE.validate_json(path.read_bytes())
    except FileNotFoundError as error:
        message = f"{path} does not exist, expected a scores file: evaluate first"
        raise InputError(message) from error
    except ValidationError as error:
        message = f"{path} holds no scores ({explain(None, error)}): evaluate again"
        raise DataError(message) from error


def headline(scores: Measured) -> tuple[str, float]:
    """The metric that stands for scores, and its value in [0, 1]."""
    if isinstance(scores, PointScores):
        return "p-mIoU", scores.p_miou
    return "mIoU", scores.miou


def on_labels(measured: Sequence[Measured]) -> list[Scores]:
    """Those on label maps."""
    return [scores for scores in measured if isinstance(scores, Scores)]


def on_points(measured: Sequence[Measured]) -> list[PointScores]:
    """Those on single points."""
    return [scores for scores in measured if isinstance(scores, PointScores)]
