"""A hostile user: whatever is typed ends in one line that says why, with the right exit code."""

import runpy
import sys
from pathlib import Path

import pytest

from flows.__main__ import main


@pytest.fixture(scope="session")
def place(tmp_path_factory, drawn_tar):
    """A folder with what bad command lines name: files, folders, broken YAML, tars, a run."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "file").write_text("x\n")
    (folder / "empty").mkdir()
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").write_text("mine\n")
    files = {
        "doubled.yaml": b"root: d\nsamples: 5\nsamples: 6\n",
        "binary.yaml": b"\xff\xfe\x00",
        "broken.yaml": b"root: [",
        "list.yaml": b"- 1",
        "blank.yaml": b"",
        "deep.yaml": b"a: " + b"[" * 100_000,
        "itself.yaml": b"a: &a [*a]",
        "tagged.yaml": b"root: !!python/name:os.system x",
        "nested.yaml": b"root: {a: b}\nsamples: 3",
    }
    for name, contents in files.items():
        (folder / name).write_bytes(contents)
    (folder / "tars").mkdir()
    (folder / "tars" / "train-0.tar").write_bytes(drawn_tar)
    (folder / "run" / "scores").mkdir(parents=True)
    (folder / "run" / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    return folder


@pytest.fixture
def typed(monkeypatch, capsys, place):
    """Type a command line in the place: exit code and what standard error shows."""

    def run(line):
        monkeypatch.chdir(place)
        monkeypatch.setattr(sys, "argv", ["magicseg", *line])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().err

    return run


# a command line, words of its message, and the exit code if it is not that of wrong input
LINES = [
    ("report --run run --out /proc/x/r.html", "/proc/x"),
    ("report --run run --out empty", "empty is a folder"),
    ("report --run run --out file/r.html", "file"),
    ("report --run run --out /dev/full/r.html", "/dev/full"),
    ("report --run run", "--out"),
    ("report --out r.html", "give --dataset, --run"),
    ("report --out r.html --dataset none", "there is no dataset"),
    ("report --out r.html --dataset file", "file"),
    ("report --out r.html --run none", "none is not a folder"),
    ("report --out r.html --run file", "file is not a folder"),
    ("export --dataset tars --vocabulary miniature --classes miniature --out /proc/x", "/proc/x"),
    ("export --dataset tars --vocabulary miniature --classes miniature --out file", "file"),
    ("export --dataset tars --vocabulary miniature --classes miniature --out file/x", "file"),
    ("export --dataset tars --classes miniature --out e", "give --vocabulary"),
    ("export --dataset tars --vocabulary nope --classes miniature --out e", "nope"),
    ("export --dataset tars --vocabulary miniature --classes unicorn --out e", "unicorn"),
    ("export --dataset tars --vocabulary miniature --classes , --out e", "is not in"),
    ("export --dataset none --classes miniature --out e", "none"),
    ("export --dataset file --classes miniature --out e", "file"),
    ("export --dataset tars --out e", "--classes"),
    ("train --dataset tars --out file", "file"),
    ("train --dataset tars --out /etc/hostname", "/etc/hostname"),
    ("train --dataset tars --out /proc/x", "/proc/x"),
    ("train --dataset none", "none"),
    ("train --dataset file", "file"),
    ("train --dataset s3://", "s3://"),
    ("train --dataset tars --set steps", "sets nothing"),
    ("train --dataset tars --set =3", "sets nothing"),
    ("train --dataset tars --set steps=3", "unknown key 'steps'"),
    ("train --dataset tars --set optimiser=3", "optimiser"),
    ("train --dataset tars --set optimiser.steps=[1", "not YAML"),
    ("train --dataset tars --set optimiser.steps=many", "optimiser.steps"),
    ("train --dataset tars --set optimiser.steps=0", "optimiser.steps"),
    ("train --dataset tars --profile nope", "nope"),
    ("train --dataset tars --profile none.yaml", "none.yaml"),
    ("train --dataset tars --profile list.yaml", "list.yaml"),
    ("train", "--dataset"),
    ("generate --root file --samples 4", "file is a file, expected a folder"),
    ("generate --root file/x --samples 4", "file is a file, expected a folder"),
    ("generate --root full --samples four", "four"),
    ("generate --root d --samples 0", "'samples' is 0"),
    ("generate --root d --samples -4", "'samples' is -4"),
    ("generate --root d --samples 99999999999999999999", "cannot be planned"),
    ("generate --root d --samples 4 --slice unicorn", "unicorn"),
    ("generate --root d --samples 4 --slice 9:3", "9:3"),
    ("generate --root d --samples 4 --slice cat,cat", "twice"),
    ("generate --root d --samples 4 --set slice=", "'slice' is None"),
    ("generate --root d --samples 4 --shards 7", "'7'"),
    ("generate --root d --samples 4 --set seed=-1", "'seed' is -1"),
    ("generate --root d --samples 4 --set seed=1e99", "seed"),
    ("generate --root d --samples 4 --set seed=.nan", "seed"),
    ("generate --root d --samples 4 --set sede=1", "did you mean"),
    ("generate --root d --samples 4 --set samples.x=1", "holds a single value"),
    ("generate --root d --samples 4 --set device=quantum", "quantum"),
    ("generate --root d --samples 4 --sed 3", "--sed"),
    ("generate --root foo://bar --samples 4", "foo://bar"),
    ("generate --samples 4", "'root' is missing"),
    ("generate doubled.yaml", "'samples' stands there twice"),
    ("generate binary.yaml", "not YAML"),
    ("generate broken.yaml", "not YAML"),
    ("generate deep.yaml", "lie in one another"),
    ("generate itself.yaml", "*a"),
    ("generate tagged.yaml", "means nothing"),
    ("generate nested.yaml", "'root' is"),
    ("generate list.yaml", "expected a mapping"),
    ("generate blank.yaml", "expected a mapping"),
    ("generate none.yaml", "No such file"),
    ("generate empty", "Is a directory"),
    ("generate file more", "more"),
    ("plan --root file --samples 4", "file"),
    ("plan --root d --samples 1e30", "1e30"),
    ("plan --root d --samples 4 --profile broken.yaml", "broken.yaml"),
    ("plan --root d --samples 4 --set writer={kind:x}", "writer"),
    ("plan none.yaml", "none.yaml"),
    ("status", "--root"),
    ("status none", "there is no dataset"),
    ("status file", "file"),
    ("status file/x", "file"),
    ("status foo://bar", "foo://bar"),
    ("status empty more", "more"),
    ("verify", "--root"),
    ("verify none --deep", "there is no dataset"),
    ("verify file", "file"),
    ("verify empty --deeper", "--deeper"),
    ("evaluate --run none --root none", "none"),
    ("evaluate --run file --root file", "file"),
    ("evaluate --run none", "--root"),
    ("evaluate --run none --root none --limit -1", "'limit' is -1"),
    ("evaluate --run none --root none --split ../x", "../x"),
    ("evaluate --run none --root none --benchmark voc", "open_images"),
    ("evaluate --run none --root none --set benchmark.lvis.images=all", "leave out lvis"),
    ("closed-set --dataset tars --recipe nope --classes miniature", "nope"),
    ("closed-set --dataset tars --recipe list.yaml --classes miniature", "list.yaml"),
    ("closed-set --dataset tars --recipe deeplabv3_miniature --classes unicorn", "unicorn"),
    ("closed-set --dataset tars --classes miniature", "--recipe"),
    ("ablate", "give either"),
    ("ablate list.yaml --preset miniature", "give either"),
    ("ablate --preset huge", "huge"),
    ("ablate none.yaml", "none.yaml"),
    ("ablate list.yaml", "expected a mapping"),
    ("doctor --profile nope", "nope"),
    ("doctor --benchmark voc21", "--root"),
    ("doctor --benchmark voc --root empty", "open_images"),
    ("doctor --set x=y", "means nothing"),
    ("demo --seed -1", "-1"),
    ("demo --seed x", "x"),
    ("demo --out file", "file"),
    ("demo more", "more"),
    ("sttaus", '"status"'),
    ("--hlep", "--hlep"),
]


@pytest.mark.parametrize(("line", "words"), LINES, ids=[line for line, _ in LINES])
def test_a_bad_command_line_ends_in_one_line_that_says_why(typed, line, words):
    code, said = typed(line.split())
    assert code == 2, said
    assert "Traceback" not in said
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    assert words in said


def test_every_command_is_typed_wrongly_here():
    from flows.command_line import app

    commands = {name for name in app if not name.startswith("-")}
    assert commands <= {line.split()[0] for line, _ in LINES}


def test_an_empty_word_is_refused_like_any_other(typed):
    for line in (
        ["generate", "--root", "", "--samples", "4"],
        ["train", "--dataset", ""],
        ["plan", "--root", "d", "--samples", "4", "--profile", ""],
        ["evaluate", "--run", "", "--root", ""],
        [""],
    ):
        code, said = typed(line)
        assert (code, len(said.splitlines())) == (2, 1), said


def test_the_door_itself_can_be_run_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["magicseg"])
    door = Path(__file__).parents[2] / "flows" / "__main__.py"
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(door), run_name="__main__")
    assert ended.value.code == 0
    assert "Usage: magicseg" in capsys.readouterr().out
