import pytest

from storage.commits import Commit, Counts, ObjectRef
from storage.errors import DataError
from storage.records import Reason, Rejected, Stage

LONG = Rejected(key="k1", stage=Stage.PROMPTS, reason=Reason.TEXT_TOO_LONG, detail="80 > 77")
FAILED = Rejected(key="k2", stage=Stage.PROMPTS, reason=Reason.WRITER_FAILED, detail="503")


def test_reasons_are_split_into_rejected_and_failed():
    counts = Counts.of(4, 1, [LONG, FAILED, LONG])
    assert counts.rejected == {Reason.TEXT_TOO_LONG: 2}
    assert counts.failed == {Reason.WRITER_FAILED: 1}
    assert (counts.dropped, counts.share_written) == (3, 0.25)
    counts.check("it")


def test_the_order_of_the_rejections_does_not_change_the_counts():
    ones, others = Counts.of(3, 1, [LONG, FAILED]), Counts.of(3, 1, [FAILED, LONG])
    assert ones.model_dump_json() == others.model_dump_json()


@pytest.mark.parametrize(("requested", "written"), [(3, 1), (1, 1), (2, 0)])
def test_counts_that_do_not_add_up_are_told(requested, written):
    counts = Counts.of(requested, written, [LONG])
    with pytest.raises(DataError, match=rf"it: {requested} samples requested, but {written} wri"):
        counts.check("it")


def test_nothing_requested_is_a_full_yield():
    assert Counts.of(0, 0, []).share_written == 1.0


def test_a_record_comes_back_from_its_json():
    commit = Commit(
        stage=Stage.SHARDS,
        shard="0badcafe-000003",
        key="0" * 64,
        object=ObjectRef(path="data/x.tar", sha256="a" * 64, size=3),
        manifest=None,
        counts=Counts.of(2, 1, [LONG]),
        seconds=1.5,
        created="2026-11-20T09:00:00+00:00",
        engine_version="0.1.0",
        host="here",
    )
    assert Commit.model_validate_json(commit.model_dump_json()) == commit
    assert commit.slice_id == "0badcafe"
    assert [ref.path for ref in commit.objects] == ["data/x.tar"]
