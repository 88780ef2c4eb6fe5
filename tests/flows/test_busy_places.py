"""What a command cannot have now: busy folders, full disks, a server that does not answer."""

import os
import shutil
import sys

import pytest

from flows.__main__ import main
from storage.locks import hold_file, hold_folder


def test_a_folder_that_is_gone_is_told_from_a_missing_dataset(typed, monkeypatch, capsys, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(sys, "argv", ["magicseg", "status", "runs/mine"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: the current folder is gone; go to another one with 'cd'\n"
    )


@pytest.mark.parametrize(
    ("line", "busy"),
    [
        ("demo --out busy-demo", "busy-demo"),
        ("ablate --preset miniature --out busy-grid", "busy-grid"),
        ("train --dataset tars --out busy-run", "busy-run"),
        ("export --dataset tars --vocabulary miniature --classes miniature --out busy-e", "busy-e"),
    ],
)
def test_the_second_in_a_folder_is_told_who_holds_it(typed, place, line, busy):
    with hold_folder(place / busy):
        code, said = typed(line.split())
    assert code == 3
    assert f"somebody is at work in {busy}: " in said
    assert f"is held by process {os.getpid()} on " in said
    assert len(said.splitlines()) == 1


def test_the_second_report_of_one_name_is_told_who_writes_it_and_the_first_leaves_no_lock(
    typed, place
):
    line = ["report", "--run", "run", "--out", "pages/r.html"]
    with hold_file(place / "pages" / "r.html"):
        code, said = typed(line)
    assert code == 3
    assert f"is held by process {os.getpid()} on " in said
    assert typed(line) == (0, "")
    assert typed(line) == (0, "")  # a page may be written anew
    assert [path.name for path in (place / "pages").iterdir()] == ["r.html"]


def test_a_report_is_written_behind_a_link(typed, place):
    link = place / "newest.html"
    link.symlink_to("pages/newest.html")
    assert typed(["report", "--run", "run", "--out", "newest.html"]) == (0, "")
    assert link.is_symlink()
    assert "<html" in (place / "pages" / "newest.html").read_text()


DONE = ["--slice", "cat,star,balloon", "--samples", "7"]
DONE += ["--set", "samples_per_shard=4", "--set", "texts_per_class_set=1", "--set", "seed=6"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("options", ["size=3m", "size=3m,remount,ro"])
def test_a_finished_slice_needs_neither_space_nor_permission(typed, place, tmp_path, options):
    if os.system(f"mount -t tmpfs -o size=3m tmpfs {tmp_path}"):  # noqa: S605
        pytest.skip("no tmpfs can be mounted here")
    try:
        root = tmp_path / "small"
        shutil.copytree(place / "old-dataset", root)
        if "ro" in options:
            os.system(f"mount -o {options} tmpfs {tmp_path}")  # noqa: S605
        assert typed(["generate", "--root", str(root), *DONE]) == (0, "")
        code, said = typed(["generate", "--root", str(root), *DONE, "--shards", "all", "--help"])
        assert code == 0, said
    finally:
        os.system(f"umount {tmp_path}")  # noqa: S605


@pytest.mark.parametrize(
    ("address", "words", "code"),
    [
        ("http://127.0.0.1:9/api", "no server answers there", 3),
        ("127.0.0.1:4200/api", "which is no address", 2),
        ("http://127.0.0.1:123456/api", "which is no address", 2),
        ("http://", "which is no address", 2),
    ],
)
def test_a_server_that_does_not_answer_is_told_before_anything_is_done(
    typed, monkeypatch, address, words, code
):
    monkeypatch.setenv("PREFECT_API_URL", address)
    found, said = typed(["generate", "--root", "served", "--samples", "4"])
    assert found == code
    assert said.startswith(f"error: PREFECT_API_URL is {address!r}")
    assert words in said
    assert len(said.splitlines()) == 1


def test_something_else_that_answers_is_no_server(typed, monkeypatch, chat_server):
    monkeypatch.setenv("PREFECT_API_URL", chat_server.url)
    code, said = typed(["generate", "--root", "served", "--samples", "4"])
    assert code == 2
    assert "no Prefect API that we can use answers there" in said
    assert len(said.splitlines()) == 1


def test_a_fault_of_ours_is_one_line_and_its_traceback_is_kept(capsys, monkeypatch, tmp_path):
    from flows.command_line import app, run_command

    def boom():
        message = "two\nlines \x1b[31m"
        raise KeyError(message)

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    app.command(boom, name="boom")
    try:
        code = run_command(["boom"])
    finally:
        del app["boom"]
    assert code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: KeyError: ")
    assert len(said.splitlines()) == 1
    assert "\x1b" not in said
    [kept] = tmp_path.iterdir()
    assert f"which is in {kept}" in said
    assert "in boom" in kept.read_text()
