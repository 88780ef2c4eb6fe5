"""The explorer over a dataset that is being made: shards that are not packed yet."""

import pytest

from explorable import add_open, add_shard, draw, drop, explorable, key_of
from explorer_pages import found, open_page, post
from storage.exclusions import count_excluded, excluded_keys
from storage.marks import current_marks, read_marks
from storage.records import Reason, Rejected, Stage
from storage.sample_columns import OPEN
from storage.store import Store
from storage.verification import verify_records

SOME = [draw(each, score=each / 100) for each in range(8, 18)]


@pytest.fixture
def store(tmp_path):
    store = explorable(tmp_path / "d")
    add_shard(store, 0, [draw(place) for place in range(6)], drop(6, 7))
    lost = Rejected(
        key=key_of(8), stage=Stage.DETECTIONS, reason=Reason.CLASS_NOT_FOUND, detail="0.1 < 0.2"
    )
    add_open(store, SOME, Stage.MASKS, [lost])
    return store


def test_open_samples_are_counted_apart_and_shown(store):
    page = open_page(store)
    described = page.get("api/dataset").json()
    assert (described["samples"], described["written"], described["open"]) == (18, 6, 9)
    assert (described["shards"], described["open_shards"]) == (1, 2)
    assert {each["name"]: each["count"] for each in described["reasons"]} == {
        "class-not-found": 2,
        "mask-too-small": 1,
    }
    assert described["problems"] == []
    listed = found(page, fates=[OPEN], most={"score": 0.1}, order="score")["samples"]
    assert [(each["key"], each["fate"]) for each in listed] == [
        (key_of(9), OPEN),
        (key_of(10), OPEN),
    ]
    sample = page.get(f"api/samples/{key_of(9)}").json()
    assert (sample["fate"], sample["stage"], sample["detail"]) == (OPEN, "masks", "")
    assert sample["pictures"] == {
        "image": True, "counterfactual": True, "masks": True, "ignored": False,
    }  # fmt: skip
    assert (sample["width"], sample["height"]) == (64, 64)
    assert sample["objects"][0]["score"] == 0.09
    assert "".join(each["text"] for each in sample["text"]) == SOME[1].text
    assert sample["row"]["status"] == OPEN
    assert page.get(f"api/samples/{key_of(9)}/image").content == SOME[1].image_bytes
    assert page.get(f"api/samples/{key_of(9)}/thumbnail").status_code == 200
    assert page.get(f"api/samples/{key_of(9)}/mask?name=3").status_code == 200
    dropped = page.get(f"api/samples/{key_of(8)}").json()
    assert (dropped["fate"], dropped["stage"]) == ("class-not-found", "detections")
    assert dropped["detail"] == "0.1 < 0.2"


def test_what_is_said_of_open_samples_holds_once_they_are_packed(store):
    page = open_page(store)
    told = post(
        page, "api/outlook", list=found(page, place="0badcafe-000001")["list"], act="exclude"
    )
    assert told.json() == {"count": 7, "already": 0, "dropped": 1, "gone": 0}
    answer = post(
        page, "api/changes", keys=[key_of(9), key_of(16)], act="exclude", text="dark", count=2
    )
    assert answer.status_code == 200, answer.text
    assert post(page, "api/change", key=key_of(10), act="note", text="look").status_code == 200
    refused = post(page, "api/change", key=key_of(8), act="exclude", text="bad")
    assert "it was dropped on the way" in refused.json()["error"]
    assert verify_records(store) == []
    assert count_excluded(store) == {}  # none of a finished shard
    seen = found(page, fates=[OPEN], excluded=False)
    add_shard(store, 1, SOME[1:8], drop(8))
    page.get("api/dataset")
    packed = found(page, excluded=True)["samples"]
    assert [(each["key"], each["fate"]) for each in packed] == [
        (key_of(9), "written"),
        (key_of(16), OPEN),
    ]
    assert count_excluded(store) == {key_of(0)[:8]: {"hand": 1}}
    # those that were seen, packed by now or not
    many = post(page, "api/changes", list=seen["list"], act="flag", count=7)
    assert many.json()["count"] == 7
    marks = current_marks(read_marks(store.objects))
    assert {key for key, each in marks.items() if each.flagged} == {
        key_of(each) for each in (*range(10, 16), 17)
    }


@pytest.mark.server
@pytest.mark.slow
def test_a_run_is_looked_at_before_and_after_its_shards_are_packed(make, tmp_path):
    make(tmp_path / "d", samples=4)
    store = Store.open(tmp_path / "d")
    packed = open_page(store)
    after = {each["key"]: each for each in found(packed)["samples"]}
    full = {key: packed.get(f"api/samples/{key}").json() for key in after}
    images = {key: packed.get(f"api/samples/{key}/image").content for key in after}
    for shard in store.shards():
        store.withdraw(shard.commit, "to be packed again")
    page = open_page(Store.open(store.root))
    before = {each["key"]: each for each in found(page)["samples"]}
    assert before.keys() == after.keys()
    written = [key for key, each in after.items() if each["fate"] == "written"]
    assert written
    for key, each in after.items():
        early, late = page.get(f"api/samples/{key}").json(), full[key]
        assert early["notes"] == []
        assert early["fate"] == (OPEN if key in written else each["fate"])
        assert early["shard"] == late["shard"]
        same = ["text", "counterfactual_text", "objects", "width", "height"]
        if key not in written:
            same += ["stage", "detail", "classes"]
        for name in same:
            assert early[name] == late[name], (key, name)
        if key in written:
            assert early["measures"].get("score") == late["measures"]["score"]
            assert page.get(f"api/samples/{key}/image").content == images[key]
    one = post(page, "api/changes", keys=written[:1], act="exclude", text="dark", count=1)
    assert one.json()["count"] == 1
    make(tmp_path / "d", samples=4)
    page.get("api/dataset")
    assert [each["key"] for each in found(page, excluded=True)["samples"]] == written[:1]
    assert page.get("api/dataset").json()["open_shards"] == 0
    assert excluded_keys(store.objects) == set(written[:1])
    assert sum(count_excluded(store)[written[0][:8]].values()) == 1
