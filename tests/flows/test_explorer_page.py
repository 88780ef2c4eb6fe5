"""The explorer's page in a browser, used as people use it: by mouse and by keys."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from explorable import NAMES, add_open, add_shard, draw, drop, explorable, key_of
from processes import end_processes
from storage.exclusions import excluded_keys, read_exclusions
from storage.marks import current_marks, read_marks
from storage.records import Reason, Rejected, Stage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


WIDTH = "each => each.decode().then(() => each.naturalWidth)"
"""Of a picture once it is there."""

expect.set_options(timeout=10_000)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = explorable(tmp_path_factory.mktemp("explored") / "d")
    for number in range(9):
        first = number * 8
        written = [draw(first + place, score=(first + place + 1) / 100) for place in range(6)]
        add_shard(store, number, written, drop(first + 6, first + 7))
    text = "<img src=x onerror=\"document.title='broken'\"> a balloon \u202e"
    add_shard(store, 9, [draw(72, text=text)], drop(73, 74, 75))
    return store


@pytest.fixture(scope="module")
def address(store):
    command = [sys.executable, "-m", "flows", "explore", store.root, "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    yield re.search(r"http://\S+", process.stdout.readline())[0]
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    end_processes([process])


@pytest.fixture
def tab(browser, address):
    """Opens the page in windows of their own; none of them asks another server, or fails."""
    contexts, origins, faults = [], set(), []

    def opened(**look):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **look})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("request", lambda request: origins.add(urlsplit(request.url)[:2]))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        page.on(
            "console",
            lambda line: faults.append(line.text) if "Content Security" in line.text else None,
        )
        page.goto(address)
        expect(page.locator(".card").first).to_be_visible()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert origins == {urlsplit(address)[:2]}
    assert faults == []


def picture(page, name):
    folder = os.environ.get("MAGICSEG_PICTURES")
    if folder:
        page.wait_for_timeout(500)
        page.screenshot(path=Path(folder, f"explore-{name}.png"))


def found(page, words):
    expect(page.locator("#found")).to_have_text(words)


def opened(page, index):
    expect(page.locator("#sample code")).to_have_text(key_of(index))


def test_samples_are_filtered_sorted_and_turned_over(tab):
    page = tab()
    found(page, "76 samples")
    expect(page.locator(".card")).to_have_count(60)
    page.get_by_label("next page").click()
    expect(page.locator(".card")).to_have_count(16)
    expect(page.locator("#where")).to_have_text("61\u201376")
    page.locator("#fate").select_option(label="written (55)")
    found(page, "55 samples")
    page.locator("#class").select_option(label=f"{NAMES[4]} (12)")
    found(page, "9 samples")
    page.get_by_label("box score at least").fill("0.3")
    found(page, "5 samples")
    page.locator("#order").select_option("score")
    page.locator("#descending").check()
    expect(page.locator(".card small").first).to_contain_text("box 0.65")
    page.reload()  # the address remembers
    found(page, "5 samples")
    expect(page.get_by_label("box score at least")).to_have_value("0.3")
    page.locator(".chip").click()
    found(page, "32 samples")
    page.get_by_role("button", name="Clear all").click()
    found(page, "76 samples")
    page.keyboard.press("/")
    page.keyboard.type("rocket drawing")
    found(page, "12 samples")
    picture(page, "found")
    page.locator("#words").fill("nowhere")
    found(page, "0 samples")
    expect(page.locator(".empty")).to_contain_text("No sample is like that")


def test_a_sample_is_looked_at_from_all_sides(tab):
    page = tab()
    page.locator(".card").nth(2).click()
    opened(page, 2)
    rows = page.locator("#sample .boxes rect")
    expect(rows).to_have_count(1)
    expect(page.locator("#sample mark").first).to_have_text("cat")
    for locator in ("figure.image .stack > img", "figure.counterfactual .stack > img"):
        image = page.locator(locator).first
        expect(image).to_be_visible()
        assert image.evaluate(WIDTH) == 64
    expect(page.locator(".mask[data-class='2']")).to_be_visible()
    for key, what in (("b", rows.first), ("m", page.locator(".mask").first)):
        page.keyboard.press(key)
        expect(what).to_be_hidden()
        page.keyboard.press(key)
        expect(what).to_be_visible()
    page.keyboard.press("c")
    expect(page.locator("figure.counterfactual")).to_be_hidden()
    page.locator("#show-counterfactual").check()
    page.locator("input[data-class='2']").uncheck()
    expect(rows.first).to_be_hidden()
    page.locator("input[data-class='2']").check()
    page.get_by_text("Record (JSON of the tar)").click()
    expect(page.locator("#sample pre").first).to_contain_text('"instances"')
    page.keyboard.press("j")
    opened(page, 3)
    expect(page.locator(".class bdi")).to_have_text(NAMES[3])
    page.keyboard.press("ArrowLeft")
    opened(page, 2)
    page.keyboard.press("Escape")
    expect(page.locator("#sample")).to_be_hidden()
    for _ in range(4):
        page.keyboard.press("j")
    page.keyboard.press("Enter")
    opened(page, 6)
    expect(page.locator("#sample .fate")).to_have_text("class-not-found at detections: 0.01 < 0.02")
    assert page.locator("figure.image img").first.evaluate(WIDTH) == 64
    page.keyboard.press("j")
    opened(page, 7)
    page.reload()
    opened(page, 7)


def test_samples_are_curated_by_keys(tab, store):
    page = tab()
    page.keyboard.press("Enter")
    opened(page, 0)
    page.keyboard.press("x")
    page.keyboard.type("half a <b>cat</b>")
    page.keyboard.press("Enter")
    expect(page.locator("#sample .out bdi")).to_have_text("half a <b>cat</b>")
    assert excluded_keys(store.objects) == {key_of(0)}
    page.keyboard.press("f")
    expect(page.locator("#sample .flag")).to_be_visible()
    page.keyboard.press("n")
    page.keyboard.type("look again")
    page.keyboard.press("Enter")
    expect(page.locator("#sample p.note")).to_contain_text("look again")
    picture(page, "curated")
    assert current_marks(read_marks(store.objects))[key_of(0)].note == "look again"
    for gone in ("p.note", ".flag", ".out"):
        page.keyboard.press("u")
        expect(page.locator(f"#sample {gone}")).to_have_count(0)
    assert excluded_keys(store.objects) == frozenset()
    assert [line.act for line in read_exclusions(store.objects)] == ["exclude", "include"]
    page.keyboard.press("u")
    expect(page.locator("#message")).to_contain_text("nothing was changed here")
    page.keyboard.press("x")
    page.keyboard.press("Escape")  # asks no more, and the sample stays open
    expect(page.locator("#ask")).to_be_hidden()
    opened(page, 0)
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    page.locator("#clear").press("Enter")  # a button keeps its key
    expect(page.locator("#sample")).to_be_hidden()
    # what was dropped is in no tar
    page.locator("#fate").select_option(label="near-duplicate (1)")
    found(page, "1 sample")
    page.keyboard.press("Escape")
    page.keyboard.press("x")
    page.keyboard.type("bad")
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_contain_text("there is nothing to leave out")


def many(page, name):
    return page.locator("#many").get_by_role("button", name=name)


def agree(page):
    """Says yes once the number is there."""
    expect(page.locator("#ask-yes")).to_be_enabled()
    page.keyboard.press("Enter")


def test_all_that_a_filter_shows_is_changed_and_taken_back(tab, store):
    before = len(read_exclusions(store.objects))
    page = tab()
    page.locator("#class").select_option(label=f"{NAMES[2]} (13)")
    page.get_by_label("box score at most").fill("0.35")
    found(page, "5 samples")
    expect(page.locator("#many-what")).to_have_text("All 5")
    many(page, "Exclude…").click()
    expect(page.locator("#ask-label")).to_have_text(
        "Leave out 5 samples? Why are they to be left out?"
    )
    page.keyboard.type("faint")
    picture(page, "asked")
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_contain_text("5 samples excluded.")
    expect(page.locator(".card .out")).to_have_count(5)
    picture(page, "excluded-many")
    assert len(excluded_keys(store.objects)) == 5
    page.locator("#message").get_by_role("button", name="Undo").click()
    expect(page.locator(".card .out")).to_have_count(0)
    expect(page.locator("#message")).to_contain_text("5 samples as before.")
    assert excluded_keys(store.objects) == frozenset()
    assert len(read_exclusions(store.objects)) == before + 10
    many(page, "Take flags back…").click()
    expect(page.locator("#message")).to_contain_text("There is nothing to change.")
    expect(page.locator("#message")).to_contain_text("5 not flagged")


def test_samples_are_selected_by_mouse_and_keys(tab, store):
    before = len(read_marks(store.objects))
    page = tab()
    picks = page.locator(".tile.picked")
    cards = page.locator(".card")
    cards.nth(1).click(modifiers=["ControlOrMeta"])
    cards.nth(4).click(modifiers=["Shift"])
    expect(picks).to_have_count(4)
    page.locator(".pick").nth(2).click()
    expect(picks).to_have_count(3)
    expect(page.locator("#many-what")).to_have_text("3 selected")
    page.keyboard.press("f")
    expect(page.locator("#ask-label")).to_have_text("Flag 3 samples?")
    page.keyboard.press("Escape")  # no
    expect(page.locator("#ask")).to_be_hidden()
    assert len(read_marks(store.objects)) == before
    page.keyboard.press("f")
    agree(page)
    expect(page.locator("#message")).to_contain_text("3 samples flagged.")
    expect(page.locator(".card .flag")).to_have_count(3)
    picture(page, "selected")
    page.keyboard.press("f")  # all of them are, so: back
    expect(page.locator("#ask-label")).to_have_text("Take back the flags of 3 samples?")
    agree(page)
    expect(page.locator(".card .flag")).to_have_count(0)
    page.keyboard.press("u")
    expect(page.locator(".card .flag")).to_have_count(3)
    page.keyboard.press("u")
    expect(page.locator(".card .flag")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(picks).to_have_count(0)
    expect(page.locator("#many-what")).to_have_text("All 76")
    # by keys alone, across the end of a page
    cards.nth(57).click()
    page.keyboard.press("Escape")
    page.keyboard.press("s")
    expect(picks).to_have_count(1)
    page.keyboard.press("s")
    expect(picks).to_have_count(0)
    for _ in range(2):
        page.keyboard.press("Shift+ArrowRight")
    expect(picks).to_have_count(3)
    page.keyboard.press("Shift+ArrowLeft")
    expect(picks).to_have_count(2)
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    expect(page.locator("#where")).to_have_text("61\u201376")
    expect(page.locator("#many-what")).to_have_text("4 selected")
    expect(picks).to_have_count(1)
    page.keyboard.press("x")
    page.keyboard.type("at the end")
    agree(page)
    expect(page.locator("#message")).to_contain_text("4 samples excluded.")
    left_out = excluded_keys(store.objects)
    page.keyboard.press("u")
    expect(page.locator("#message")).to_contain_text("as before")
    assert left_out == {key_of(each) for each in (57, 58, 59, 60)}
    assert excluded_keys(store.objects) == frozenset()
    page.locator("#words").fill("rocket")
    expect(page.locator("#many-what")).to_have_text("All 12")


def test_many_are_changed_as_they_were_seen_while_others_are_at_work(tab, store):
    first, second = tab(), tab()
    for page in (first, second):
        page.locator("#place").fill(f"{key_of(0)[:8]}-000002")
        found(page, "8 samples")
    many(first, "Exclude…").click()
    expect(first.locator("#ask-label")).to_contain_text(
        "Leave out 6 samples? (The others stay as they are: 2 dropped on the way"
    )
    second.locator(".card").nth(1).click(modifiers=["ControlOrMeta"])
    second.keyboard.press("x")
    second.keyboard.type("mine")
    agree(second)
    expect(second.locator("#message")).to_contain_text("1 sample excluded.")
    first.keyboard.type("all of them")
    first.keyboard.press("Enter")
    expect(first.locator("#message")).to_contain_text("and this would change 5 by now")
    assert len(excluded_keys(store.objects)) == 1
    many(first, "Exclude…").click()
    agree(first)
    expect(first.locator("#message")).to_contain_text("5 samples excluded.")
    second.keyboard.press("u")
    expect(second.locator(".card .out")).to_have_count(5)
    expect(first.locator(".card .out")).to_have_count(6)
    first.keyboard.press("u")
    expect(first.locator(".card .out")).to_have_count(0)
    assert excluded_keys(store.objects) == frozenset()


def test_two_tabs_and_a_dataset_that_grows(tab, store):
    first, second = tab(), tab()
    first.keyboard.press("f")
    expect(first.locator(".card .flag")).to_have_count(1)
    second.keyboard.press("j")
    second.keyboard.press("f")
    expect(second.locator(".card .flag")).to_have_count(1)
    second.locator("#flagged").select_option("yes")
    found(second, "2 samples")
    add_shard(store, 10, [draw(80), draw(81)])
    found(first, "76 samples")
    first.get_by_role("button", name="Reload").click()
    found(first, "78 samples")
    # a sample vanishes while the page shows it
    (commit,) = [shard.commit for shard in store.shards() if shard.name.endswith("10")]
    first.locator("#place").fill(commit.shard)
    found(first, "2 samples")
    store.withdraw(commit, "to be made again")
    first.locator(".card").first.click()
    expect(first.locator("#message")).to_contain_text("committed but gone")
    first.get_by_role("button", name="Reload").click()
    found(first, "0 samples")
    for page in (first, second):
        with page.expect_response(lambda answer: answer.request.method == "POST"):
            page.keyboard.press("u")  # the other page is asked when this is written
    second.locator("#flagged").select_option("no")
    found(second, "76 samples")


def test_shards_that_are_not_packed_yet(tab, store):
    cell = store.cell_samples * 4  # of its own, and the first of a shard
    late = [draw(cell + each, score=0.9) for each in range(5)]
    lost = Rejected(
        key=late[0].key, stage=Stage.DETECTIONS, reason=Reason.CLASS_NOT_FOUND, detail="0.1 < 0.2"
    )
    add_open(store, late, Stage.MASKS, [lost])
    page = tab()
    expect(page.locator("#totals")).to_contain_text("4 not packed yet, of 1 shard")
    page.locator("#place").fill(f"{key_of(0)[:8]}-{cell // 8:06d}")
    found(page, "5 samples")
    picture(page, "open")
    page.locator("#fate").select_option(label="not packed yet (4)")
    found(page, "4 samples")
    expect(page.locator(".card .open").first).to_have_text("not packed yet")
    many(page, "Exclude…").click()
    page.keyboard.type("at work")
    agree(page)
    expect(page.locator("#message")).to_contain_text("4 samples excluded.")
    page.locator(".card").nth(1).click()
    opened(page, late[2].index)
    expect(page.locator("#sample .open")).to_have_text("not packed yet: the stage masks is done")
    expect(page.locator("#sample .boxes rect")).to_have_count(1)
    expect(page.locator(".mask").first).to_be_visible()
    picture(page, "open-sample")
    add_shard(store, cell // 8, late[1:], drop(cell))
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    expect(page.locator("#totals")).not_to_contain_text("not packed yet")
    page.locator("#clear").click()
    page.locator("#excluded").select_option("yes")
    found(page, "4 samples")
    expect(page.locator(".card .open")).to_have_count(0)
    page.keyboard.press("u")
    expect(page.locator(".card .out")).to_have_count(0)
    (packed,) = [each.commit for each in store.shards() if each.name.endswith(f"{cell // 8:06d}")]
    store.withdraw(packed, "not of the other tests")
    for commit in store.commits():
        if late[1].key in commit.verdicts:
            with store.lease(commit.stage, commit.shard):
                store.withdraw(commit, "not of the other tests")


@pytest.mark.parametrize(
    "look",
    [
        {"color_scheme": "dark"},
        {"color_scheme": "light", "viewport": {"width": 390, "height": 800}},
    ],
    ids=["dark", "narrow"],
)
def test_texts_of_a_hostile_world_stay_texts_on_every_screen(tab, look, request):
    page = tab(**look)
    picture(page, request.node.callspec.id)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.evaluate("document.getElementById('panel').open = true")
    page.locator("#words").fill("onerror")
    page.locator("#fate").select_option(label="written (55)")
    found(page, "10 samples")
    page.locator(".card").last.click()
    opened(page, 72)
    expect(page.locator("#sample figcaption").first).to_contain_text("<img src=x onerror")
    assert "broken" not in page.title()
    picture(page, f"sample-{request.node.callspec.id}")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_an_explorer_that_was_stopped_says_so(tab):
    page = tab()
    page.route("**/api/**", lambda route: route.abort())
    page.get_by_role("button", name="Reload").click()
    expect(page.locator("#message")).to_contain_text("it has been stopped; start it again")
    page.unroute("**/api/**")
    answer = {"status": 400, "body": json.dumps({"error": "the folder cannot be written to"})}
    page.route("**/api/change", lambda route: route.fulfill(**answer))
    page.keyboard.press("f")
    expect(page.locator("#message")).to_contain_text("the folder cannot be written to")
    expect(page.locator(".card .flag")).to_have_count(0)
