"""The recipe: how samples are made."""

from pydantic import BaseModel

from models.profiles import Profile
from tasks.rules import DetectionRules, MaskRules, PairRules, PromptRules


class Recipe(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """How samples are made: models, and what passes."""

    profile: Profile
    """Vocabulary, models, revisions and their parameters."""
    prompts: PromptRules = PromptRules()
    """When a text is good enough."""
    pairs: PairRules = PairRules()
    """When a pair of images is good enough."""
    detections: DetectionRules = DetectionRules()
    """When the detector has found what was asked for."""
    masks: MaskRules = MaskRules()
    """When a mask is good enough."""
