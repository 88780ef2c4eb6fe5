"""What a test does so that another user of the machine may look into its folder."""

import tempfile
from pathlib import Path


def open_to_others(folder, temporary=None):
    """Let every user read a folder and reach it.

    Only folders of the tests are changed, and rights are only added: the temporary folder of the
    machine is everybody's.

    Args:
        folder: The folder.
        temporary: The machine's temporary folder; the one of now by default.
    """
    top = Path(temporary or tempfile.gettempdir()).resolve()
    for each in (folder, *folder.parents):
        if each == top or top not in each.parents:
            return
        each.chmod(each.stat().st_mode | 0o055)
