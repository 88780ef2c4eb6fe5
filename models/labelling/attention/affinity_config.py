"""Settings of a network of affinities; nothing here needs torch."""

from pydantic import BaseModel, Field, field_validator

_GROUP = 8


class AffinityNetConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """A network that says how likely two places of an image have one label.

    Radius and embeddings are AffinityNet's (Ahn and Kwak, CVPR 2018, as DiffuMask uses it). Its
    ResNet-38 is not: this encoder is small and learns from nothing, on the images that the seeds
    are of.
    """

    stride: int = Field(default=8, ge=1, le=32)
    """Pixels a cell of the grid, a power of 2; 8 for images of 512 pixels, 2 for 64."""
    widths: tuple[int, int, int] = (64, 128, 256)
    """Features of the three stages of the encoder, multiples of 8 from 16 on."""
    embeddings: tuple[int, int, int] = (64, 128, 256)
    """What each stage gives to the embedding of a cell."""
    radius: int = Field(default=5, ge=2, le=16)
    """Cells whose distance is below it are compared."""

    @field_validator("stride")
    @classmethod
    def _check_stride(cls, stride: int) -> int:
        if stride & (stride - 1):
            message = f"stride is {stride}, expected a power of 2"
            raise ValueError(message)
        return stride

    @field_validator("widths", "embeddings")
    @classmethod
    def _check_widths(cls, widths: tuple[int, int, int]) -> tuple[int, int, int]:
        if any(width < 2 * _GROUP or width % _GROUP for width in widths):
            message = f"widths are {list(widths)}, expected multiples of {_GROUP} from 16 on"
            raise ValueError(message)
        return widths
