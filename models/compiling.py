"""Networks compiled for the GPU that they run on, where the machine has what that takes."""

import logging
from collections.abc import Callable
from typing import Any

import torch

from models.devices import is_out_of_memory

_log = logging.getLogger(__name__)

_LONGEST_REASON = 300


class Compiled:
    """A function of tensors that is compiled when it is first called.

    Each shape of the inputs is compiled by itself, which takes up to a minute. A machine without a
    C compiler, Triton or Python's headers cannot: there the function runs as it is, more slowly,
    and the log says so once.

    Args:
        function: What is compiled; must not depend on anything that changes between calls but its
            arguments and the tensors of its module.
        name: What the log calls it.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._plain = function
        self._function = torch.compile(function, dynamic=False)
        self._name = name
        self._proven = False

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the function."""
        if self._proven:
            return self._function(*args, **options)
        _log.info("compiling %s, which can take a minute", self._name)
        try:
            found = self._function(*args, **options)
        except Exception as error:  # compilers raise whatever they like
            if is_out_of_memory(error):
                raise
            found = self._plain(*args, **options)  # raises too if the function is at fault
            self._give_up(error)
        self._proven = True
        return found

    @property
    def plain(self) -> Callable[..., Any]:
        """The function as it was: what is hooked into its module is not compiled away."""
        return self._plain

    def _give_up(self, error: Exception) -> None:
        self._function = self._plain
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_REASON]
        _log.warning(
            "%s cannot be compiled and runs as it is, more slowly (%s); it takes a C compiler, "
            "Triton and the headers of Python. With `compile: false` it is not tried",
            self._name,
            reason,
        )
