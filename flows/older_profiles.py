"""Shipped profiles change with the engine; a dataset is gone on with by what it was made with.

A dataset holds what its samples depend on, and no profile's name counts. So where a run asks for
other settings than a dataset has, and a shipped profile in place of the one that was named has the
dataset's own, the message tells the command with that profile.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flows.generation_parameters import GenerationParameters
from flows.kept_parameters import command_line
from models.profiles import profile_names
from storage.errors import InputError
from storage.specification import Specification
from storage.store import Store

Describing = Callable[[GenerationParameters], Mapping[str, Any]]
"""From a run's parameters to the specification of its dataset, JSON-like."""


@contextmanager
def telling_of_older_profile(
    parameters: GenerationParameters, describe: Describing
) -> Iterator[None]:
    """Add to a refusal of other settings which shipped profile has those of the dataset.

    Args:
        parameters: Those of the run.
        describe: Gives the specification of a dataset.

    Raises:
        InputError: The block refused; says how to go on if a profile has the dataset's settings.
    """
    try:
        yield
    except InputError as error:
        older = _with_older_profile(parameters, describe)
        if older is None:
            raise
        message = (
            f"{error}. The profile {older.profile} has the old values: `{command_line(older)}`"
        )
        raise InputError(message) from error


def _with_older_profile(
    parameters: GenerationParameters, describe: Describing
) -> GenerationParameters | None:
    """The same run with the shipped profile that a dataset was made with, if there is another."""
    try:
        wanted = Store.open(parameters.root).specification.dataset_id
    except InputError:
        return None
    for name in profile_names():
        other = parameters.model_copy(update={"profile": name})
        try:
            found = Specification(dict(describe(other))).dataset_id
        except InputError:  # its weights are not on this machine, or its classes are others
            continue
        if found == wanted:
            return other if name != parameters.profile else None
    return None
