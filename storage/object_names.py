"""Names of objects: relative paths with forward slashes that never leave the root."""

import re

from storage.errors import DataError

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check_name(name: str) -> None:
    """Check that a path names something below a root, the same thing on a disk and in a bucket.

    Paths come from records too, and a record may be damaged, or written by somebody who means harm.

    Raises:
        DataError: The path is absolute, has an empty part, ``.`` or ``..``, a backslash or a
            control character.
    """
    fault = _fault(name)
    if fault:
        message = (
            f"{name[:200]!r} names nothing inside a dataset ({fault}): expected a relative path "
            "like 'data/x.tar'; it comes from a damaged or foreign record, so take the dataset "
            "from its source again"
        )
        raise DataError(message)


def check_folder(name: str) -> None:
    """Check the name of a folder as `check_name` does; an empty one is the root."""
    if name:
        check_name(name)


def _fault(name: str) -> str:
    if not name:
        return "it is empty"
    if _CONTROL.search(name):
        return "it has a control character"
    if "\\" in name:
        return "it has a backslash"
    if name.startswith("/"):
        return "it is absolute"
    odd = next((part for part in name.split("/") if part in {"", ".", ".."}), None)
    return "" if odd is None else f"it has a part {odd!r}"
