"""Prefect's server for people who run none: private to one store, gone when the command ends."""

import os
from pathlib import Path

SERVER_SETTINGS = {
    # Two starts at once, or a busy machine, need more than Prefect's 20 seconds.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # Errors reach the terminal once, in words, and a run's log file in full.
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
}
"""What differs from Prefect's defaults; the environment of the caller wins."""


def use_own_server(home: Path) -> None:
    """Keep Prefect's database in a folder of ours if the caller names neither server nor folder.

    Must be called before Prefect is imported, because Prefect reads its settings then.

    Args:
        home: Folder of the database; made private, because run parameters are readable in it.
    """
    if os.environ.get("PREFECT_API_URL"):
        return
    if "PREFECT_HOME" not in os.environ:
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o700)
        os.environ["PREFECT_HOME"] = str(home)
    for name, value in SERVER_SETTINGS.items():
        os.environ.setdefault(name, value)
