"""Settings of the scout; nothing here needs torch."""

from typing import Literal, Self

from pydantic import Field

from models.configs import ModelConfig
from models.student.config import StudentConfig


class ClipScoutConfig(ModelConfig, frozen=True):
    """A CLIP that says which classes parts of an image are like.

    It looks at square windows of the image, one by one. CLIP was trained on whole pictures: its
    vector of a window tells small things from each other where single patch tokens of its last
    layer do not (`benchmarks.others` has both).
    """

    kind: Literal["clip"] = "clip"
    """Tells this scout from others."""
    windows: int = Field(default=3, ge=1, le=16)
    """Windows along each side of the image, evenly spread, with overlap if need be."""
    window: float = Field(default=0.5, gt=0, le=1)
    """Side of a window, as a share of the image's shorter side."""
    templates: str = "single"
    """Template set of the class texts."""

    @classmethod
    def of_student(cls, student: StudentConfig, device: str, batch_size: int) -> Self:
        """The frozen CLIP of a student.

        Args:
            student: Names the CLIP.
            device: Where it computes.
            batch_size: Windows that go through the network at once.
        """
        return cls(
            model=student.clip, revision=student.revision, device=device, batch_size=batch_size
        )
