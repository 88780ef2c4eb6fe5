"""Paths as people write them: what no system has is refused before anything is opened."""

from pathlib import Path

import pytest

from storage.errors import InputError
from storage.objects import open_objects
from storage.paths import check_place, local_path


def test_a_path_is_taken_as_a_shell_takes_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert local_path("~/runs") == Path("/home/somebody/runs")
    assert local_path("runs/~x/a b") == Path("runs/~x/a b")
    assert local_path(Path()) == Path()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the current folder is '.'"),
        (" \t", "expected a path"),
        ("a\0b", "without the character NUL"),
        ("~nobody-here", "no home folder of ~nobody-here; write the path in full, or ./~nobody"),
        ("~nobody-here/runs", "no home folder of ~nobody-here"),
        ("s3://bucket/runs", "not a URL"),
    ],
)
def test_what_is_no_path_is_refused_by_its_name(text, words):
    with pytest.raises(InputError, match=r"^--out is ") as caught:
        local_path(text, "--out")
    assert words in str(caught.value)


def test_the_way_out_of_an_unknown_home_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~nobody-here").mkdir()
    for path in (local_path("./~nobody-here"), local_path(local_path("./~nobody-here"))):
        assert path.is_dir()


def test_a_place_is_a_path_or_a_url_as_it_was_written():
    for text in ("runs/mine", "~/runs", "s3://bucket/some prefix", "memory://x"):
        assert check_place(text, "--root") == text
    for text in ("", "a\0b", "s3://bucket/a\nb", "s3://bucket/\x1b[2J"):
        with pytest.raises(InputError, match=r"^--root is "):
            check_place(text, "--root")


def test_a_url_of_this_machine_names_a_folder_in_full(tmp_path):
    assert open_objects(f"file://{tmp_path}").url == str(tmp_path)
    for text in ("file://", "file://host/x", "file://~/x", "file://x"):
        with pytest.raises(InputError, match="expected file:///folder"):
            open_objects(text)
