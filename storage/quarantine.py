"""The quarantine: where files go that are damaged or replaced.

Only `storage.batches` takes anything out of it again.
"""

import logging
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime

from storage.layout import ENGINE_FOLDER, QUARANTINE_FOLDER
from storage.objects import ObjectStore

_log = logging.getLogger(__name__)


STAMP = "%Y%m%dT%H%M%S"
"""How the name of a folder of the quarantine begins: when it was made, UTC."""
REASON_FILE = "reason.txt"
"""Says why the files beside it were put aside."""


def put_aside(
    objects: ObjectStore, paths: Iterable[str], reason: str, *, level: int = logging.WARNING
) -> str:
    """Move files of a dataset into a new folder of the quarantine.

    Args:
        objects: The dataset.
        paths: The files; one that is missing is passed over.
        reason: Why; written beside them.
        level: How loudly the log is told; what a person has asked for is no warning.

    Returns:
        The folder, relative to the root.
    """
    stamp = datetime.now(UTC).strftime(STAMP)
    folder = f"{QUARANTINE_FOLDER}/{stamp}-{secrets.token_hex(4)}"
    objects.write_new(f"{folder}/{REASON_FILE}", f"{reason}\n".encode())
    for path in paths:
        if objects.move(path, f"{folder}/{path.removeprefix(f'{ENGINE_FOLDER}/')}"):
            _log.log(level, "moved %s to %s: %s", path, folder, reason)
    return folder
