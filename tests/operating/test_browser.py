"""The user interface that `magicseg up` serves, used in a browser as people use it."""

import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


expect.set_options(timeout=20_000)


@pytest.fixture
def page(browser, site, tmp_path):
    """A page whose pictures are kept where MAGICSEG_PICTURES says."""
    context = browser.new_context(viewport={"width": 1300, "height": 1100})
    opened = context.new_page()
    opened.set_default_timeout(60_000)
    hosts = set()
    opened.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    yield opened
    assert hosts - {None} == {"127.0.0.1"}
    context.close()


def picture(page, name):
    folder = os.environ.get("MAGICSEG_PICTURES")
    if folder:
        page.wait_for_timeout(1500)
        page.screenshot(path=Path(folder, f"{name}.png"), full_page=True)


def open_form(page, site, deployment):
    found = site.deployment(deployment)
    page.goto(f"{site.url}/deployments/deployment/{found['id']}/run")
    page.get_by_text("Parameters", exact=True).wait_for()


def part(page, name):
    """A field of the form, with its label."""
    label = page.locator(".schema-form-property__label").filter(
        has_text=re.compile(rf"^{name}( \(Optional\))?$")
    )
    return page.locator(".schema-form-property").filter(has=label).last


def field(page, name):
    """The input of a field."""
    return part(page, name).locator("input, textarea").first


def choose(page, item):
    """Choose from the menu at the top of a run's page."""
    page.locator("button.p-button--outline.h-10.w-10").first.click()
    page.locator(".p-overflow-menu-item", has_text=item).click()


def submit(page, site):
    """Send the form, once more if the server is busy, and return the run that it made."""
    before = {run["id"] for run in site.generations()}

    def made():
        return {run["id"] for run in site.generations()} - before

    for _ in range(3):
        page.get_by_role("button", name="Submit").click()
        page.wait_for_timeout(2000)  # the page must get its turn
        with suppress(AssertionError):
            site.wait(made, 30)
            break
    [run_id] = made()
    return run_id


def show_run(page, site, run_id, tab=None):
    page.goto(f"{site.url}/runs/flow-run/{run_id}")
    if tab:
        page.get_by_text(tab, exact=True).first.click()


def test_a_slice_is_run_watched_run_again_broken_and_retried(page, site):
    root = site.data / "by-hand"
    open_form(page, site, "generate-dataset/miniature")
    picture(page, "1-form")
    # the drop-down has the slices
    drop_down = part(page, "slice").locator("button.p-select-button__control")
    drop_down.focus()
    drop_down.press("ArrowDown")
    options = page.locator(".p-select-option")
    for name in ("all", "voc20", "context59", "coco80", "lvis-r", "lvis-c", "lvis-f"):
        expect(options.filter(has_text=name).first).to_be_visible()
    picture(page, "2-slices")
    options.filter(has_text="all").first.click()
    field(page, "samples").fill("24")
    field(page, "root").fill(str(root))
    field(page, "Samples Per Shard").fill("12")
    page.locator("input").first.fill("my own name")
    run_id = submit(page, site)

    # the progress moves while it works
    seen = set()

    def moves():
        found = site.api(
            "/artifacts/filter",
            {"artifacts": {"type": {"any_": ["progress"]}, "flow_run_id": {"any_": [run_id]}}},
        )
        seen.update(float(each["data"]) for each in found)
        return len(seen) >= 3 or site.run(run_id)["state_type"] in {"COMPLETED", "FAILED"}

    site.wait(moves, 200)
    show_run(page, site, run_id, "Artifacts")
    expect(page.get_by_text("magicseg-progress").first).to_be_visible()
    picture(page, "3-running")
    assert len(seen) >= 3
    assert site.end_of(run_id)["state_name"] == "Completed"
    assert site.run(run_id)["name"] == "my own name"

    # every artifact opens; the contact sheet is a picture
    found = site.api("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run_id]}}})
    assert {each["type"] for each in found} == {"progress", "table", "markdown"}
    for each in found:
        page.goto(f"{site.url}/artifacts/artifact/{each['id']}")
        if each["type"] == "markdown":
            image = page.locator("img[alt=quadruplets]")
            image.wait_for()
            assert image.evaluate("each => each.naturalWidth") > 300
        elif each["type"] == "table":
            expect(page.get_by_text("written").first).to_be_visible()
        else:
            expect(page.get_by_text("samples a minute").first).to_be_visible()
        picture(page, f"4-{each['type']}")

    # the log tells of the work, and tasks have names that people can read
    show_run(page, site, run_id, "Logs")
    expect(page.get_by_text(re.compile("committed")).first).to_be_visible()
    assert "pairs · all · 000001" in {each["name"] for each in site.tasks(run_id)}
    picture(page, "5-finished")

    # a rerun of what is finished is two clicks away, and does nothing
    again = rerun(page, site, run_id)
    assert site.end_of(again)["state_name"] == "Cached"

    # a shard is broken: the page says why, Retry makes what is missing and nothing else
    tars = sorted((root / "data").glob("*.tar"))
    tars[1].unlink()
    tars[1].mkdir()
    (tars[1] / "in the way").touch()
    broken = rerun(page, site, run_id)
    assert site.end_of(broken)["state_type"] == "FAILED"
    show_run(page, site, broken, "Details")
    page.get_by_text("See More").click()
    picture(page, "6-broken")
    expect(page.get_by_text("it is a folder, and a file is expected").first).to_be_visible()
    shutil.rmtree(tars[1])
    before = tars[0].stat().st_mtime_ns
    page.get_by_role("button", name="Retry").first.click()
    page.get_by_role("button", name="Retry").last.click()
    site.wait(lambda: site.run(broken)["run_count"] == 2, 120)
    assert site.end_of(broken)["state_name"] == "Completed"
    assert tars[1].is_file()
    assert tars[0].stat().st_mtime_ns == before
    executed = [
        each["name"]
        for each in site.tasks(broken)
        if each["state_name"] == "Completed" and each["flow_run_run_count"] == 2
    ]
    assert executed == ["shards · all · 000001"]


def rerun(page, site, run_id):
    """Choose "Copy to new run" on the page of a run, and send the form as it is."""
    show_run(page, site, run_id)
    choose(page, "Copy to new run")
    page.get_by_text("Parameters", exact=True).wait_for()
    return submit(page, site)


def test_a_run_is_cancelled_with_the_mouse(page, site):
    root = site.data / "cancelled"
    run = site.submit("generate-dataset/miniature", classes=["cat"], samples=64, root=str(root))
    site.wait(
        lambda: any(
            each["name"].startswith("pairs") and each["state_name"] == "Running"
            for each in site.tasks(run["id"])
        ),
        120,
    )
    show_run(page, site, run["id"])
    page.get_by_role("button", name="Cancel").first.click()
    page.get_by_role("button", name="Confirm").click()
    assert site.end_of(run["id"], 60)["state_name"] == "Cancelled"
    picture(page, "7-cancelled")


def test_training_starts_by_itself_and_shows_scores_with_published_rows(page, site):
    root = site.data / "miniature"
    # the drawn pictures stand in for those of PASCAL VOC; as many, else no published number counts
    drawn = DrawnBenchmarkConfig(num_train=0, num_val=1449, num_test=0)
    pictures = write_benchmark(drawn, site.data / "pictures")
    deployment = site.deployment("train-and-evaluate/miniature-training")
    deployed = deployment["parameters"] | {
        "benchmarks": [{"name": "voc21", "root": str(pictures), "split": "val"}],
        "training": {"optimiser": {"steps": 4, "batch_size": 4}},
        "untrained": False,
        "baseline": False,
    }
    site.api(f"/deployments/{deployment['id']}", {"parameters": deployed}, method="PATCH")
    run = site.submit("generate-dataset/miniature", samples=32, ready_after_shards=1)
    assert site.end_of(run["id"], 400)["state_type"] == "COMPLETED"
    flow = {"flows": {"name": {"any_": ["train-and-evaluate"]}}}
    site.wait(lambda: site.runs(**flow), 120)
    [training] = site.runs(**flow)
    assert training["parameters"]["dataset"] == str(root)
    assert training["parameters"]["benchmarks"] == deployed["benchmarks"]
    assert site.end_of(training["id"], 600)["state_type"] == "COMPLETED"
    found = site.api(
        "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [training["id"]]}}}
    )
    scores = next(each for each in found if each["key"] == "magicseg-scores")
    rows = json.loads(scores["data"])
    assert {row["source"] for row in rows} == {"measured", "published"}
    page.goto(f"{site.url}/artifacts/artifact/{scores['id']}")
    expect(page.get_by_text("published").first).to_be_visible()
    picture(page, "8-scores")
    report = next(each for each in found if each["key"] == "magicseg-report")
    page.goto(f"{site.url}/artifacts/artifact/{report['id']}")
    page.wait_for_timeout(2000)
    picture(page, "9-report")
    assert "file:" not in json.dumps(report)
