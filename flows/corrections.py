"""What the command `corrections` shows and does: masks that people drew anew, and undoing."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flows.exclusions import who_is_here
from storage.card import write_card
from storage.corrections import current_corrections, undo_corrections
from storage.exports.corrected_masks import import_masks
from storage.store import Store


def list_corrections(root: str) -> dict[str, Any]:
    """The samples of a dataset whose masks are corrected, as JSON types.

    Raises:
        DataError: A file of the corrections is damaged.
        InputError: There is no dataset.
    """
    lines = current_corrections(Store.open(root).objects).values()
    return {
        "corrected": [
            {
                **line.model_dump(mode="json", include={"key", "who", "at", "tool", "why"}),
                "objects": [each.class_name for each in line.objects],
            }
            for line in lines
        ]
    }


def import_corrections(root: str, file: Path, why: str) -> dict[str, Any]:
    """Take in corrected masks, and bring the card up to date.

    Raises:
        InputError: There is no dataset, no reason is given, or the file does not fit; nothing is
            changed then.
    """
    store = Store.open(root)
    made = import_masks(store, file, who=who_is_here(), why=why)
    write_card(store)
    return {
        "tool": made.tool,
        "changed": list(made.corrected),
        "unchanged": made.unchanged,
        "corrected": len(current_corrections(store.objects)),
    }


def undo(root: str, keys: Sequence[str], why: str) -> dict[str, Any]:
    """Let the masks of the tars count again, and bring the card up to date.

    Raises:
        InputError: There is no dataset, a sample is not corrected, or no reason is given.
    """
    store = Store.open(root)
    number = undo_corrections(store, keys, who=who_is_here(), why=why)
    write_card(store)
    return {"undone": number, "corrected": len(current_corrections(store.objects))}


def print_corrections(described: dict[str, Any], say: Callable[[str], None]) -> None:
    """Print what a list or a change came to."""
    if "tool" in described:
        say(
            f"{len(described['changed'])} samples corrected from {described['tool']}, "
            f"{described['unchanged']} were the same; {described['corrected']} are corrected now"
        )
        return
    if "undone" in described:
        say(f"{described['undone']} undone; {described['corrected']} are corrected now")
        return
    for line in described["corrected"]:
        names = ", ".join(line["objects"])
        say(f"{line['key']}  {line['tool']}, {line['who']}, {line['at']}: {line['why']} ({names})")
    say(f"{len(described['corrected'])} samples are corrected")
