"""The recipe: how samples are made."""

from typing import Any

from pydantic import BaseModel

from models.profiles import Profile
from models.registry import Role
from tasks.rules import DetectionRules, MaskRules, PairRules, PromptRules, TwinRules


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
    twins: TwinRules = TwinRules()
    """How counterfactual images are made."""

    @property
    def paints_over(self) -> bool:
        """Whether counterfactuals are images with their objects painted over."""
        return self.twins.way == "inpaint"

    def models(self) -> dict[Role, Any]:
        """The configurations of all models that its samples need, in the order of their work.

        Raises:
            InputError: If nothing in the profile can paint objects over, and that is wanted.
        """
        models = self.profile.models()
        models.pop(Role.INPAINTER, None)
        return {**models, Role.INPAINTER: self.profile.inpainting} if self.paints_over else models
