"""The explorer's server asked to change many samples at one time."""

import json
import subprocess
import sys
import threading

import pytest

from explorable import add_shard, draw, drop, explorable, key_of
from explorer_pages import found, open_page, post
from flows.explorer.curation import MOST_KEYS
from flows.explorer.seen_lists import MOST_LISTS
from storage.card import is_current, write_card
from storage.exclusions import excluded_keys, read_exclusions
from storage.layout import EXCLUSION_FOLDER, MARK_FOLDER
from storage.marks import current_marks, mark_samples, read_marks
from storage.store import Store
from storage.verification import verify_records


@pytest.fixture
def store(tmp_path):
    store = explorable(tmp_path / "d")
    add_shard(store, 0, [draw(place, score=(place + 1) / 10) for place in range(6)], drop(6, 7, 8))
    return store


@pytest.fixture
def page(store):
    return open_page(store)


def many(page, act, *, text="", count=None, **choice):
    """What the page does: asks what it would come to, then says yes to that number."""
    told = post(page, "api/outlook", act=act, **choice)
    assert told.status_code == 200, told.text
    count = told.json()["count"] if count is None else count
    return post(page, "api/changes", act=act, text=text, count=count, **choice)


def keys(*indices):
    return [key_of(each) for each in indices]


def flagged(store):
    marks = current_marks(read_marks(store.objects))
    return {key for key, each in marks.items() if each.flagged}


def test_all_of_a_list_is_left_out_by_one_act_and_taken_back_by_one(page, store):
    write_card(store)
    listed = found(page, most={"score": 0.35})
    assert listed["found"] == 3
    whole = post(page, "api/outlook", list=found(page)["list"], act="exclude").json()
    assert whole == {"count": 6, "already": 0, "dropped": 3, "gone": 0}
    answer = many(page, "exclude", list=listed["list"], text=" too faint ")
    assert answer.status_code == 200, answer.text
    assert answer.json()["count"] == 3
    assert excluded_keys(store.objects) == set(keys(0, 1, 2))
    (path,) = store.objects.paths(EXCLUSION_FOLDER)
    assert path == answer.json()["act"]
    assert {(line.by, line.why) for line in read_exclusions(store.objects)} == {
        ("hand", "too faint")
    }
    assert is_current(store)
    assert verify_records(store) == []
    assert found(page, excluded=True)["found"] == 3
    assert post(page, "api/undo", act=path).json() == {"count": 3}
    assert excluded_keys(store.objects) == frozenset()
    assert len(store.objects.paths(EXCLUSION_FOLDER)) == 2
    assert is_current(store)
    assert post(page, "api/undo", act=path).json() == {"count": 0}
    assert len(store.objects.paths(EXCLUSION_FOLDER)) == 2


def test_chosen_samples_are_flagged_and_taken_back_in(page, store):
    answer = many(page, "flag", keys=keys(1, 2, 7))
    assert answer.json()["count"] == 3
    assert flagged(store) == set(keys(1, 2, 7))
    more = many(page, "flag", keys=keys(2, 3))
    assert more.json()["count"] == 1
    post(page, "api/undo", act=more.json()["act"])
    assert flagged(store) == set(keys(1, 2, 7))
    assert many(page, "unflag", keys=keys(1, 2)).json()["count"] == 2
    assert flagged(store) == {key_of(7)}
    many(page, "exclude", keys=keys(1, 2), text="torn")
    told = post(page, "api/outlook", keys=keys(1, 3, 6), act="include").json()
    assert told == {"count": 1, "already": 2, "dropped": 0, "gone": 0}
    back = many(page, "include", keys=keys(1, 3, 6), text="whole").json()
    assert excluded_keys(store.objects) == {key_of(2)}
    post(page, "api/undo", act=back["act"])
    assert excluded_keys(store.objects) == set(keys(1, 2))
    assert read_exclusions(store.objects)[-1].why == "torn"
    facts = page.get("api/facts", params={"keys": ",".join([*keys(1, 3), "gone"])}).json()
    assert [(each["key"], each["excluded"]) for each in facts] == [
        (key_of(1), "torn"),
        (key_of(3), ""),
    ]


def test_a_list_is_what_was_seen_and_not_what_came_since(page, store):
    seen = found(page, fates=["written"], excluded=False)
    add_shard(store, 1, [draw(9), draw(10)])
    page.get("api/dataset")
    assert found(page, fates=["written"], excluded=False)["found"] == 8
    assert many(page, "exclude", list=seen["list"], text="old").json()["count"] == 6
    assert excluded_keys(store.objects) == set(keys(*range(6)))
    # a shard that went away takes nothing else with it
    seen = found(page, place=key_of(9)[:9])
    (first,) = [shard.commit for shard in store.shards() if shard.name.endswith("0")]
    store.withdraw(first, "to be made again")
    page.get("api/dataset")
    told = post(page, "api/outlook", list=seen["list"], act="flag").json()
    # two of the shard were dropped after they had been painted: their pieces are there
    assert (told["count"], told["gone"]) == (4, 7)
    assert many(page, "flag", list=seen["list"]).json()["count"] == 4


def test_a_yes_to_another_number_writes_nothing(page, store):
    other = open_page(Store.open(store.root))
    seen = found(page, fates=["written"])
    told = post(page, "api/outlook", list=seen["list"], act="exclude").json()["count"]
    many(other, "exclude", keys=keys(3), text="theirs")
    answer = many(page, "exclude", list=seen["list"], text="mine", count=told)
    assert answer.status_code == 400
    assert "asked about 6 samples, and this would change 5 by now" in answer.json()["error"]
    assert excluded_keys(store.objects) == {key_of(3)}
    again = many(page, "exclude", list=seen["list"], text="mine").json()
    assert again["count"] == 5
    post(page, "api/undo", act=again["act"])
    assert excluded_keys(store.objects) == {key_of(3)}  # theirs stays


@pytest.mark.parametrize(
    ("path", "fields", "words"),
    [
        ("outlook", {"act": "flag"}, "expected the name of a list or some keys"),
        ("outlook", {"act": "flag", "list": "x", "keys": ["y"]}, "and not both"),
        ("outlook", {"act": "flag", "list": "0123456789abcdef"}, "the list '0123456789abcdef'"),
        ("outlook", {"act": "note", "list": "x"}, "body.act"),
        ("outlook", {"act": "flag", "keys": ["nobody"]}, "no sample 'nobody' in the dataset"),
        ("outlook", {"act": "flag", "keys": ["x"] * (MOST_KEYS + 1)}, "body.keys"),
        ("outlook", {"act": "flag", "keys": "x"}, "body.keys"),
        ("outlook", {"act": "flag", "keys": ["x"], "colour": 1}, "body.colour"),
        ("changes", {"act": "flag", "keys": ["nobody"], "count": 1}, "no sample 'nobody'"),
        ("changes", {"act": "flag", "keys": [key_of(1)]}, "body.count"),
        ("changes", {"act": "flag", "keys": [key_of(1)], "count": 0}, "body.count"),
        ("changes", {"act": "exclude", "keys": [key_of(1)], "count": 1}, "no reason is given"),
        (
            "changes",
            {"act": "exclude", "keys": [key_of(1)], "count": 1, "text": "x" * 4001},
            "body.text",
        ),
        ("undo", {"act": f"{MARK_FOLDER}/000001-{'0' * 16}.jsonl"}, "there is no act"),
        ("undo", {"act": ".engine/spec.json"}, "body.act"),
        ("undo", {"act": f"{MARK_FOLDER}/../spec.json"}, "body.act"),
        ("undo", {}, "body.act"),
    ],
)
def test_requests_that_are_none_are_refused_in_words(page, store, path, fields, words):
    answer = post(page, f"api/{path}", **fields)
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["error"]
    assert read_marks(store.objects) == read_exclusions(store.objects) == []


def test_only_the_page_itself_changes_many(page, store):
    for path in ("changes", "undo", "outlook"):
        body = json.dumps({"act": "flag", "keys": [key_of(1)], "count": 1})
        simple = {"content-type": "application/json"}
        assert page.post(f"api/{path}", content=body, headers=simple).status_code == 403
        assert page.get(f"api/{path}").status_code in {404, 405}
    assert read_marks(store.objects) == []


def test_lists_are_remembered_for_a_while(page):
    first = found(page)["list"]
    assert found(page)["list"] == first
    for number in range(MOST_LISTS - 1):
        found(page, least={"score": number / 1000})
    assert post(page, "api/outlook", list=first, act="flag").json()["count"] == 9
    for number in range(MOST_LISTS):
        found(page, most={"score": number / 1000})
    answer = post(page, "api/outlook", list=first, act="flag")
    assert answer.status_code == 400
    assert "press Reload" in answer.json()["error"]
    other = open_page(page.store)
    assert post(other, "api/outlook", list=found(page)["list"], act="flag").status_code == 400


def test_pages_and_processes_at_once_lose_nothing(store):
    pages = [open_page(Store.open(store.root)) for _ in range(2)]
    program = (
        "import sys; from storage.store import Store; from storage.marks import mark_samples;"
        "s = Store.open(sys.argv[1]);"
        "[mark_samples(s.objects, sys.argv[2:], 'note', who='p', text=str(n)) for n in range(9)]"
    )
    process = subprocess.Popen([sys.executable, "-c", program, store.root, *keys(0, 1, 2)])

    def change(number):
        own = keys(*range(number * 3, number * 3 + 3))
        for _ in range(5):
            assert many(pages[number], "flag", keys=own).json()["count"] == 3
            assert many(pages[number], "unflag", keys=own).json()["count"] == 3
        assert many(pages[number], "flag", keys=own).json()["count"] == 3
        assert many(pages[number], "exclude", keys=own, text="both").json()["count"] == 3

    threads = [threading.Thread(target=change, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert process.wait(60) == 0
    assert len(read_marks(store.objects)) == 2 * 11 * 3 + 9 * 3
    assert flagged(store) == set(keys(*range(6)))
    assert excluded_keys(store.objects) == set(keys(*range(6)))
    assert {each.note for each in current_marks(read_marks(store.objects)).values()} == {"", "8"}


def test_an_act_that_somebody_put_away_cannot_be_taken_back(page, store, tmp_path):
    path = many(page, "flag", keys=keys(1)).json()["act"]
    (tmp_path / "d" / path).unlink()
    answer = post(page, "api/undo", act=path)
    assert answer.status_code == 400
    assert "there is no act" in answer.json()["error"]


def test_undoing_keeps_what_others_said_since(page, store):
    path = many(page, "flag", keys=keys(1, 2, 3)).json()["act"]
    mark_samples(store.objects, keys(2), "unflag", who="bob")
    mark_samples(store.objects, keys(2, 3), "flag", who="bob")
    assert post(page, "api/undo", act=path).json() == {"count": 1}
    assert flagged(store) == set(keys(2, 3))


def test_a_change_of_one_sample_can_be_taken_back_too(page, store):
    acts = []
    for act, text in (("note", "dark"), ("note", "darker"), ("exclude", "torn"), ("flag", "")):
        answer = post(page, "api/change", key=key_of(1), act=act, text=text).json()
        acts.append(answer["act"])
    assert post(page, "api/change", key=key_of(1), act="exclude", text="again").json()["act"] == ""
    for path in reversed(acts[1:]):
        assert post(page, "api/undo", act=path).json() == {"count": 1}
    (sample,) = page.get("api/facts", params={"keys": key_of(1)}).json()
    assert (sample["note"], sample["excluded"], sample["flagged"]) == ("dark", "", False)


def test_acts_are_taken_back_one_after_the_other(page, store):
    acts = [
        many(page, act, keys=keys(1, 2), text="why").json()["act"]
        for act in ("exclude", "include", "exclude", "flag", "unflag")
    ]
    states = []
    for path in reversed(acts):
        assert post(page, "api/undo", act=path).json() == {"count": 2}
        states.append((len(excluded_keys(store.objects)), len(flagged(store))))
    assert states == [(2, 2), (2, 0), (0, 0), (2, 0), (0, 0)]


def test_a_dataset_that_refuses_to_be_written_to_says_so(bucket):
    store = explorable(bucket.root)
    add_shard(store, 0, [draw(place) for place in range(3)])
    page = open_page(store)
    assert many(page, "exclude", keys=keys(1, 2), text="bad").json()["count"] == 2
    bucket.trouble = (403, "AccessDenied", "no")
    answer = post(page, "api/changes", keys=keys(0), act="flag", count=1)
    assert answer.status_code == 400
    assert "ccess" in answer.json()["error"]
    bucket.trouble = None
    assert flagged(store) == set()
