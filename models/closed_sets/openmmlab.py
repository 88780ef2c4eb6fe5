"""mmsegmentation: importing this module makes it usable, or says what is missing.

mmsegmentation 1.2 asks for mmcv with compiled operators, which does not compile against current
torch. `mmcv-lite` holds everything but the operators, and nothing that we use needs one; only their
import does. While the packages are imported, a stand-in takes the place of the compiled module;
each of its functions refuses to be called. Then it goes, because mmengine looks for the module to
learn whether there are operators.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from models.closed_sets.packages import INSTALL
from models.opencv import INSTALL_OPENCV
from storage.errors import InputError

_OPERATORS = "mmcv._ext"


class _NoOperators(ModuleType):
    """A module with every function that is asked for; to call one is an error."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*_: object, **__: object) -> None:
            message = (
                f"mmcv's compiled operator {name!r} was called, but mmcv-lite has none: "
                "choose a network without it, or install a compiled mmcv"
            )
            raise InputError(message)

        return refuse


@contextmanager
def _importing() -> Iterator[None]:
    """Import with the stand-in, unless there are operators; explain what is missing.

    Raises:
        InputError: If a package is missing or cannot be loaded.
    """
    try:
        if find_spec(_OPERATORS) is not None:
            yield
            return
        sys.modules[_OPERATORS] = _NoOperators(_OPERATORS)
        try:
            yield
        finally:
            del sys.modules[_OPERATORS]
    except ImportError as error:
        headless = f"on a machine without a display: {INSTALL_OPENCV}"
        way = headless if "libGL" in str(error) else INSTALL
        message = f"mmsegmentation cannot be used ({error}); install it with: {way}"
        raise InputError(message) from error


with _importing():
    _mmengine = import_module("mmengine")
    _hooks = import_module("mmengine.hooks")
    _model = import_module("mmengine.model")
    _runner = import_module("mmengine.runner")
    _evaluation = import_module("mmseg.evaluation")
    _models = import_module("mmseg.models")
    _registry = import_module("mmseg.registry")
    import_module("mmseg.datasets")  # registers data sets and transforms

# The packages are untyped.
BaseModel: Any = _model.BaseModel
MmengineConfig: Any = _mmengine.Config
EncoderDecoder: Any = _models.EncoderDecoder
Hook: Any = _hooks.Hook
IoUMetric: Any = _evaluation.IoUMetric
IterBasedTrainLoop: Any = _runner.IterBasedTrainLoop
Runner: Any = _runner.Runner
HOOKS: Any = _registry.HOOKS
LOOPS: Any = _registry.LOOPS
MODELS: Any = _registry.MODELS
SAMPLERS: Any = _registry.DATA_SAMPLERS
