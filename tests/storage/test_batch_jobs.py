"""Batches on the disk: read as they were written, and damage is told with a way out that works."""

from datetime import UTC, datetime

import pytest

from storage.batch_jobs import (
    BatchCalls,
    BatchEnd,
    BatchIntent,
    BatchJobs,
    BatchState,
    Fate,
    NoAnswer,
    new_job,
)
from storage.errors import DataError, InputError
from storage.objects import open_objects
from storage.prices import Prices

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
KEYS = ["a" * 64, "b" * 64]


def intent(**changes):
    values = {
        "job": new_job(),
        "door": "service",
        "base_url": "http://127.0.0.1:9/v1",
        "model": "m",
        "calls": 2,
        "most_prompt_tokens": 100,
        "most_completion_tokens": 50,
        "prices": None,
        "created": NOW,
    }
    return BatchIntent.model_validate({**values, **changes})


def written(objects, **changes):
    jobs, own = BatchJobs(objects), intent(**changes)
    jobs.create(own, b"{}\n", BatchCalls(about={key: {"round": 0} for key in KEYS}))
    return jobs, own


def read_all(objects, job):
    """What a process reads of a batch before it settles it."""
    jobs = BatchJobs(objects)
    jobs.refresh()
    jobs.open()
    jobs.requests(job)


@pytest.fixture(params=["local", "bucket"])
def objects(request, tmp_path):
    if request.param == "local":
        return open_objects(tmp_path)
    return open_objects(request.getfixturevalue("bucket").root)


def test_what_one_process_writes_every_other_one_finds(objects):
    jobs, own = written(objects)
    other = BatchJobs(objects)
    assert not other.is_open(KEYS[0])
    with other.leased(lambda: None):
        assert other.is_open(KEYS[0])
        other.note(own.job, BatchState(batch_id="x", status="in_progress"))
    [found] = jobs.open()
    assert (found.intent, found.state.batch_id) == (own, "x")
    declined = NoAnswer(fate=Fate.DECLINED, message="no")
    failed = NoAnswer(fate=Fate.FAILED, message="boom")
    unanswered = {KEYS[0]: declined, KEYS[1]: failed}
    other.close(own.job, BatchEnd(status="completed", unanswered=unanswered, ended=NOW))
    jobs.refresh()
    assert jobs.open() == []
    assert jobs.declined == {KEYS[0]: "no"}
    assert jobs.failures == {KEYS[1]: 1}
    names = [path.rpartition("/")[2] for path in objects.paths(".engine/ledger/batches")]
    assert names == ["intent.json", "settled.json", "state.json"]


def test_the_worst_case_of_open_paid_batches_is_reserved(objects):
    written(objects, prices=Prices(prompt=1.0, completion=2.0))
    other = BatchJobs(objects)
    other.refresh()
    assert other.worst(None) == (150, pytest.approx(200 / 1e6))
    _, own = written(objects)
    other.refresh()
    assert other.worst(Prices(prompt=10.0, completion=0.0)) == (300, pytest.approx(1200 / 1e6))
    written(objects, door="file")
    other.refresh()
    assert other.worst(None)[0] == 300
    other.forget(own.job, NOW)
    other.refresh()
    assert other.worst(None)[0] == 150


@pytest.mark.parametrize("name", ["intent.json", "calls.json", "settled.json", "state.json"])
@pytest.mark.parametrize("data", [b"", b"[]", b'{"job": 1}', b"\xff\x00"])
def test_a_damaged_record_is_told_and_the_batch_can_be_forgotten(objects, name, data):
    _, own = written(objects)
    path = f".engine/ledger/batches/{own.job}/{name}"
    objects.replace(path, data)
    with pytest.raises(DataError, match=f"{name}.*magicseg batch forget ROOT {own.job}"):
        read_all(objects, own.job)
    BatchJobs(objects).forget(own.job, NOW)
    jobs = BatchJobs(objects)
    jobs.refresh()
    assert jobs.open() == []


@pytest.mark.parametrize("name", ["calls.json", "requests.jsonl"])
def test_a_missing_part_is_told_and_the_batch_can_be_forgotten(objects, name):
    _, own = written(objects)
    objects.delete(f".engine/ledger/batches/{own.job}/{name}")
    with pytest.raises(DataError, match=f"{name} is missing.*batch forget"):
        read_all(objects, own.job)
    BatchJobs(objects).forget(own.job, NOW)


@pytest.mark.parametrize("job", ["../x", "", "0123456789abcdef", "a\0b"])
def test_a_batch_that_is_not_there_cannot_be_forgotten(objects, job):
    with pytest.raises(InputError, match="no open batch"):
        BatchJobs(objects).forget(job, NOW)


def test_what_a_killed_process_began_to_write_is_no_batch_and_goes(objects):
    jobs, own = written(objects)
    for name in ("requests.jsonl", "calls.json"):
        objects.write_new(f".engine/ledger/batches/{new_job()}/{name}", b"{}")
    with BatchJobs(objects).leased(lambda: None):
        pass
    paths = objects.paths(".engine/ledger/batches")
    assert {path.split("/")[3] for path in paths} == {own.job}
    jobs.refresh()
    assert len(jobs.open()) == 1
