"""Profiles: all models of a run by name, with revisions and parameters.

The demonstration and production differ by the profile alone. The shipped profiles are the YAML
files in `models/data/profiles`; a user's own file has the same keys.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from models.labelling.config import DetectorConfig, SegmenterConfig
from models.painting.config import PainterConfig
from models.student.config import StudentConfig
from models.weights import require_marker, resolve_weights
from models.writing.writers import WriterConfig
from storage.documents import read_yaml, suggest, validate
from storage.errors import InputError

GENERATORS = {
    "painter": "model_index.json",
    "detector": "config.json",
    "segmenter": "config.json",
}
"""The models that make samples, and the file by which their weights are known."""

_FOLDER = Path(__file__).with_name("data") / "profiles"


class Profile(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Everything that makes samples, and the student that learns from them."""

    name: str
    """Name of the shipped profile, or of the user's file without its suffix."""
    vocabulary: str
    """Name of the vocabulary."""
    writer: WriterConfig
    """Writes scene texts."""
    painter: PainterConfig
    """Paints pairs of images."""
    detector: DetectorConfig
    """Finds the classes."""
    segmenter: SegmenterConfig
    """Cuts out what was found."""
    student: StudentConfig
    """Learns from the dataset."""
    image_format: Literal["jpg", "png"] = "jpg"
    """How images are stored."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Training settings that suit the student, as in the training config."""
    scoring: dict[str, Any] = Field(default_factory=dict)
    """Scoring settings that suit the student, as in the scoring config."""


def load_profile(name: str) -> Profile:
    """Read a profile.

    Args:
        name: A shipped profile, or the path of a YAML file (with its suffix).

    Raises:
        InputError: If there is no such profile, or it has unknown or missing keys or values that
            do not fit; says what is known.
    """
    own = Path(name).suffix in {".yaml", ".yml"}
    file = Path(name).expanduser() if own else _FOLDER / f"{name}.yaml"
    if not own and name not in profile_names():
        message = (
            f"profile {name!r} is unknown; {suggest(name, profile_names())}, "
            "or the path of a .yaml file"
        )
        raise InputError(message)
    document = {"name": file.stem, **read_yaml(file)}
    return validate(Profile, document, f"profile {name}")


def require_weights(profile: Profile) -> None:
    """Check that the weights of all models that make samples are there, without loading them.

    Raises:
        InputError: If some are missing; says what to download and where to put it.
    """
    for role, marker in GENERATORS.items():
        config = getattr(profile, role)
        require_marker(resolve_weights(config.model, config.revision), marker)


def profile_names() -> list[str]:
    """Names of the shipped profiles."""
    return sorted(file.stem for file in _FOLDER.glob("*.yaml"))
