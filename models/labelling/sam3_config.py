"""Settings of SAM 3, and which network of transformers a checkpoint is; nothing needs torch."""

import importlib.metadata
from typing import Literal

from pydantic import Field

from models.configs import ModelConfig
from models.weights import Weights, require_model_type, resolve_weights
from storage.errors import InputError

# Class, and the release of transformers that brought it. Meta's own repository has the detector and
# the tracker of videos in one checkpoint.
_NETWORKS = {
    "sam3": ("Sam3Model", "5.0"),
    "sam3_video": ("Sam3Model", "5.0"),
    "sam3_lite_text": ("Sam3LiteTextModel", "5.6"),
}


class Sam3Config(ModelConfig, frozen=True):
    """A SAM 3 checkpoint, with Meta's text encoder or the light one, and its thresholds."""

    kind: Literal["sam3"] = "sam3"
    """Tells this labeller from others."""
    score_threshold: float = Field(0.5, ge=0, lt=1)
    """An object is kept if its probability times that of the phrase's presence is more than
    this."""
    mask_threshold: float = Field(0.5, gt=0, lt=1)
    """Probability above which a pixel belongs to the object."""

    def check(self) -> str:
        """Look for the weights without loading them; say where they are.

        Raises:
            InputError: If they are missing, of another architecture, or of one that the installed
                transformers does not know; says what to do.
        """
        place = super().check()
        network_name(resolve_weights(self.model, self.revision))
        return place


def network_name(weights: Weights) -> str:
    """Name the class of transformers that a checkpoint is made for.

    Args:
        weights: Where the checkpoint is.

    Raises:
        InputError: If it is no SAM 3, or the installed transformers is older than its class.
    """
    name, release = _NETWORKS[require_model_type(weights, *_NETWORKS)]
    installed = importlib.metadata.version("transformers")
    if _numbers(installed) < _numbers(release):
        message = (
            f"transformers {installed} has no {name}, which {weights.source!r} needs; expected "
            f"transformers {release} or later"
        )
        raise InputError(message)
    return name


def _numbers(release: str) -> list[int]:
    """The first two numbers of a release, which say what it has."""
    return [int(number) for number in release.split(".")[:2]]
