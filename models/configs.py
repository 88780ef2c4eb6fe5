"""What every configuration of a network has in common: weights, arithmetic, device, batch size."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from models.weights import weights_identity


class ModelConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Which weights a model has and how it runs."""

    model: str
    """Hub id, path of a folder, or `weights:<name>` for weights that ship with the engine."""
    revision: str | None = None
    """Commit or tag of the hub repository; needed for a hub id, without meaning for a folder."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Arithmetic and storage of the weights."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1` ...; `auto` takes CUDA where there is one."""
    batch_size: int = Field(8, ge=1)
    """How many inputs go through the network at once."""

    def identity(self) -> dict[str, Any]:
        """Say what the outputs depend on: every field but device and batch size, and the weights.

        Raises:
            InputError: If the weights are missing or their revision is not given.
        """
        fields = self.model_dump(mode="json", exclude={"device", "batch_size", "model", "revision"})
        return {"weights": weights_identity(self.model, self.revision), **fields}
