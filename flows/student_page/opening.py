"""Opens the page of one or two runs: loads the students and says where the slider stands."""

from pathlib import Path
from typing import Any

from flows.student_page.layout import StudentPage
from flows.word_finders import RunStudent, choose_run, segmenting_settings
from storage.errors import InputError


def open_page(
    run: Path, compare: Path | None, profile: str, settings: dict[str, Any], folder: Path
) -> StudentPage:
    """Load the students of a page.

    Args:
        run: Folder of the training run.
        compare: Folder of another one, if there is one.
        profile: Profile that they were trained with.
        settings: Scoring settings that differ from the profile's.
        folder: For the files that it makes.

    Raises:
        DataError: If a checkpoint is damaged.
        InputError: If there is none, a student is of another profile, a setting does not fit, or a
            run has no student.
    """
    runs = [run] if compare is None else [run, compare]
    choices = [_student(each, profile, settings) for each in runs]
    for choice in choices:
        choice.fingerprint()  # refuses what does not fit, before anything is loaded
    names = _names(runs)
    finders = {name: choice.load() for name, choice in zip(names, choices, strict=True)}
    threshold = segmenting_settings(profile, settings).inference.threshold
    return StudentPage(finders, threshold, folder)


def _student(run: Path, profile: str, settings: dict[str, Any]) -> RunStudent:
    choice = choose_run(run, profile, settings)
    if not isinstance(choice, RunStudent):
        message = (
            f"{run} is a closed-set run, which has no threshold to move; expected a student's: ask "
            "it with 'magicseg segment'"
        )
        raise InputError(message)
    return choice


def _names(runs: list[Path]) -> list[str]:
    """What the page calls them: their folders' names, with as much in front as tells them apart."""
    parts = [run.resolve().parts for run in runs]
    if len(runs) > 1 and parts[0] == parts[1]:
        message = f"{runs[1]} is the run itself, expected another one to compare with"
        raise InputError(message)
    length = 1
    while len({own[-length:] for own in parts}) < len(parts):
        length += 1
    return ["/".join(own[-length:]) for own in parts]
