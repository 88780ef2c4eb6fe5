"""Sets of words that come with the engine by name, or are files of the user's own."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Generic, TypeVar

from storage.documents import suggest
from storage.errors import InputError
from storage.paths import local_path

_SetT = TypeVar("_SetT")


class ShippedSets(Generic[_SetT]):
    """The sets of one kind.

    Args:
        folder: Folder of `models/data` that holds those that come with the engine.
        what: What messages call one.
        read: Reads and checks a file.
    """

    def __init__(self, folder: str, what: str, read: Callable[[Path], _SetT]) -> None:
        self._folder = Path(__file__).parents[1] / "data" / folder
        self._what = what
        self._read = read
        self._shipped = cache(read)

    def names(self) -> list[str]:
        """Those that come with the engine."""
        return sorted(file.stem for file in self._folder.glob("*.yaml"))

    def load(self, name: str) -> _SetT:
        """Read and check one; of those that come with the engine, once.

        Args:
            name: One that comes with the engine, or the path of a file that ends in .yaml or .yml.

        Raises:
            InputError: If there is none such, or its contents are at fault.
        """
        if name.endswith((".yaml", ".yml")):
            return self._read(local_path(name, f"the {self._what}"))
        if name not in self.names():
            message = (
                f"no {self._what} {name!r}; {suggest(name, self.names())}, or the path of a "
                ".yaml file"
            )
            raise InputError(message)
        return self._shipped(self._folder / f"{name}.yaml")
