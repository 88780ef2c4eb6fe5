"""A process that generates on demand, each time in a child of its own that may be killed.

Everything is imported and every model is built once, before the first child is forked. Only this
process's main thread exists then, which makes forking sound.

    in:  one JSON line a run: parameters, a fault point or null, seconds until it is killed or null,
         a file to which what is painted is added, or null, and the number of the call of an
         inpainter at whose begin the run is told to end, or null
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


class Watch:
    """Writes down what painters paint, before they begin; a child is told what to do with it."""

    def __init__(self) -> None:
        self.painted: str | None = None
        self.stop_at: int | None = None
        self._inpainted = 0
        self._watched: set[int] = set()

    def over(self, model: Any) -> None:
        """Watch a model, if it paints and is not watched yet."""
        if id(model) in self._watched:
            return
        self._watched.add(id(model))
        for name in ("paint", "paint_images", "inpaint"):
            if hasattr(model, name):
                setattr(model, name, self._telling(name, getattr(model, name)))

    def _telling(self, name: str, paint: Any) -> Any:
        def told(requests: Any) -> Any:
            if self.painted is not None:
                with Path(self.painted).open("a") as file:
                    file.writelines(f"{name} {request.seed}\n" for request in requests)
            self._inpainted += name == "inpaint"
            if name == "inpaint" and self._inpainted == self.stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return paint(requests)

        return told


def serve() -> None:
    """Fork a child for every line of the standard input."""
    from rich.console import Console

    from flows.__main__ import Interruption
    from flows.generation_parameters import GenerationParameters
    from flows.local_runs import generate_locally
    from storage.exit_codes import EXIT_INTERRUPTED
    from storage.objects import open_objects
    from tasks.resident import ResidentModels

    for late in ("flows.local_flow", "flows.generate_dataset"):  # which the runs import late
        importlib.import_module(late)
    models, console, watch = ResidentModels(), Console(file=sys.stderr), Watch()
    for line in sys.stdin:
        order: dict[str, Any] = json.loads(line)
        parameters = GenerationParameters.model_validate(order["parameters"])
        profile = parameters.recipe.profile
        for config in parameters.recipe.models().values():
            watch.over(models.model(config, open_objects(parameters.root)))
        models.tokens(profile.painter)
        child = os.fork()
        if not child:
            code = 1
            try:
                os.environ["MAGICSEG_CRASH_AT"] = order["crash_at"] or ""
                watch.painted, watch.stop_at = order["painted"], order["stop_at"]
                signal.signal(signal.SIGTERM, Interruption())
                generate_locally(parameters, console, models)
                code = 0
            except KeyboardInterrupt:
                code = EXIT_INTERRUPTED
            finally:
                sys.stderr.flush()
                os._exit(code)
        sys.stdout.write(f"{end_of(child, order['kill_after'])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
