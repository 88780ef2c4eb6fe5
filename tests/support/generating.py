"""A process that generates on demand, each time in a child of its own that may be killed.

Everything is imported and every model is built once, before the first child is forked. Only this
process's main thread exists then, which makes forking sound.

    in:  one JSON line a run: parameters, a fault point or null, seconds until it is killed or null,
         and a file to which what is painted is added, or null
    out: its exit code (negative: the signal)

That file has a line for each picture: its painter's method and the seed of its noise.
"""

import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def end_of(child: int, kill_after: float | None) -> int:
    """Wait for a child's end and kill it before, if it is to be; returns its exit code."""
    if kill_after is not None:
        deadline = time.monotonic() + kill_after
        while time.monotonic() < deadline:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)  # nobody but us can have reaped it
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


_told: set[int] = set()
_painted: list[str] = []
"""Where a child writes down what it paints; empty for nowhere."""


def tell_paintings(model: Any) -> None:
    """Let a painter or an inpainter write down what it paints before it begins."""
    if id(model) in _told:
        return
    _told.add(id(model))
    for name in ("paint", "paint_images", "inpaint"):
        if hasattr(model, name):
            setattr(model, name, _telling(name, getattr(model, name)))


def _telling(name: str, paint: Any) -> Any:
    def told(requests: Any) -> Any:
        for path in _painted:
            with Path(path).open("a") as file:
                file.writelines(f"{name} {request.seed}\n" for request in requests)
        return paint(requests)

    return told


def serve() -> None:
    """Fork a child for every line of the standard input."""
    from rich.console import Console

    from flows.generation_parameters import GenerationParameters
    from flows.local_runs import generate_locally
    from storage.objects import open_objects
    from tasks.resident import ResidentModels

    for late in ("flows.local_flow", "flows.generate_dataset"):  # which the runs import late
        importlib.import_module(late)
    models, console = ResidentModels(), Console(file=sys.stderr)
    for line in sys.stdin:
        order: dict[str, Any] = json.loads(line)
        parameters = GenerationParameters.model_validate(order["parameters"])
        profile = parameters.recipe.profile
        for config in parameters.recipe.models().values():
            tell_paintings(models.model(config, open_objects(parameters.root)))
        models.tokens(profile.painter)
        child = os.fork()
        if not child:
            code = 1
            try:
                os.environ["MAGICSEG_CRASH_AT"] = order["crash_at"] or ""
                _painted.extend([order["painted"]] if order["painted"] else [])
                generate_locally(parameters, console, models)
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        sys.stdout.write(f"{end_of(child, order['kill_after'])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
