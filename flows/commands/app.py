"""The application that all commands belong to, and where they write.

Help must come at once, so nothing heavy is imported here or where a command is declared: a command
imports what it works with in its body.
"""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter, Token

from flows.terminal import Terminal, format_json
from storage.errors import InputError
from storage.paths import check_place, local_path

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
    "0 done, 1 a fault of the engine, 2 wrong input, 3 work left, 4 budget reached, 5 "
    "waiting for a batch, 130 interrupted, 141 the reader of the output has gone.",
    console=console,
    error_console=errors,
    suppress_keyboard_interrupt=False,
)


def _called(token: Token) -> str:
    return token.keyword or "the argument"


def _read_path(_type: object, tokens: Sequence[Token]) -> Path:
    return local_path(tokens[0].value, _called(tokens[0]))


def _read_place(_type: object, tokens: Sequence[Token]) -> str:
    return check_place(tokens[0].value, _called(tokens[0]))


def _read_whole(_type: object, tokens: Sequence[Token]) -> int:
    from storage.yaml_text import parse_value

    text, what = tokens[0].value, _called(tokens[0])
    number = parse_value(text, what)
    if type(number) is bool or not isinstance(number, int) or abs(number) >= 2**63:
        message = f"{what} is {text!r}, expected a whole number of at most 18 digits"
        raise InputError(message)
    return number


LocalPath = Annotated[Path, Parameter(converter=_read_path)]
"""A file or folder of this machine."""
Place = Annotated[str, Parameter(converter=_read_place)]
"""A folder of this machine or a URL."""
Whole = Annotated[int, Parameter(converter=_read_whole)]
"""A whole number; cyclopts would round 1.5."""
Settings = Annotated[tuple[str, ...], Parameter(name="--set", negative="", show_default=False)]
"""name=value pairs; the option may be repeated."""
Sources = Annotated[tuple[str, ...], Parameter(name="--data", negative="", show_default=False)]
"""[LAYOUT:]PLACE[,split=NAME][,weight=NUMBER]; the option may be repeated."""
Flag = Annotated[bool, Parameter(negative="", show_default=False)]
"""A switch that is off unless it is named."""
Json = Annotated[bool, Parameter(name="--json", negative="", show_default=False)]
"""Whether to print JSON."""


def show_examples(*lines: str) -> str:
    """The end of a command's help: command lines that work as they stand."""
    return "\n".join(["For example:", "", *(f"    {line}" for line in lines)])


def print_json(value: Any) -> None:
    """Write a value as indented JSON, which is JSON on every terminal."""
    sys.stdout.write(format_json(value) + "\n")


def say(text: str) -> None:
    """Write one line as it is: not wrapped, and with every bracket left alone."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
