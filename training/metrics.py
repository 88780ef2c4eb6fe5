"""The record of a run: a JSON line for every update, TensorBoard curves, and the log."""

import logging
import math
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from torch.utils.tensorboard import SummaryWriter

from storage.metrics import format_row, read_metrics, write_metrics

_log = logging.getLogger(__name__)


class MetricsLog:
    """Writes what each update measured; lines of updates that are done again are dropped.

    Args:
        out: Folder of the run.
        first: Update that the run begins or goes on with.
        steps: Updates of the whole run.
        log_every: Updates between lines of the log.

    Raises:
        DataError: If the curve that is there has a broken line.
    """

    def __init__(self, out: Path, *, first: int, steps: int, log_every: int) -> None:
        out.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_metrics(out) if row["step"] < first]
        self._file = write_metrics(out, kept).open("a", encoding="utf-8")
        self._board = SummaryWriter(str(out / "tensorboard"), purge_step=first)
        self._first = first
        self._steps = steps
        self._log_every = log_every
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._board.close()

    def write(self, row: dict[str, float]) -> None:
        """Record an update.

        Args:
            row: `step` (from 0) and what was measured.
        """
        self._file.write(format_row({name: _rounded(value) for name, value in row.items()}))
        self._file.flush()
        step = int(row["step"])
        for name, value in row.items():
            if name != "step":
                self._board.add_scalar(name, value, step)
        done = step + 1
        if done % self._log_every == 0 or done == self._steps:
            seconds = (time.monotonic() - self._began) / (done - self._first)
            _log.info(
                "step %d of %d, %.2f steps/s, %s left: %s",
                done,
                self._steps,
                1.0 / seconds,
                _duration(seconds * (self._steps - done)),
                ", ".join(f"{k} {v:.4g}" for k, v in row.items() if k not in {"step", "seconds"}),
            )


def _rounded(value: float) -> float:
    """Six significant digits, which is more than curves need and keeps the file small."""
    return value if isinstance(value, int) or not math.isfinite(value) else float(f"{value:.6g}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
