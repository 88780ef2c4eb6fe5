"""The recipe: how samples are made."""

from typing import Any, Self

from pydantic import BaseModel, model_validator

from models.attention_maps import MapsWanted
from models.labellers import maps_wanted, parts_of
from models.painting.config import PainterConfig
from models.profiles import Profile
from models.registry import Role
from storage.errors import InputError
from tasks.rules import (
    DetectionRules,
    MaskRules,
    OtherRules,
    PairRules,
    PromptRules,
    TwinRules,
)


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
    others: OtherRules = OtherRules()
    """Whether images are looked through for objects that nobody asked for."""

    @property
    def looks_for_others(self) -> bool:
        """Whether images are looked through for objects of classes that nobody asked for."""
        return self.others.way != "none"

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

    @model_validator(mode="after")
    def _look_at_pictures(self) -> Self:
        if not self.looks_for_others:
            return self
        labeller = self.profile.labeller
        if maps_wanted(labeller) is not None:
            message = (
                f"others.way is {self.others.way!r} with a labeller of the kind {labeller.kind!r}, "
                "which knows the classes alone that its painter was asked for; expected one that "
                "looks at pictures, such as 'grounded', or others.way 'none'"
            )
            raise InputError(message)
        parts = {role: config.device for role, config in parts_of(labeller).items()}
        if self.others.nearest:
            parts[Role.SCOUT] = self.profile.scouting.device
        if len(set(parts.values())) > 1:
            found = ", ".join(f"{role} {device}" for role, device in parts.items())
            message = (
                f"others.way is {self.others.way!r}, and its models are on several devices "
                f"({found}), expected one: it is held for all of them"
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
        models.pop(Role.SCOUT, None)
        if self.paints_over:
            models[Role.INPAINTER] = self.profile.inpainting
        if self.looks_for_others and self.others.nearest:
            models[Role.SCOUT] = self.profile.scouting
        return models
