"""The terminal as commands see it: plain characters, one line an error, no traceback.

A class name, a file name or the words of a service may hold anything; what a terminal would take
for an instruction (to clear the screen, to rename the window, to write from right to left) is shown
as the escape that Python writes for it.
"""

import json
import logging
import re
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# C0 and C1 without tab and line feed; line and paragraph separators; marks that turn the direction
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)


def printable(text: str) -> str:
    """Spell out every character that a terminal would obey instead of showing it."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


class Terminal(Console):
    """A console that shows control characters, and lets the caller handle a closed pipe."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render as any console does; the texts of the outcome are printable."""
        for segment in super().render(renderable, options):
            if segment.control:  # our own: a cursor that moves, a bar that is drawn again
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError, instead of ending the process."""
        self.quiet = True
        raise BrokenPipeError


class OneLine(logging.Formatter):
    """One line a message: an error is named, its traceback is left to the log file of the run."""

    def format(self, record: logging.LogRecord) -> str:
        """Say level, logger, message, and the error if there is one."""
        parts = [f"{record.levelname} {record.name}: {record.getMessage()}"]
        if record.exc_info and (error := record.exc_info[1]) is not None:
            parts.append(f"{type(error).__name__}: {error}")
        return printable(" ".join(": ".join(parts).split()))


def format_json(value: Any) -> str:
    """Write a value as indented JSON that every terminal shows and every program reads."""
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(value, indent=2, ensure_ascii=not is_unicode)
    # what JSON itself leaves as it is stands inside of texts alone
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
