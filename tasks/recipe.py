"""The recipe: how samples are made."""

from typing import Any, Self

from pydantic import BaseModel, model_validator

from models.attention_maps import MapsWanted
from models.labellers import maps_wanted
from models.painting.config import PainterConfig
from models.profiles import Profile
from models.registry import Role
from storage.errors import InputError
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

    @property
    def paints_images_alone(self) -> bool:
        """Whether counterfactuals are made once their images have passed."""
        return self.twins.way != "paint"

    @property
    def maps_wanted(self) -> MapsWanted | None:
        """What is recorded of the painter's attention; None for nothing."""
        return self.pairs.record or maps_wanted(self.profile.labeller)

    def check_recording(self) -> None:
        """Look whether the painter has the attention that is recorded, without loading it.

        Raises:
            InputError: If it has not.
        """
        wanted, painter = self.maps_wanted, self.profile.painter
        if wanted is not None and isinstance(painter, PainterConfig):
            painter.check_maps(wanted)

    @model_validator(mode="after")
    def _paint_what_is_read(self) -> Self:
        recorded, read = self.maps_wanted, maps_wanted(self.profile.labeller)
        if self.paints_images_alone and recorded is not None:
            message = (
                f"twins.way is {self.twins.way!r} where the painter's attention is recorded, which "
                "is done where pairs are painted; expected 'paint', or no pairs.record and a "
                "labeller such as 'grounded'"
            )
            raise InputError(message)
        if recorded is not None and read is not None and not recorded.holds(read):
            message = (
                f"pairs.record is {recorded.identity()}, and a labeller of the kind "
                f"{self.profile.labeller.kind!r} reads {read.identity()}; expected all of that in "
                "pairs.record, or null"
            )
            raise InputError(message)
        return self

    def models(self) -> dict[Role, Any]:
        """The configurations of all models that its samples need, in the order of their work.

        Raises:
            InputError: If nothing in the profile can paint objects over, and that is wanted.
        """
        models = self.profile.models()
        models.pop(Role.INPAINTER, None)
        return {**models, Role.INPAINTER: self.profile.inpainting} if self.paints_over else models
