"""The application that all commands belong to, and where they write.

Help must come at once, so nothing heavy is imported here or where a command is declared: a command
imports what it works with in its body.
"""

import json
import sys
from importlib.metadata import version
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console


class Terminal(Console):
    """A console that lets the caller handle a closed pipe."""

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError, instead of ending the process."""
        self.quiet = True
        raise BrokenPipeError


console = Terminal()
"""Where commands print their results."""
errors = Terminal(stderr=True)
"""Where errors go, and progress when a program reads standard output."""

app = App(
    name="magicseg",
    help="From class names to counterfactual segmentation data, and the student trained on it.",
    version=lambda: version("magicseg-engine"),
    help_format="plaintext",
    help_epilogue="`magicseg COMMAND --help` says what a command takes, with examples. Exit codes: "
    "0 done, 2 wrong input, 3 work left, 4 budget reached, 130 interrupted, 141 the reader of the "
    "output has gone.",
    console=console,
    error_console=errors,
    suppress_keyboard_interrupt=False,
)

Settings = Annotated[tuple[str, ...], Parameter(name="--set", negative="", show_default=False)]
"""name=value pairs; the option may be repeated."""
Json = Annotated[bool, Parameter(name="--json", negative="", show_default=False)]
"""Whether to print JSON."""


def show_examples(*lines: str) -> str:
    """The end of a command's help: command lines that work as they stand."""
    return "\n".join(["For example:", "", *(f"    {line}" for line in lines)])


def print_json(value: Any) -> None:
    """Write a value as indented JSON, which is JSON on every terminal."""
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=not is_unicode) + "\n")


def say(text: str) -> None:
    """Write one line as it is: not wrapped, and with every bracket left alone."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
