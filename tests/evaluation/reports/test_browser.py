"""The report of a run with 100 classes, opened in a browser as people open it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from benchmarks.report_page import fabricate_scored_run
from evaluation.reports.page import MAX_PAGE_BYTES, write_report

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wide")
    fabricate_scored_run(folder / "run", images=120)
    fabricate_scored_run(folder / "other", images=120, seed=1)
    return write_report(None, [folder / "run"], folder / "r.html", compare=folder / "other")


@pytest.fixture
def opened(browser: Browser, report: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page; nothing but the file itself was asked for when it is closed."""
    scheme, width = getattr(request, "param", ("light", 1300))
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda each: asked.append(each.url))
    page.on("console", lambda each: said.append(each.text))
    page.goto(report.absolute().as_uri())
    yield page
    assert asked[0] == report.absolute().as_uri()
    assert {url.partition(":")[0] for url in asked[1:]} <= {"data"}
    assert said == []
    context.close()


@pytest.mark.parametrize(
    "opened",
    [("light", 1300), ("dark", 1300), ("light", 380)],
    ids=["light", "dark", "narrow"],
    indirect=True,
)
def test_the_page_is_one_file_that_fits_whatever_opens_it(opened: Page, report: Path) -> None:
    assert report.stat().st_size < MAX_PAGE_BYTES
    inside = opened.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert inside[0] <= inside[1]
    ink, paper = opened.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert ink != paper


def test_a_class_is_opened_and_its_images_appear(opened: Page) -> None:
    classes = opened.locator("details.class")
    assert classes.count() > 60
    closed = classes.nth(30)
    image = closed.locator("img").first
    expect(image).to_be_hidden()
    closed.locator("summary").click()
    expect(image).to_be_visible()
    image.scroll_into_view_if_needed()
    opened.wait_for_function(
        "each => each.complete && each.naturalWidth > 20", arg=image.element_handle()
    )
    assert closed.locator(".shot").count() >= 2
    opened.get_by_role("link", name="Close-ups").click()
    expect(opened.locator("#close-ups h2")).to_be_in_viewport()
    opened.get_by_role("link", name="Compared").click()
    expect(opened.locator("#compared h2")).to_have_text("run and other")
