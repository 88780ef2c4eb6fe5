"""How a student is scored."""

from pydantic import Field

from evaluation.scoring.metrics import Average
from evaluation.scoring.phrases import TextConfig
from evaluation.scoring.points import PointRules
from evaluation.scoring.predictors import InferenceConfig


class ScoringConfig(TextConfig, frozen=True):
    """How a student is scored."""

    preset: str | None = None
    """A published protocol whose settings these are; what differs from it is printed with every
    number. Run parameters and the command line fill in everything that they do not set."""
    inference: InferenceConfig = InferenceConfig()
    """Windows, background rule and threshold."""
    average: Average = Average.OCCURRING
    """Which classes the mean is taken over: those in the truth or the prediction (`occurring`),
    those in the truth (`true`), or `all`, one that occurs nowhere counting 0."""
    thresholds: tuple[float, ...] = Field(
        default=tuple(round(0.05 * step, 2) for step in range(1, 20)), max_length=255
    )
    """Background thresholds of the curve, ascending; only for class sets with background. On points
    the thresholds of the point rules' curve."""
    num_examples: int = Field(default=8, ge=0)
    """Images whose label maps are kept for the report, evenly spread over the split."""
    points: PointRules = PointRules()
    """How answers at points become one number."""
