"""Settings of a network of affinities; nothing here needs torch."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from models.folders import NETWORK_CONFIG
from storage.documents import validate
from storage.errors import InputError
from storage.paths import local_path

AGAIN = "train again into another folder, or give the folder of another network"
"""What to do about a network that cannot be used."""

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


class AffinityRecord(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What a trained network is: the contents of ``config.json``."""

    model_config = ConfigDict(protected_namespaces=())

    model_type: Literal["magicseg-affinity"] = "magicseg-affinity"
    """Tells it from other networks."""
    network: AffinityNetConfig
    """Its geometry."""
    classes: tuple[str, ...]
    """Names of the classes that it was trained for."""
    trained: dict[str, Any]
    """What the weights depend on, JSON types."""
    weights_sha256: str
    """Digest of the file of weights."""


def read_affinity_record(folder: str | Path) -> AffinityRecord:
    """Read what a trained network is, without its weights.

    Raises:
        InputError: If the folder holds none, or something else.
    """
    path = local_path(folder, "the affinities") / NETWORK_CONFIG
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        message = f"{path.parent} holds no network of affinities (no {NETWORK_CONFIG}); {AGAIN}"
        raise InputError(message) from error
    except ValueError as error:
        message = f"{path} is not JSON ({error}); {AGAIN}"
        raise InputError(message) from error
    kind = document.get("model_type") if isinstance(document, dict) else None
    expected = AffinityRecord.model_fields["model_type"].default
    if kind != expected:
        message = (
            f"{path} says that the weights are of type {kind!r}, expected {expected!r}; {AGAIN}"
        )
        raise InputError(message)
    return validate(AffinityRecord, document, str(path))
