import pytest
from prefect import task
from tasks.policies import stage_options

from storage.errors import DataError, LeaseHeldError, TransientError
from storage.records import Stage


class Shard:
    """What a task's run name asks for."""

    name = "3d96f770-000000"


def attempts(error):
    """Run a task that always fails, with a stage's options but without waiting."""
    calls = []
    options = stage_options(Stage.PAIRS) | {"retry_delay_seconds": 0, "retry_jitter_factor": None}

    @task(**options)
    def fail(shard):
        calls.append(shard)
        raise error

    with pytest.raises(type(error)):
        fail(Shard())
    return len(calls)


@pytest.mark.server
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TransientError("the service is busy"), 4),
        (LeaseHeldError("somebody else is at it"), 1),
        (DataError("bytes and record disagree"), 1),
        (ZeroDivisionError("a bug"), 1),
    ],
)
def test_only_what_may_work_later_is_tried_again(server, error, expected):
    assert attempts(error) == expected
