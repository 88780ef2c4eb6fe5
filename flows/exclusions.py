"""What the command `exclusions` shows and does: samples left out of a dataset, and taken back."""

import getpass
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from storage.card import write_card
from storage.errors import InputError
from storage.exclusions import exclude_samples, include_samples, latest, read_exclusions
from storage.store import Store
from storage.texts import read_text_file


def list_exclusions(root: str) -> dict[str, Any]:
    """What is left out of a dataset, as JSON types.

    Raises:
        DataError: A file of the exclusions is damaged.
        InputError: There is no dataset.
    """
    words = latest(read_exclusions(Store.open(root).objects))
    return {
        "excluded": [
            line.model_dump(mode="json", exclude={"act"})
            for _, line in sorted(words.items())
            if line.act == "exclude"
        ]
    }


def change_exclusions(
    act: Literal["add", "undo"], root: str, keys: Sequence[str], why: str
) -> dict[str, Any]:
    """Leave samples out of a dataset, or take them back, and bring its card up to date.

    Raises:
        InputError: There is no dataset or no such sample, or no reason is given.
    """
    store = Store.open(root)
    change = exclude_samples if act == "add" else include_samples
    number = change(store, keys, who=who_is_here(), why=why)
    write_card(store)
    return {"changed": number, "excluded": len(list_exclusions(root)["excluded"])}


def read_keys(file: Path) -> list[str]:
    """Read sample keys, one a line; empty lines are left out.

    Raises:
        InputError: The file cannot be read, is no text, or names no sample.
    """
    keys = read_text_file(file, "sample keys, one a line").split()
    if not keys:
        message = f"{file} is empty, expected sample keys, one a line"
        raise InputError(message)
    return keys


def who_is_here() -> str:
    """The user and the machine, for records that people read later."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def print_exclusions(described: dict[str, Any], say: Callable[[str], None]) -> None:
    """Print what a list or a change came to."""
    if "changed" in described:
        say(f"{described['changed']} samples changed; {described['excluded']} are excluded now")
        return
    for line in described["excluded"]:
        score = "" if line["score"] is None else f" ({line['score']:.3f})"
        say(f"{line['key']}  {line['by']}{score}, {line['who']}, {line['at']}: {line['why']}")
    say(f"{len(described['excluded'])} samples are excluded")
