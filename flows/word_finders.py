"""What can be asked for words: a student, a released one, a labeller, a closed-set network.

Each says what stands for its weights and what its answers follow, before anything is loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from evaluation.finders import (
    CLOSED_SET_RULE,
    LABELLER_RULE,
    ClosedSetFinder,
    LabellerFinder,
    asked_classes,
)
from evaluation.scoring.config import Background, ScoringConfig
from evaluation.segment import Student, WordFinder
from models.devices import pick_device
from models.labellers import (
    AnyLabellerConfig,
    build_labeller,
    labeller_identity,
    on_device,
    parts_of,
)
from models.profiles import load_profile
from models.student.released import released_digest
from models.student.trained import describe_student
from storage.documents import merge, validate
from storage.errors import InputError
from storage.identity import digest
from tasks.subjects import view_of
from training.closed_sets.trained import is_closed_set, load_closed_set, read_closed_set_record

_READ = frozenset({"templates", "background_words", "inference"})
_EXECUTION = {"batch_size", "class_chunk", "seen_offset"}


@runtime_checkable
class FinderChoice(Protocol):
    """What is asked for words."""

    def fingerprint(self) -> str:
        """What stands for its weights.

        Raises:
            DataError: If its files are damaged.
            InputError: If they are not there, or do not fit.
        """
        ...

    def rule(self) -> dict[str, Any]:
        """All settings that a label map depends on, and no other."""
        ...

    def check_words(self, words: Sequence[str]) -> None:
        """Refuse words that it cannot be asked for.

        Raises:
            InputError: If there is one.
        """
        ...

    def load(self) -> WordFinder:
        """Load it."""
        ...


class _AnyWord:
    """Finders that can be asked for whatever words there are."""

    def check_words(self, words: Sequence[str]) -> None:
        """Refuse nothing: any word means something."""


@dataclass(frozen=True)
class RunStudent(_AnyWord):
    """The student of a training run.

    Attributes:
        run: Folder of the run.
        profile: Profile that it was trained with.
        config: How it is asked.
    """

    run: Path
    profile: str
    config: ScoringConfig

    def fingerprint(self) -> str:
        """What stands for its weights.

        Raises:
            DataError: If the checkpoint is damaged.
            InputError: If there is none, or the student is of another profile.
        """
        about = describe_student(self.run)
        _refuse_other_profile(about, self.run, self.profile)
        return f"{about['fingerprint']}@{about['step']}"

    def rule(self) -> dict[str, Any]:
        """Templates, windows, background rule and threshold."""
        return _student_rule(self.config)

    def load(self) -> WordFinder:
        """Load it."""
        return Student.load(self.run, config=self.config)


@dataclass(frozen=True)
class ReleasedStudent(_AnyWord):
    """A released ZegCLIP checkpoint.

    Attributes:
        file: The file.
        profile: Profile whose student stands on the same CLIP.
        config: How it is asked.
    """

    file: Path
    profile: str
    config: ScoringConfig

    def fingerprint(self) -> str:
        """What stands for its weights.

        Raises:
            InputError: If the file cannot be read.
        """
        return f"{released_digest(self.file)}@released"

    def rule(self) -> dict[str, Any]:
        """Templates, windows, background rule and threshold."""
        return _student_rule(self.config)

    def load(self) -> WordFinder:
        """Load it.

        Raises:
            InputError: If it is no such checkpoint, or stands on another CLIP.
        """
        return Student.load_checkpoint(self.file, profile=self.profile, config=self.config)


@dataclass(frozen=True)
class ProfileLabeller(_AnyWord):
    """The labeller of a profile: what makes the masks of a dataset.

    Attributes:
        config: Its networks and their thresholds.
    """

    config: AnyLabellerConfig

    @classmethod
    def of_profile(cls, profile: str, settings: dict[str, Any]) -> "ProfileLabeller":
        """Take it from a profile, with settings that differ, such as `detector.box_threshold`.

        Raises:
            InputError: If there is no such profile, or a setting is unknown or does not fit.
        """
        named = load_profile(profile)
        if not settings:
            return cls(named.labeller)
        own = named.labeller.model_dump(mode="json", exclude_unset=True)
        document = {**named.model_dump(mode="json"), "labeller": merge(own, settings)}
        whole = validate(type(named), document, f"labeller of profile {named.name}")
        return cls(whole.labeller)

    def fingerprint(self) -> str:
        """What stands for its weights and thresholds.

        Raises:
            InputError: If weights are missing.
        """
        for config in parts_of(self.config).values():
            config.check()
        return f"{digest(labeller_identity(self.config))}@labeller"

    def rule(self) -> dict[str, Any]:
        """A pixel without a box is background; the thresholds are part of the fingerprint."""
        return _fixed_rule(LABELLER_RULE)

    def load(self) -> WordFinder:
        """Load it.

        Raises:
            InputError: If it needs more than pictures.
        """
        return LabellerFinder(build_labeller(on_device(self.config, {"device": "auto"})))


@dataclass(frozen=True)
class TrainedClosedSet:
    """The network of a closed-set run.

    Attributes:
        run: Folder of the run.
    """

    run: Path

    def fingerprint(self) -> str:
        """What stands for its weights.

        Raises:
            DataError: If the run's record is damaged.
            InputError: If the run is not over.
        """
        record = read_closed_set_record(self.run)
        return f"{record.fingerprint}.{record.weights_sha256}@closed-set"

    def rule(self) -> dict[str, Any]:
        """What is background was learned."""
        return _fixed_rule(CLOSED_SET_RULE)

    def check_words(self, words: Sequence[str]) -> None:
        """Refuse words that are none of its classes.

        Raises:
            InputError: If there is one.
        """
        asked_classes(read_closed_set_record(self.run).closed_set, tuple(words))

    def load(self) -> WordFinder:
        """Load it.

        Raises:
            DataError: If the run's files are damaged.
            InputError: If mmsegmentation is missing.
        """
        place = pick_device("auto")
        network, record = load_closed_set(self.run)
        return ClosedSetFinder(network.to(place), record.closed_set, view_of(record), place)


@dataclass(frozen=True)
class Named:
    """What a command line names.

    Attributes:
        run: Folder of a training run, or of a closed-set run.
        checkpoint: A released checkpoint.
        labeller: A profile whose labeller is meant.
        profile: Profile of the student.
        settings: Settings that differ.
    """

    run: Path | None
    checkpoint: Path | None
    labeller: str | None
    profile: str
    settings: dict[str, Any]


def choose_finder(named: Named) -> FinderChoice:
    """What a command line names.

    Raises:
        InputError: If it names none, or several, or a setting is unknown or does not fit.
    """
    given = (named.run, named.checkpoint, named.labeller)
    if sum(each is not None for each in given) != 1:
        message = (
            f"{sum(each is not None for each in given)} of --run, --checkpoint and --labeller are "
            "given, expected one of them: it is what looks at the pictures"
        )
        raise InputError(message)
    if named.run is not None:
        return choose_run(named.run, named.profile, named.settings)
    if named.checkpoint is not None:
        config = segmenting_settings(named.profile, named.settings)
        return ReleasedStudent(named.checkpoint, named.profile, config)
    return ProfileLabeller.of_profile(str(named.labeller), named.settings)


def choose_run(run: Path, profile: str, settings: dict[str, Any]) -> FinderChoice:
    """What a run trained: a student, or a closed-set network, which has no settings.

    Raises:
        InputError: If a setting is unknown, does not fit, or changes nothing.
    """
    if not is_closed_set(run):
        return RunStudent(run, profile, segmenting_settings(profile, settings))
    if settings:
        message = (
            f"{run} is a closed-set run, whose label maps follow no setting, but "
            f"{', '.join(sorted(settings))} came with --set: leave it out"
        )
        raise InputError(message)
    return TrainedClosedSet(run)


def segmenting_settings(profile: str, settings: dict[str, Any]) -> ScoringConfig:
    """How a profile's student is asked, with settings that differ.

    Raises:
        InputError: If a setting is unknown, does not fit, or is about scores alone.
    """
    useless = sorted(settings.keys() - _READ)
    if useless:
        message = (
            f"{', '.join(useless)} changes nothing in a picture, expected settings of "
            f"{', '.join(sorted(_READ))}, such as inference.threshold=0.4"
        )
        raise InputError(message)
    named = load_profile(profile)
    document = {name: value for name, value in named.scoring.items() if name in _READ}
    return validate(ScoringConfig, merge(document, settings), f"scoring settings of {named.name}")


def _student_rule(config: ScoringConfig) -> dict[str, Any]:
    inference = config.inference.model_dump(mode="json", exclude=_EXECUTION)
    rule: dict[str, Any] = {"templates": config.templates, "inference": inference}
    if config.inference.background is Background.WORDS:
        rule["background_words"] = config.background_words
    return rule


def _fixed_rule(rule: tuple[Background, float]) -> dict[str, Any]:
    return {"inference": {"background": rule[0].value, "threshold": rule[1]}}


def _refuse_other_profile(about: dict[str, Any], run: Path, profile: str) -> None:
    own, other = about["config"]["student"]["clip"], load_profile(profile).student.clip
    if own != other:
        message = (
            f"the student of {run} stands on {own} and profile {profile} on {other}, so that its "
            "windows and threshold do not fit: name the student's profile with --profile"
        )
        raise InputError(message)
