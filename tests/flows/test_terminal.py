"""What a terminal would obey is shown; what goes wrong in a shard is one line."""

import json
import logging
import sys
from io import StringIO

import pytest
from rich.table import Table

from flows.terminal import OneLine, Terminal, format_json, printable

EVIL = "\x1b[2J\x1b]0;mine\x07cat\x9b31m\u202ekcab\r\x08\x00\x7f"


@pytest.fixture
def shown():
    """Print on a terminal; what arrives there."""

    def show(*renderables, **options):
        output = StringIO()
        terminal = Terminal(file=output, force_terminal=True, color_system=None, width=200)
        terminal.print(*renderables, **options)
        return output.getvalue()

    return show


def test_control_characters_are_spelt_out():
    assert printable(EVIL).isprintable()
    assert printable("\x1b[2J") == r"\x1b[2J"
    assert printable("a\tb\nc \u00e9\u4e2d") == "a\tb\nc \u00e9\u4e2d"


def test_they_reach_no_terminal_in_texts_tables_titles_or_rules(shown):
    table = Table(EVIL, title=EVIL)
    table.add_row(EVIL)
    for line in (shown(EVIL, markup=False), shown(table), shown(f"{EVIL}", soft_wrap=True)):
        assert "cat" in line
        assert not set(line) & set(EVIL) - set(r"[2J]0;mine31mkcabx\\ut")
    assert "\x1b" not in shown(EVIL)


def test_our_own_colours_still_reach_it():
    output = StringIO()
    Terminal(file=output, force_terminal=True, color_system="standard").print("[red]x[/red]")
    assert output.getvalue().startswith("\x1b[31m")


def test_json_hides_nothing_and_obeys_nobody(monkeypatch):
    class Unicode(StringIO):
        encoding = "utf-8"

    monkeypatch.setattr(sys, "stdout", Unicode())
    text = format_json({"name": EVIL, "other": "\u00e9"})
    assert json.loads(text) == {"name": EVIL, "other": "\u00e9"}
    assert "\u00e9" in text
    assert all(line.isprintable() for line in text.splitlines())


def test_an_error_in_the_log_is_one_line_and_leaves_the_traceback_to_others():
    output, kept = StringIO(), StringIO()
    terminal, file = logging.StreamHandler(output), logging.StreamHandler(kept)
    terminal.setFormatter(OneLine())
    log = logging.getLogger("tests.terminal")
    log.propagate = False
    log.handlers = [terminal, file]
    log.error("shard %s failed", 3, exc_info=ValueError("two\nlines \x1b[2J"))
    assert output.getvalue() == (
        "ERROR tests.terminal: shard 3 failed: ValueError: two lines \\x1b[2J\n"
    )
    assert "\nValueError: two\nlines" in kept.getvalue()
