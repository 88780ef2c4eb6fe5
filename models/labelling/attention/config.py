"""Settings of the labellers that read a painter's attention; nothing here needs torch."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Discriminator, Field, model_validator

from models.attention_maps import MapsWanted
from models.labelling.attention.affinity_config import read_affinity_record
from models.labelling.config import DetectorConfig, MmGroundingDinoConfig, Owlv2Config

__all__ = ["DatasetDiffusionConfig", "DiffuMaskConfig"]

PresenceDetector = Annotated[
    DetectorConfig | MmGroundingDinoConfig | Owlv2Config, Discriminator("kind")
]
Refinement = Literal["none", "grabcut", "crf"]


class AttentionConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What labellers have in common that read masks from a painter's attention.

    Attention is spread over a picture whether a class was drawn or not, so something has to say
    which classes are there: a detector, or the attention itself before it is stretched.
    """

    detector: PresenceDetector | None = None
    """Finds the classes in the pictures, as in the labeller `grounded`; empty means that
    `min_presence` says what is there."""
    min_presence: float | None = Field(None, gt=0, lt=1)
    """Without a detector: a class is in a picture if some cell attends to its name with at least
    this probability at every resolution that is read, among the names of the sample's classes and
    what encloses them. It depends on the painter, and tells less than a detector does."""
    refine: Refinement = "none"
    """What fits masks to the picture's edges: `grabcut`, `crf` (a dense conditional random field),
    or nothing."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1` ...; `auto` takes CUDA where there is one."""
    batch_size: int = Field(8, ge=1)
    """How many pictures are labelled at once."""

    @model_validator(mode="after")
    def _know_what_is_there(self) -> Self:
        if (self.detector is None) == (self.min_presence is None):
            given = "neither" if self.detector is None else "both"
            message = f"detector and min_presence: {given} given, expected one of them"
            raise ValueError(message)
        return self

    def identity(self) -> dict[str, Any]:
        """Say what the masks depend on."""
        fields = self.model_dump(mode="json", exclude={"device", "batch_size", "detector"})
        detector = None if self.detector is None else self.detector.identity()
        return {**fields, "detector": detector}

    def check(self) -> str:
        """Look for the detector's weights without loading them; say where they are.

        Raises:
            InputError: If they are missing.
        """
        return self.detector.check() if self.detector else "reads the painter's attention"


class DiffuMaskConfig(AttentionConfig, frozen=True):
    """Masks from where the painter looked for the words of a class (DiffuMask, arXiv 2303.11681).

    The class map is the mean over resolutions of each word's attention, stretched to its own
    maximum; it is cut at a threshold of each picture's own.
    """

    kind: Literal["diffumask"] = "diffumask"
    """Tells this labeller from others."""
    cross_resolutions: dict[Annotated[int, Field(ge=1)], Annotated[float, Field(ge=0)]] = Field(
        default_factory=lambda: {8: 0.0, 16: 1.0, 32: 1.0, 64: 1.0}, min_length=1
    )
    """Resolutions of attention, and how much each counts. The paper's code has others for some
    classes: those are taken instead where all of them are named here, if only with 0."""
    threshold: float | Literal["adaptive"] = "adaptive"
    """Where the class map is cut, from 0 to 1; `adaptive` finds it in each picture, with the
    constants that the paper's code has for the class."""

    affinity: str | None = None
    """Folder of a network of affinities (`magicseg train-affinity`): masks walk along it over what
    looks alike, and the threshold is the one whose mask agrees best with the walk, each fitted by a
    dense random field, as in the paper. `threshold` and `refine` have no part in that."""
    walk_power: float = Field(16.0, gt=0)
    """Exponent of each affinity in that walk."""
    walk_doublings: int = Field(8, ge=0, le=12)
    """The walk has two to the power of this many steps."""
    walk_background: float = Field(0.45, gt=0, lt=1)
    """Map of the background in that walk, the same everywhere."""

    def identity(self) -> dict[str, Any]:
        """Say what the masks depend on; the affinities count by their weights.

        Raises:
            InputError: If their folder holds none.
        """
        fields = super().identity()
        if self.affinity is None:
            unused = ("affinity", "walk_power", "walk_doublings", "walk_background")
            return {name: each for name, each in fields.items() if name not in unused}
        return fields | {"affinity": read_affinity_record(self.affinity).weights_sha256}

    def check(self) -> str:
        """Look for weights without loading them; say where they are.

        Raises:
            InputError: If some are missing.
        """
        found = super().check()
        if self.affinity is not None:
            read_affinity_record(self.affinity)
            found += f"; affinities in {self.affinity}"
        return found

    def wanted(self) -> MapsWanted:
        """What is to be recorded while pictures are painted."""
        return MapsWanted(
            mentions=True,
            class_prompt=self.detector is None,
            cross=tuple(sorted(self.cross_resolutions)),
            cells=None,
        )


class DatasetDiffusionConfig(AttentionConfig, frozen=True):
    """Masks from class-prompt attention, spread by self-attention (Dataset Diffusion, 2309.14303).

    The painter is asked where it would look for the class names alone; how its cells attend to
    each other carries that over to the rest of each object.
    """

    kind: Literal["dataset-diffusion"] = "dataset-diffusion"
    """Tells this labeller from others."""
    words: Literal["class-prompt", "mentions"] = "class-prompt"
    """Whose attention is read: that of the class names alone, or of their mentions in the text."""
    cross_resolution: int = Field(16, ge=1)
    """Resolution of the attention to words."""
    cell_resolution: int | None = Field(32, ge=1)
    """Resolution of the attention of cells to cells; empty means that it is not used."""
    power: int = Field(4, ge=0, le=16)
    """How often attention is passed on from cell to cell (tau in the paper)."""
    foreground: float = Field(0.6, gt=0, lt=1)
    """From this value of the class map on, a pixel is the class that has the highest."""
    uncertain: float = Field(0.5, gt=0, lt=1)
    """From this value on, up to `foreground`, a pixel is ignored; below, it is background."""

    @model_validator(mode="after")
    def _order_thresholds(self) -> Self:
        if self.uncertain > self.foreground:
            message = (
                f"uncertain is {self.uncertain:g}, expected at most foreground, which is "
                f"{self.foreground:g}"
            )
            raise ValueError(message)
        return self

    def wanted(self) -> MapsWanted:
        """What is to be recorded while pictures are painted."""
        mentions = self.words == "mentions"
        return MapsWanted(
            mentions=mentions,
            class_prompt=not mentions or self.detector is None,
            cross=(self.cross_resolution,),
            cells=self.cell_resolution,
        )
