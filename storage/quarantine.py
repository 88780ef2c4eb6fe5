"""The quarantine: where files go that are damaged or replaced; nothing is ever deleted."""

import logging
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime

from storage.layout import ENGINE_FOLDER
from storage.objects import ObjectStore

_log = logging.getLogger(__name__)


def put_aside(
    objects: ObjectStore, paths: Iterable[str], reason: str, *, expected: bool = False
) -> None:
    """Move files of a dataset into a new folder of the quarantine.

    Args:
        objects: The dataset.
        paths: The files; one that is missing is passed over.
        reason: Why; written beside them.
        expected: Whether that is the ordinary course, of which nobody needs to be warned.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    folder = f"{ENGINE_FOLDER}/quarantine/{stamp}-{secrets.token_hex(4)}"
    objects.write_new(f"{folder}/reason.txt", f"{reason}\n".encode())
    level = logging.INFO if expected else logging.WARNING
    for path in paths:
        if objects.move(path, f"{folder}/{path.removeprefix(f'{ENGINE_FOLDER}/')}"):
            _log.log(level, "moved %s to %s: %s", path, folder, reason)
