"""Work is committed in pieces: what is made once is never made again, however it is packed."""

import pytest

from storage.checks import defect
from storage.errors import IncompleteError
from storage.records import Stage
from storage.store import Store

pytestmark = [pytest.mark.server, pytest.mark.slow]


def painted(root):
    """How many pairs were ever painted, by the records of the pieces."""
    pieces = Store.open(root).commits(Stage.PAIRS)
    return sum(each.counts.requested for each in pieces)


def test_growth_paints_what_is_new_and_less_is_a_part_of_what_is_there(make, tmp_path, tars):
    root = tmp_path / "d"
    make(root, samples=8, samples_per_shard=16)
    assert painted(root) == 8
    _, summary = make(root, samples=12, samples_per_shard=16)
    assert painted(root) == 12
    assert summary.executed == {stage: 1 for stage in Stage if not stage.is_optional}
    grown = tars(root)
    for samples in (5, 12, 8):
        state, _ = make(root, samples=samples, samples_per_shard=16)
        assert state.name == "Cached"
    assert tars(root) == grown
    make(tmp_path / "at-once", samples=12, samples_per_shard=16)
    assert tars(tmp_path / "at-once") == grown


def test_another_size_of_shards_packs_anew_and_paints_nothing(make, tmp_path, tars):
    root = tmp_path / "d"
    make(root, samples_per_shard=4, texts_per_class_set=3)
    first = tars(root)
    _, summary = make(root, samples_per_shard=6, texts_per_class_set=3)
    assert summary.executed == {Stage.SHARDS: 2}
    make(tmp_path / "six", samples_per_shard=6, texts_per_class_set=3)
    assert tars(root) == tars(tmp_path / "six")
    _, summary = make(root, samples_per_shard=4, texts_per_class_set=3)
    assert summary.executed == {Stage.SHARDS: 3}
    assert tars(root) == first
    card, other = ((tmp_path / name / "README.md").read_text() for name in ("d", "six"))
    assert card.count("| 3 |") >= 1
    assert other.count("| 2 |") >= 1


def test_texts_that_a_writer_did_not_deliver_are_asked_for_again_and_no_others(
    make, chat_server, tmp_path
):
    writer = {"kind": "chat", "model": "m", "base_url": chat_server.url, "api_key_env": None}
    writer |= {"texts_per_call": 1, "concurrency": 1}
    rules = {"writer": writer, "prompts": {"max_rounds": 1}, "samples": 4}
    root = tmp_path / "d"
    # the run itself asks once more for what is missing
    unreadable = [chat_server.completion(content="I will not write JSON")] * 2
    chat_server.queue += [*unreadable, None, None, *unreadable]
    with pytest.raises(IncompleteError, match=r"2 of 4 samples were not delivered .*run again"):
        make(root, **rules)
    store = Store.open(root)
    (status,) = store.status()
    assert store.shards() == []
    assert sum(status.undelivered.values()) == 2
    asked = len(chat_server.requests)
    with pytest.raises(IncompleteError, match="no sample"):  # these texts are too long to paint
        make(root, **rules)
    assert len(chat_server.requests) == asked + 2
    assert len(store.shards()) == 1
    assert painted(root) <= 4


def test_a_shard_is_packed_without_what_failed_if_the_run_accepts_that(make, chat_server, tmp_path):
    writer = {"kind": "chat", "model": "m", "base_url": chat_server.url, "api_key_env": None}
    writer |= {"texts_per_call": 1, "concurrency": 1}
    chat_server.queue += [chat_server.completion(content="I will not write JSON")] * 2
    rules = {"writer": writer, "prompts": {"max_rounds": 1}, "samples": 4}
    with pytest.raises(IncompleteError, match="no sample"):  # the other texts are too long
        make(tmp_path / "d", accept_failed=True, **rules)
    (shard,) = Store.open(tmp_path / "d").shards()
    assert sum(shard.commit.counts.failed.values()) == 2


def test_damaged_images_are_painted_again_before_anything_is_made_of_them(make, tmp_path, tars):
    """A picture whose bytes differ from the record's must not get masks."""
    make(tmp_path / "whole")
    root = tmp_path / "d"
    make(root)
    store = Store.open(root)
    for stage in (Stage.DETECTIONS, Stage.MASKS, Stage.SHARDS):
        for commit in store.commits(stage):
            store.withdraw(commit, "as if the run had been killed before")
    victim = store.commits(Stage.PAIRS)[0]
    path = root / victim.object.path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert not defect(store.objects, victim, deep=False)
    make(root)
    assert tars(root) == tars(tmp_path / "whole")


def test_a_slice_of_which_nothing_was_written_is_not_done(make, tmp_path):
    for _ in range(2):
        with pytest.raises(IncompleteError, match=r"no sample: all 4 were dropped \(mask-too-"):
            make(tmp_path / "d", samples=4, masks={"min_area": 0.0, "max_area": 0.0})
