"""The page that `magicseg serve-student` serves, used in a browser, and how it is started."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import expect

from hostile import png_of
from models.miniature.world import render, sample_scene
from runs import write_run
from storage.codecs import decode_label_map, encode_image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CALLS = """
import sys
def note(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        if arguments[1][0] not in ("127.0.0.1", "::1"):
            print("CALLED", arguments[1], file=sys.stderr, flush=True)
    if event == "socket.getaddrinfo" and arguments[0] not in (None, "127.0.0.1", "localhost", b""):
        print("CALLED", arguments[:2], file=sys.stderr, flush=True)
sys.addaudithook(note)
from flows.__main__ import main
main()
"""
WORDS = ("cat", "<img src=http://example.org/x>", "red boat", "${alert(1)} $$x$$ **tree**")

expect.set_options(timeout=20_000)


class Served:
    """`magicseg serve-student` in a process of its own; what it calls outside is written down."""

    def __init__(self, folder, *line):
        folder.mkdir(exist_ok=True)
        self.log = folder / "stderr"
        self.temporary = folder / "tmp"
        self.temporary.mkdir(exist_ok=True)
        with self.log.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", CALLS, "serve-student", *map(str, line)],
                env={**os.environ, "TMPDIR": str(self.temporary)},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        first = self.process.stdout.readline()
        self.url = first.split()[0] if first else ""

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        out, _ = self.process.communicate(timeout=60)
        return self.process.returncode, out, self.log.read_text()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    return write_run(place / "mine"), write_run(place / "older")


@pytest.fixture(scope="module")
def served(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    page = Served(folder, "--run", runs[0], "--compare", runs[1], "--port", 0)
    yield page
    with httpx.stream("GET", f"{page.url}/gradio_api/heartbeat/somebody", timeout=60):
        code, out, errors = page.end()  # while somebody still looks
    assert (code, out) == (0, "stopped; nothing was kept\n")
    assert "CALLED" not in errors
    assert list(page.temporary.iterdir()) == []  # uploads are gone


@pytest.fixture
def page(browser, served):
    """The page; it asks nobody but its server, and its own code has no fault."""
    context = browser.new_context(viewport={"width": 1300, "height": 1100})
    opened = context.new_page()
    wanted, faults = [], []
    opened.on("request", lambda request: wanted.append(request.url))
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    opened.goto(served.url)
    opened.get_by_role("button", name="Find").wait_for(timeout=60_000)
    yield opened
    elsewhere = [url for url in wanted if not url.startswith((served.url, "data:", "blob:"))]
    assert (elsewhere, faults) == ([], [])
    context.close()


@pytest.fixture
def photo(tmp_path):
    file = tmp_path / "my photo.png"
    file.write_bytes(
        encode_image(render(sample_scene(np.random.default_rng(0), class_ids=[0])), "png")
    )
    return file


def note(page):
    return page.get_by_label("Note")


def drop(page, file):
    page.set_input_files("input[type=file]", file)


def find(page, file, words=WORDS):
    drop(page, file)
    expect(note(page)).to_have_value("now press Find")
    page.get_by_label("Words, between").fill("\n".join(words))
    page.get_by_role("button", name="Find").click()
    expect(note(page)).to_have_value(re.compile("words found"))


def cells(page):
    """The table as text, line by line, without its head."""
    rows = page.locator("#table [role=row]").filter(has=page.locator("[role=gridcell]"))
    return [row.locator("[role=gridcell]").all_inner_texts() for row in rows.all()]


def saved(page, tmp_path):
    """Download the label maps of both students."""
    page.get_by_role("button", name="Label map as a file").click()
    links = page.locator("a[download^='labels-']")
    links.first.wait_for()
    maps = []
    for link in links.all():
        with page.expect_download() as coming:
            link.click()
        coming.value.save_as(tmp_path / "download.png")
        maps.append(decode_label_map((tmp_path / "download.png").read_bytes()))
    return maps


def test_words_are_found_as_segment_finds_them_whatever_the_threshold(
    page, photo, runs, type_line, tmp_path
):
    find(page, photo)
    for threshold in (0.35, 0.932):
        if threshold != 0.35:
            before = cells(page)
            number = page.get_by_label(re.compile("number input for Threshold"))
            number.fill(str(threshold))
            number.press("Enter")
            page.wait_for_timeout(500)
            deadline = time.monotonic() + 20
            while cells(page) == before and time.monotonic() < deadline:
                page.wait_for_timeout(100)
        mine, older = saved(page, tmp_path)
        line = ["segment", photo, *(part for word in WORDS for part in ("--word", word))]
        for found, run in ((mine, runs[0]), (older, runs[1])):
            out = tmp_path / f"{run.name}-{threshold}"
            settings = ("--set", f"inference.threshold={threshold}")
            assert type_line(*line, "--run", run, "--out", out, *settings)[0] == 0
            [labels] = out.glob("*.labels.png")
            np.testing.assert_array_equal(found, decode_label_map(labels.read_bytes()))
        [record] = (tmp_path / f"mine-{threshold}").glob("my*.json")
        words = json.loads(record.read_text())["words"]
        shown = cells(page)
        assert [own[0] for own in shown] == list(WORDS)
        assert [own[2].replace(",", "") for own in shown] == [str(own["area"]) for own in words]
        assert [own[4] for own in shown] == [f"{own['best_score']:.3f}" for own in words]


def test_a_heat_map_is_chosen_by_its_word(page, photo):
    find(page, photo, ("cat", "boat"))
    picture = page.locator(".heat img").first
    picture.wait_for()
    before = picture.get_attribute("src")
    page.get_by_label("Heat map of").click()
    options = page.get_by_role("option")
    chosen = page.get_by_label("Heat map of").input_value()
    options.filter(has_text="boat" if chosen == "cat" else "cat").click()
    expect(picture).not_to_have_attribute("src", before)


def test_what_is_wrong_is_told_and_the_page_goes_on(page, photo, tmp_path):
    page.get_by_role("button", name="Find").click()
    expect(note(page)).to_have_value("error: there is no picture yet: drop one")
    find(page, photo, ("cat",))
    page.get_by_label("Words, between").fill("cat,cat")
    page.get_by_role("button", name="Find").click()
    expect(note(page)).to_have_value(re.compile("error: words are .*each once"))
    wide = tmp_path / "wide.png"
    wide.write_bytes(png_of(5000, 4000))
    page.get_by_label("Clear").first.click()
    drop(page, wide)
    expect(note(page)).to_have_value(re.compile("error: the picture has 5000 x 4000 pixels"))
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(photo.read_bytes()[:200])
    page.get_by_label("Clear").first.click()
    drop(page, cut)
    expect(note(page)).to_have_value(re.compile("error: the picture .*choose another picture"))
    page.get_by_label("Clear").first.click()
    find(page, photo, ("cat",))


def test_a_file_that_is_too_large_is_refused_while_it_comes(served):
    files = {"files": ("a.png", bytes(33 * 2**20))}
    answer = httpx.post(f"{served.url}/gradio_api/upload", files=files, timeout=60)
    assert answer.status_code == 413


def asked(served, number, data):
    """What the page's server says to an event that no page of ours sends."""
    body = {"data": data, "fn_index": number, "session_hash": f"s{number}"}
    httpx.post(f"{served.url}/gradio_api/queue/join", json=body, timeout=30)
    url = f"{served.url}/gradio_api/queue/data?session_hash=s{number}"
    with httpx.stream("GET", url, timeout=30) as events:
        for line in events.iter_lines():
            event = json.loads(line.removeprefix("data:")) if line else {}
            if event.get("msg") == "process_completed":
                return event
    raise AssertionError


def test_files_of_the_machine_stay_there(served, photo):
    """What may be named as a picture is what was uploaded."""
    events = httpx.get(f"{served.url}/config", timeout=30).json()["dependencies"]
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        stranger.settimeout(0.5)
        address = f"http://127.0.0.1:{stranger.getsockname()[1]}/a.png"
        for path in (str(photo), address, str(Path.cwd() / "docs" / "quadruplets.png")):
            own = {"path": path, "url": address, "meta": {"_type": "gradio.FileData"}}
            preview = asked(served, events[0]["id"], [own, None])
            found = asked(served, events[1]["id"], [own, "cat", 0.5, None])
            assert (preview["success"], found["success"]) == (False, False)
            assert "data" not in preview["output"]
        with pytest.raises(TimeoutError):
            stranger.accept()
    for path, status in ((f"file={photo}", 403), ("file=/etc/hostname", 403), ("info", 404)):
        assert httpx.get(f"{served.url}/gradio_api/{path}", timeout=30).status_code == status
