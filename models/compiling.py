"""Networks compiled for the GPU that they run on, where the machine has what that takes."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch

from models.devices import is_out_of_memory

_log = logging.getLogger(__name__)

_LONGEST_REASON = 300


class Compiled:
    """A function of tensors that is compiled when it is first called.

    Each shape of the inputs is compiled by itself, which takes up to a minute; or that of the first
    call alone, where other shapes are not worth it. A machine without a C compiler, Triton or
    Python's headers cannot: there the function runs as it is, more slowly, and the log says so
    once.

    Args:
        function: What is compiled; must not depend on anything that changes between calls but its
            arguments and the tensors of its module.
        name: What the log calls it.
        otherwise: What is called with inputs of other shapes than those of the first call, and
            where nothing can be compiled: it gives the same. None to compile each shape.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        *,
        otherwise: Callable[..., Any] | None = None,
    ) -> None:
        self._plain = otherwise or function
        self._function = function
        self._name = name
        self._only_first = otherwise is not None
        self._first: tuple[Any, ...] | None = None

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the function."""
        if self._first is not None:
            if self._only_first and _shapes(args) != self._first:
                return self._plain(*args, **options)
            return self._function(*args, **options)
        _log.info("compiling %s, which can take a minute", self._name)
        try:
            # Not before: it imports a good deal, which takes seconds.
            compiled = torch.compile(self._function, dynamic=False)
            found = compiled(*args, **options)
            self._function = compiled
        except Exception as error:  # compilers raise whatever they like
            if is_out_of_memory(error):
                raise
            found = self._plain(*args, **options)  # raises too if the function is at fault
            self._give_up(error)
        self._first = _shapes(args)
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


def compiled_for_batches(
    function: Callable[..., Any],
    name: str,
    *,
    batch_size: int,
    otherwise: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """A function of batches that is compiled for full ones, of the first shape that there is.

    Args:
        function: Of tensors with an axis for the batch in front; see `Compiled`.
        name: What the log calls it.
        batch_size: Rows of a full batch.
        otherwise: What all others are given to, and gives the same; None for the function itself.
    """
    plain = otherwise or function
    compiled = Compiled(function, name, otherwise=plain)

    def call(rows: torch.Tensor, *others: Any, **options: Any) -> Any:
        chosen = compiled if len(rows) == batch_size else plain
        return chosen(rows, *others, **options)

    return call


def _shapes(inputs: Iterable[Any]) -> tuple[Any, ...]:
    """What decides whether compiled code fits: the shapes and kinds of tensors."""
    return tuple((each.shape, each.dtype) for each in inputs if isinstance(each, torch.Tensor))
