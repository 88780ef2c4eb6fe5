"""The explorer's server: what it answers, to whom, and what it writes."""

import json
import re
import threading

import pytest
from starlette.testclient import TestClient

from explorable import NAMES, add_shard, draw, drop, explorable, key_of
from explorer_pages import OURS, found, open_page
from flows.explorer.guard import MAX_BODY
from storage.card import is_current, write_card
from storage.exclusions import excluded_keys, read_exclusions
from storage.marks import current_marks, read_marks
from storage.objects import open_objects
from storage.store import Store
from storage.verification import verify_records


def change(client, act, index, text="", **headers):
    body = json.dumps({"key": key_of(index), "act": act, "text": text})
    return client.post("api/change", content=body, headers={**OURS, **headers})


@pytest.fixture
def store(tmp_path):
    store = explorable(tmp_path / "d")
    add_shard(store, 0, [draw(place, score=(place + 1) / 10) for place in range(6)], drop(6, 7, 8))
    return store


@pytest.fixture
def page(store):
    return open_page(store)


def test_the_page_and_its_parts_are_served_and_name_no_other_server(page):
    html = page.get("")
    assert html.headers["content-type"] == "text/html; charset=utf-8"
    named = set(re.findall(r'(?:src|href)="([^"]+)"', html.text))
    assert named == {"icon.svg", "explore.css", "list.js"}
    for name in (*named, "common.js", "sample.js"):
        part = page.get(name)
        assert part.status_code == 200
        assert "://" not in part.text.replace("http://www.w3.org/2000/svg", "")
        assert part.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in html.headers["content-security-policy"]
    for name in ("docs", "openapi.json", "../storage/store.py", "explore.html"):
        assert page.get(name).status_code in {403, 404}


def test_the_dataset_is_described(page, store):
    described = page.get("api/dataset").json()
    assert (described["samples"], described["written"], described["shards"]) == (9, 6, 1)
    assert [each["name"] for each in described["reasons"]] == [
        *("class-not-found", "mask-too-small", "near-duplicate"),
    ]
    assert {each["name"] for each in described["classes"]} == {NAMES[i] for i in range(6)}
    assert described["root"] == store.root


def test_a_sample_in_full(page):
    sample = page.get(f"api/samples/{key_of(3)}").json()
    assert sample["text"][1] == {"text": NAMES[3], "colour": sample["classes_in_full"][0]["colour"]}
    assert sample["pictures"] == {
        "image": True, "counterfactual": True, "masks": True, "ignored": True,
    }  # fmt: skip
    assert sample["objects"][0]["score"] == 0.4
    assert sample["record"]["instances"][0]["rle"]
    assert sample["row"]["key"] == key_of(3)
    for kind, size in (("image", draw(3).image_bytes), ("counterfactual", None)):
        picture = page.get(f"api/samples/{key_of(3)}/{kind}")
        assert picture.headers["content-type"] == "image/png"
        assert size is None or picture.content == size
    assert page.get(f"api/samples/{key_of(3)}/mask?name=3").content.startswith(b"\x89PNG")
    assert page.get(f"api/samples/{key_of(3)}/mask?name=ignored").status_code == 200
    assert page.get(f"api/samples/{key_of(3)}/thumbnail").content.startswith(b"\xff\xd8")


def test_a_dropped_sample_in_full(page):
    sample = page.get(f"api/samples/{key_of(6)}").json()
    assert (sample["fate"], sample["stage"]) == ("class-not-found", "detections")
    assert sample["detail"] == "0.01 < 0.02"
    assert sample["pictures"]["image"]
    assert sample["record"] is None
    assert page.get(f"api/samples/{key_of(6)}/thumbnail").status_code == 200
    unpainted = page.get(f"api/samples/{key_of(8)}").json()
    assert unpainted["notes"] == ["it was dropped at prompts: no image was kept of it"]
    for kind in ("thumbnail", "image", "counterfactual", "mask?name=0"):
        assert page.get(f"api/samples/{key_of(8)}/{kind}").status_code == 404


def test_samples_are_listed_by_filters(page):
    assert found(page)["found"] == 9
    listed = found(page, fates=["written"], order="score", descending=True)["samples"]
    assert [each["key"] for each in listed] == [key_of(each) for each in (5, 4, 3, 2, 1, 0)]
    assert found(page, words="rocket")["found"] == 1
    part = page.get("api/samples", params={"start": 4, "count": 2}).json()
    assert [each["key"] for each in part["samples"]] == [key_of(4), key_of(5)]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("api/samples?query=[]", "the filter cannot be read"),
        ("api/samples?query={", "the filter cannot be read"),
        ('api/samples?query={"order":"x"}', "the filter cannot be read ('order' is 'x'"),
        ('api/samples?query={"colour":"x"}', "unknown key 'colour'"),
        ('api/samples?query={"least":{"key":1}}', "least.key"),
        ("api/samples?start=-1", "query.start"),
        ("api/samples?count=501", "query.count"),
        ("api/samples?count=many", "query.count"),
        (f"api/samples?query={'x' * 20_000}", "query.query"),
        ("api/samples/nobody", "there is no sample 'nobody' in the dataset any more"),
        ("api/samples/nobody/thumbnail", "no sample 'nobody'"),
        ("api/samples/nobody/image", "no sample 'nobody'"),
        ("api/samples/%00/mask?name=1", "no sample"),
        ("api/samples/x/mask?name=../x", "query.name"),
        ("api/samples/x/passwd", "path.kind"),
    ],
)
def test_questions_that_are_none_are_refused_in_words(page, path, words):
    answer = page.get(path)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


def test_what_is_said_is_kept_beside_the_samples(page, store):
    write_card(store)
    assert change(page, "flag", 1).json()["flagged"]
    assert change(page, "note", 7, " too dark ").json()["note"] == "too dark"
    assert change(page, "exclude", 2, "half a cat").json()["excluded"] == "half a cat"
    assert change(page, "exclude", 2, "again").json()["excluded"] == "half a cat"
    assert excluded_keys(store.objects) == {key_of(2)}
    (line,) = read_exclusions(store.objects)
    assert (line.by, line.why) == ("hand", "half a cat")
    assert "@" in line.who
    assert is_current(store)
    assert verify_records(store) == []
    assert not change(page, "include", 2, "it is whole").json()["excluded"]
    assert not change(page, "include", 2, "it is whole").json()["excluded"]
    assert not change(page, "unflag", 1).json()["flagged"]
    assert len(read_marks(store.objects)) == 3
    said = page.get(f"api/samples/{key_of(2)}").json()["history"]
    assert [each["act"] for each in said] == ["exclude", "include"]
    again = open_page(Store.open(store.root))  # another start
    assert found(again, noted=True)["samples"][0]["key"] == key_of(7)


@pytest.mark.parametrize(
    ("act", "index", "text", "words"),
    [
        ("exclude", 1, " ", "no reason is given"),
        ("exclude", 6, "bad", "is in no tar, so there is nothing to leave out"),
        ("flag", 99, "", "in the dataset any more"),
        ("destroy", 1, "", "body.act"),
        ("note", 1, "x" * 4001, "body.text"),
    ],
)
def test_changes_that_are_none_are_refused_in_words(page, store, act, index, text, words):
    answer = change(page, act, index, text)
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    assert read_marks(store.objects) == read_exclusions(store.objects) == []


def test_two_pages_at_once_lose_nothing(store):
    pages = [open_page(Store.open(store.root)) for _ in range(2)]

    def mark(number):
        for index in range(6):
            assert change(pages[number], "note", index, f"{number}").status_code == 200
            assert change(pages[number], "flag", index).status_code == 200

    threads = [threading.Thread(target=mark, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = read_marks(store.objects)
    assert len(history) == 24
    assert len(set(history)) == 24
    assert all(each.flagged for each in current_marks(history).values())
    for each in pages:
        assert page_of(each, 3)["flagged"]


def page_of(client, index):
    return client.get(f"api/samples/{key_of(index)}").json()


def test_whoever_is_not_the_page_is_refused(page, store):
    guard = page.guard
    stranger = TestClient(guard, base_url="http://127.0.0.1:8000")
    for path in ("/", "/api/dataset", "/x/api/dataset", f"/{guard.token[:-1]}/", "//", "/%ff/"):
        answer = stranger.get(path)
        assert answer.status_code == 403
        assert "not that of the explorer that runs now" in answer.text
    for host in ("evil.example:8000", "127.0.0.1.evil.example", "[::2]", "[", "", "10.0.0.1"):
        answer = page.get("api/dataset", headers={"host": host})
        assert answer.status_code == 421, host
    assert page.get("api/dataset", headers={"host": "localhost:9000"}).status_code == 200
    refusals = [
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"content-type": "text/plain"},
    ]
    for headers in refusals:
        assert change(page, "flag", 1, **headers).status_code == 403, headers
    body = json.dumps({"key": key_of(1), "act": "flag"})
    simple = {"content-type": "application/json"}
    assert page.post("api/change", content=body, headers=simple).status_code == 403
    assert read_marks(store.objects) == []
    origin = {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}
    assert change(page, "flag", 1, **origin).status_code == 200


def test_no_request_is_large(page, store):
    assert change(page, "note", 1, "x" * MAX_BODY).status_code == 413

    def pieces():  # whose length is not said before
        for _ in range(20):
            yield b"x" * 10_000

    answer = page.post("api/change", content=pieces(), headers=OURS)
    assert answer.status_code == 413
    assert read_marks(store.objects) == []


def test_the_address_on_a_browsers_command_line_works_once(page):
    stranger = TestClient(page.guard, base_url="http://127.0.0.1:8000", follow_redirects=False)
    path = f"/open/{page.guard.opening}"
    assert stranger.get(path).headers["location"] == f"/{page.guard.token}/"
    assert stranger.get(path).status_code == 403
    assert stranger.get("/open/").status_code == 403


def test_a_bucket_is_looked_through_and_one_that_refuses_to_write_says_so(bucket):
    store = explorable(bucket.root)
    add_shard(store, 0, [draw(place) for place in range(3)], drop(3))
    page = open_page(store)
    assert page.get(f"api/samples/{key_of(1)}/image").content == draw(1).image_bytes
    assert page.get(f"api/samples/{key_of(3)}/thumbnail").status_code == 200
    assert change(page, "exclude", 1, "bad").status_code == 200
    assert excluded_keys(open_objects(bucket.root)) == {key_of(1)}
    bucket.trouble = (403, "AccessDenied", "no")
    answer = change(page, "flag", 2)
    assert answer.status_code == 400
    assert "AccessDenied" in answer.json()["error"] or "denied" in answer.json()["error"]
    assert found(page)["found"] == 4
    bucket.trouble = None
    assert not page_of(page, 2)["flagged"]


def test_damage_is_told_and_the_rest_is_shown(store, tmp_path):
    add_shard(store, 1, [draw(9), draw(10)])
    page = open_page(store)
    (manifest,) = (tmp_path / "d/.engine/manifests").glob("*000001.parquet")
    manifest.write_bytes(b"PAR1" + bytes(50) + b"PAR1")
    assert page.get(f"api/samples/{key_of(9)}").status_code == 500
    assert "000001.parquet" in page_of(page, 9)["error"]
    assert page.get("api/dataset").json()["samples"] == 11  # its digest is known already
    again = open_page(store)
    described = again.get("api/dataset").json()
    assert described["samples"] == 9
    assert "000001.parquet is not what was committed" in described["problems"][0]
    for tar in (tmp_path / "d/data").glob("*.tar"):
        tar.unlink()
    sample = page_of(again, 1)
    assert "is committed but gone" in sample["notes"][0]
    assert again.get(f"api/samples/{key_of(1)}/thumbnail").status_code == 404


def test_damaged_marks_are_told_and_samples_are_shown(page, store):
    assert change(page, "flag", 1).json()["flagged"]
    (path,) = store.objects.paths(".engine/marks")
    store.objects.write_new(path.replace("000001", "000002"), b"{}\n")
    sample = page_of(page, 1)
    assert sample["flagged"]
    assert sample["pictures"]["image"]
    assert "000002" in sample["notes"][0]
    assert "000002" in page.get("api/dataset").json()["problems"][0]
    assert found(page)["found"] == 9


def test_a_folder_that_cannot_be_written_to_is_looked_through(store, tmp_path):
    (tmp_path / "d/.engine/marks").write_text("in the way")
    page = open_page(store)
    answer = change(page, "flag", 1)
    assert answer.status_code == 400
    assert "marks" in answer.json()["error"]
    assert found(page)["found"] == 9
    assert page_of(page, 1)["pictures"]["image"]


def test_texts_of_a_hostile_world_stay_texts(tmp_path):
    store = explorable(tmp_path / "d")
    text = "</script><script>alert(1)</script> \u202e and \u0000 a balloon"
    add_shard(store, 0, [draw(0, text=text)])
    sample = page_of(open_page(store), 0)
    assert "".join(each["text"] for each in sample["text"]) == text
    assert sample["row"]["text"] == text
