import re
from pathlib import Path

import pytest

from flows.command_line import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = [name for name in app if not name.startswith("-")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_resolve(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_shown_exist(page):
    text = page.read_text(encoding="utf-8")
    for command in re.findall(r"magicseg ([a-z][a-z-]*)", text):
        assert command in COMMANDS, f"{page.name} shows magicseg {command}"


def test_every_command_is_documented():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for command in COMMANDS:
        assert re.search(rf"(magicseg|make) {command}\b", text), f"{command} is not documented"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


def test_every_decision_has_a_number_and_a_title():
    for path in (ROOT / "docs" / "decisions").glob("*.md"):
        number = int(path.name[:4])
        assert path.read_text(encoding="utf-8").startswith(f"# {number}. ")
