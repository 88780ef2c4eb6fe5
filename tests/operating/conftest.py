import pytest

from running_site import RunningSite


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """`magicseg up`, started from a folder that is removed."""
    running = RunningSite(tmp_path_factory.mktemp("site"))
    running.start()
    yield running
    running.stop()
