"""Connections to a server, wherever an earlier command of this process thought that it was."""

from collections.abc import Iterator
from contextlib import contextmanager

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, temporary_settings


@contextmanager
def connected(url: str) -> Iterator[SyncPrefectClient]:
    """Let everything of Prefect in the block speak to one server.

    Args:
        url: Address of its API.
    """
    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        yield client
