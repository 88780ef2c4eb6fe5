"""The clock of an object store, which no clock of this machine is trusted to agree with."""

import time

from storage.layout import ENGINE_FOLDER
from storage.remote_objects import RemoteObjects

_PATH = f"{ENGINE_FOLDER}/clock"
_WHOLE_SECONDS = 1.0


def latest_age(objects: RemoteObjects, written: float) -> float:
    """How many seconds ago, at least, the server wrote an object.

    An object is written for it, and the dates of both are compared: both are of the server's clock.
    Servers date to the whole second, so up to two seconds are lost.

    Args:
        objects: Where the object lies.
        written: When the server says that it wrote it.

    Returns:
        Seconds, 0 or more.
    """
    objects.replace(_PATH, str(time.time()).encode())
    return max(0.0, objects.written_at(_PATH) - written - _WHOLE_SECONDS)
