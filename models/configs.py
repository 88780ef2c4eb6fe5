"""What every configuration of a network has in common: weights, arithmetic, device, batch size."""

from typing import Any, ClassVar

from pydantic import BaseModel, Field

from models.arithmetic import Arithmetic
from models.folders import NETWORK_CONFIG
from models.weights import require_weights_of, resolve_weights, weights_identity


class ModelConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Which weights a model has and how it runs.

    Attributes:
        marker: The small file at the root of a checkpoint by which it is known.
        added_later: Fields that older identities do not have; they are left out while they hold
            their default, so that what was made before they existed keeps its key.
        of_the_machine: Fields that say how it runs, not what comes out of it.
    """

    marker: ClassVar[str] = NETWORK_CONFIG
    added_later: ClassVar[frozenset[str]] = frozenset()
    of_the_machine: ClassVar[frozenset[str]] = frozenset({"device", "batch_size"})

    model: str
    """Hub id, path of a folder, or `weights:<name>` for weights that ship with the engine."""
    revision: str | None = None
    """Commit or tag of the hub repository; needed for a hub id, unused for a folder."""
    dtype: Arithmetic = "float32"
    """Arithmetic and storage of the weights. `tf32` is float32 whose matrix products a GPU rounds,
    about twice as fast there; on a CPU it computes what float32 does."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1` ...; `auto` takes CUDA where there is one."""
    batch_size: int = Field(8, ge=1)
    """How many inputs go through the network at once."""

    def identity(self) -> dict[str, Any]:
        """Say what the outputs depend on: the weights, and every field that is not of the machine.

        Raises:
            InputError: If the weights are missing or their revision is not given.
        """
        exclude = {*self.of_the_machine, "model", "revision"}
        defaults = type(self).model_fields
        exclude |= {
            name for name in self.added_later if getattr(self, name) == defaults[name].default
        }
        fields = self.model_dump(mode="json", exclude=exclude)
        return {"weights": self.name_weights(), **fields}

    def name_weights(self) -> str:
        """Name the weights so that equal names mean equal weights.

        Raises:
            InputError: If they are missing or their revision is not given.
        """
        return weights_identity(self.model, self.revision, unneeded=self.unneeded_parts)

    @property
    def unneeded_parts(self) -> frozenset[str]:
        """Parts of the checkpoint that are not loaded, and may be missing."""
        return frozenset()

    def check(self) -> str:
        """Look for the weights without loading them; say where they are.

        Raises:
            InputError: If they are missing; says what to download and where to put it.
        """
        weights = resolve_weights(self.model, self.revision)
        folder = require_weights_of(weights, self.marker, self.unneeded_parts)
        return f"{self.model} in {folder}"
