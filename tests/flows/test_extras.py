"""Quotas and the breaker on the miniature, from end to end."""

import pytest
import yaml

from storage.errors import IncompleteError
from storage.records import Stage
from storage.store import Store
from storage.vocabulary import load_vocabulary
from tasks.breaker import BreakerError

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture
def strict(quick, tmp_path):
    """Change the detector's threshold; returns the profile's path."""

    def write(box_threshold):
        document = yaml.safe_load((tmp_path / "quick.yaml").read_text())
        document["labeller"]["detector"]["box_threshold"] = box_threshold
        file = tmp_path / "strict.yaml"
        file.write_text(yaml.safe_dump(document))
        return str(file)

    return write


def test_classes_that_yield_little_get_extras_until_each_has_enough(make, strict, tmp_path, tars):
    wanted = {"profile": strict(0.92), "slice": "apple,balloon,star", "samples": 3}
    wanted |= {"two_class_share": 0.0, "min_per_class": 2, "max_extra": 10.0, "min_yield": 0.0}
    root = tmp_path / "d"
    _, summary = make(root, **wanted)
    assert summary.requested == 3
    assert summary.quota.short == ()
    written = dict.fromkeys(
        (
            load_vocabulary("miniature").by_name(name).class_id
            for name in wanted["slice"].split(",")
        ),
        0,
    )
    for shard in Store.open(root).shards():
        for class_id, each in shard.commit.classes.items():
            written[class_id] += each.written
    assert min(written.values()) >= 2
    extras = {each.name: each.extra for each in summary.quota.classes}
    assert len(set(extras.values())) > 1, "the classes were to differ in yield"
    before = tars(root)
    state, again = make(root, **wanted)
    assert state.name == "Cached"
    assert again.executed == {}
    assert again.quota == summary.quota
    # a run that was killed among the extras comes to the same
    store = Store.open(root)
    own = summary.slice_id
    victim = next(c for c in store.commits(Stage.SHARDS) if c.slice_id != own)
    for stage in (Stage.MASKS, Stage.SHARDS):
        for commit in store.commits(stage):
            if commit.slice_id == victim.slice_id:
                store.withdraw(commit, "as if the run had been killed before")
    painted = len(store.commits(Stage.PAIRS))
    _, third = make(root, **wanted)
    assert third.quota == summary.quota
    assert set(third.executed) == {Stage.MASKS, Stage.SHARDS}
    assert len(store.commits(Stage.PAIRS)) == painted
    assert tars(root) == before
    # what tells the fate of samples is damaged, and is made again
    store = Store.open(root)
    commit = next(c for c in store.commits(Stage.SHARDS) if c.slice_id == own)
    assert commit.manifest is not None
    path = root / commit.manifest.path
    path.write_bytes(b"XXXX" + path.read_bytes()[4:])
    _, less = make(root, **wanted | {"samples": 2, "min_per_class": None})
    assert less.executed == {Stage.SHARDS: 1}
    assert less.requested == 2


def test_a_run_that_finds_nothing_stops_and_goes_on_as_it_is_told(make, strict, tmp_path):
    wanted = {"profile": strict(0.99), "slice": "apple,star", "samples_per_shard": 2}
    wanted |= {"samples": 8, "shards_in_flight": 1, "breaker_samples": 4}
    with pytest.raises(BreakerError, match=r"class-not-found.*breaker_samples=0") as stopped:
        make(tmp_path / "d", **wanted)
    assert isinstance(stopped.value, IncompleteError)
    store = Store.open(tmp_path / "d")
    assert sum(c.counts.requested for c in store.commits(Stage.DETECTIONS)) == 4
    assert (tmp_path / "d" / "README.md").exists()
    with pytest.raises(IncompleteError, match=r"all 8 were dropped \(class-not-found 8\)"):
        make(tmp_path / "d", **wanted | {"breaker_samples": 0})
