"""Settings of a training of affinities; nothing here needs torch."""

from typing import Any

from pydantic import BaseModel, Field, model_validator

from models.labelling.attention.affinity_config import AffinityNetConfig


class AffinityConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """One training; the defaults are those of DiffuMask where it has them.

    There every layer but the encoder's learns at 10 times the rate of .01, and biases at twice
    that; here all layers are new.
    """

    network: AffinityNetConfig = AffinityNetConfig()
    """What is trained."""
    epochs: int = Field(default=8, ge=1)
    """How often each image is shown."""
    batch_size: int = Field(default=8, ge=1)
    """Images an update."""
    learning_rate: float = Field(default=0.1, gt=0)
    """Of weights at the first update; biases and normalisations learn at twice that."""
    power: float = Field(default=0.9, gt=0)
    """Exponent of the polynomial fall to 0."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of SGD."""
    weight_decay: float = Field(default=5e-4, ge=0)
    """Of weights; biases and normalisations have none."""
    crop: int = Field(default=448, ge=8)
    """Side of the square crops in pixels, a multiple of the network's stride."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Share of mirrored images."""
    brightness: float = Field(default=0.3, ge=0, lt=1)
    """Levels are multiplied by up to 1 plus or minus this."""
    contrast: float = Field(default=0.3, ge=0, lt=1)
    """Contrast is multiplied by up to 1 plus or minus this."""
    saturation: float = Field(default=0.3, ge=0, lt=1)
    """Saturation is multiplied by up to 1 plus or minus this."""
    hue: float = Field(default=0.1, ge=0, le=0.5)
    """Hue is turned by up to this part of the circle, either way."""
    seed: int = Field(default=0, ge=0)
    """Seed of every random choice."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1` ...; `auto` takes CUDA where there is one."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Updates between checkpoints."""
    log_every: int = Field(default=50, ge=1)
    """Updates between lines of the log."""

    @model_validator(mode="after")
    def _check_crop(self) -> "AffinityConfig":
        if self.crop % self.network.stride:
            message = (
                f"crop is {self.crop}, expected a multiple of network.stride, which is "
                f"{self.network.stride}"
            )
            raise ValueError(message)
        return self

    def identity(self) -> dict[str, Any]:
        """Fields that decide the weights that come out; machine and logging are left out."""
        return self.model_dump(mode="json", exclude={"device", "checkpoint_every", "log_every"})
