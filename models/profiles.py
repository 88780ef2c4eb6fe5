"""Profiles: all models of a run by name, with revisions and parameters.

The demonstration and production differ by the profile alone. The shipped profiles are the YAML
files in `models/data/profiles`; a user's own file has the same keys.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from models.labellers import AnyLabellerConfig, finding_part, on_device, parts_of
from models.painting.config import InpainterConfig
from models.registry import (
    AnyInpainterConfig,
    AnyPainterConfig,
    AnyScoutConfig,
    Need,
    Role,
    WriterConfig,
    kind_of,
)
from models.student.config import StudentConfig
from models.student.scout_config import ClipScoutConfig
from storage.documents import read_yaml, suggest, validate
from storage.errors import InputError
from storage.paths import local_path

__all__ = ["Profile", "load_profile", "profile_names"]

_FOLDER = Path(__file__).with_name("data") / "profiles"


class Profile(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Everything that makes samples, and the student that learns from them."""

    name: str
    """Name of the shipped profile, or of the user's file without its suffix."""
    vocabulary: str
    """Name of the vocabulary."""
    writer: WriterConfig
    """Writes scene texts."""
    painter: AnyPainterConfig
    """Paints pairs of images."""
    labeller: AnyLabellerConfig
    """Finds the classes and cuts them out; `detector` and `segmenter` beside the painter, as older
    profiles have them, mean the two of a `grounded` one."""
    inpainter: AnyInpainterConfig | None = None
    """Paints over the objects of images where `twins.way` says so; empty means the painter's own
    checkpoint."""
    scout: AnyScoutConfig | None = None
    """Says which classes an image may show that nobody asked for, where `others.way` says so; empty
    means the student's CLIP."""
    student: StudentConfig
    """Learns from the dataset."""
    image_format: Literal["jpg", "png"] = "jpg"
    """How images are stored."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Training settings that suit the student, as in the training config."""
    scoring: dict[str, Any] = Field(default_factory=dict)
    """Scoring settings that suit the student, as in the scoring config."""

    @model_validator(mode="before")
    @classmethod
    def _gather_labeller(cls, document: Any) -> Any:
        """Read profiles that name a detector and a segmenter and no labeller."""
        flat = {"detector", "segmenter"}
        if not isinstance(document, dict) or "labeller" in document or not flat & document.keys():
            return document
        parts = {name: document[name] for name in flat & document.keys()}
        rest = {name: value for name, value in document.items() if name not in flat}
        return {**rest, "labeller": {"kind": "grounded", **parts}}

    def models(self) -> dict[Role, Any]:
        """The configurations of all models that it names, in the order of their work."""
        named = {Role.WRITER: self.writer, Role.PAINTER: self.painter, **parts_of(self.labeller)}
        rest = {Role.INPAINTER: self.inpainter, Role.SCOUT: self.scout}
        return named | {role: config for role, config in rest.items() if config is not None}

    @property
    def inpainting(self) -> Any:
        """The configuration of what paints over: its own, or the painter's checkpoint.

        Raises:
            InputError: If the painter is of a kind that cannot.
        """
        return self.inpainter or InpainterConfig.of_painter(self.painter)

    @property
    def scouting(self) -> Any:
        """The configuration of what says which classes an image may show besides its own.

        That is its own scout, or the student's CLIP on the device of what finds.
        """
        finder = finding_part(self.labeller)
        return self.scout or ClipScoutConfig.of_student(
            self.student, finder.device, finder.batch_size
        )

    def on_device(self, device: str, batch_size: int | None) -> "Profile":
        """The same profile with every model that computes on a device on this one.

        Args:
            device: Its name.
            batch_size: Inputs at once, or nothing for what each model has.
        """
        execution: dict[str, Any] = {"device": device}
        if batch_size is not None:
            execution["batch_size"] = batch_size
        update = {
            name: config.model_copy(update=execution)
            for name in ("writer", "painter", "inpainter", "scout")
            if (config := getattr(self, name)) and kind_of(config).need is Need.DEVICE
        }
        labeller = on_device(self.labeller, execution)
        return self.model_copy(update={**update, "labeller": labeller})


def load_profile(name: str) -> Profile:
    """Read a profile.

    Args:
        name: A shipped profile, or the path of a YAML file (with its suffix).

    Raises:
        InputError: If there is no such profile, or it has unknown or missing keys or values that
            do not fit; says what is known.
    """
    own = Path(name).suffix in {".yaml", ".yml"}
    file = local_path(name, "the profile") if own else _FOLDER / f"{name}.yaml"
    if not own and name not in profile_names():
        message = (
            f"profile {name!r} is unknown; {suggest(name, profile_names())}, "
            "or the path of a .yaml file"
        )
        raise InputError(message)
    document = {"name": file.stem, **read_yaml(file)}
    return validate(Profile, document, f"profile {name}")


def require_weights(models: Mapping[Role, Any]) -> None:
    """Check that the weights of models that make samples are there, without loading them.

    Args:
        models: Their configurations by role.

    Raises:
        InputError: If some are missing; says what to download and where to put it.
    """
    for config in models.values():
        if kind_of(config).need is Need.DEVICE:
            config.check()


def profile_names() -> list[str]:
    """Names of the shipped profiles."""
    return sorted(file.stem for file in _FOLDER.glob("*.yaml"))
