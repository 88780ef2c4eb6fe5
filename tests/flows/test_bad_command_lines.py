"""A hostile user: whatever is typed ends in one line that says why, with the right exit code."""

import os
import runpy
import shutil
import sys
import tarfile
from pathlib import Path

import pytest

from flows.__main__ import main
from storage.locks import hold_file, hold_folder

ARCHIVE = Path(__file__).parents[1] / "data/old-dataset.tar.xz"
SPECIFICATIONS = {
    "listed": b'{"scheme": 1, "spec": []}',
    "bare": b"{}",
    "nothing": b"",
    "null": b"null",
    "text": b"\xff",
    "deeply": b"[" * 100_000,
    "older": b'{"scheme": 0, "spec": {}}',
    "versionless": b'{"scheme": "1", "spec": {}}',
    "planless": b'{"scheme": 1, "spec": {"plan": 3}}',
    "numbered": b'{"scheme": 1, "spec": {"plan": {"vocabulary": 4}}}',
    "yielding": b'{"scheme": 1, "spec": {"min_yield": NaN}}',
}
"""What a dataset's spec.json may hold that no engine writes."""
LONG = "x" * 300
FAR = "/".join(["y" * 200] * 25)


@pytest.fixture(scope="session")
def place(tmp_path_factory, drawn_tar):
    """A folder with what bad command lines name: files, folders, broken YAML, tars, a run."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "file").write_text("x\n")
    (folder / "empty").mkdir()
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").write_text("mine\n")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    for name, contents in SPECIFICATIONS.items():
        (folder / name / ".engine").mkdir(parents=True)
        (folder / name / ".engine" / "spec.json").write_bytes(contents)
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
        "steps.yaml": b"".join(b" " * depth + b"a:\n" for depth in range(2000)),
        "program.yaml": Path(sys.executable).read_bytes()[:100_000],
        "large.yaml": b"root: " + b"x" * 5_000_000,
        "bomb.yaml": b"a: &a [" + b"x," * 1000 + b"x]\nb: [" + b"*a," * 1000 + b"*a]",
        "latin.yaml": "root: caf\u00e9\nsamples: 4".encode("latin-1"),
        "endless.yaml": b"root: d\nsamples: 1e400",
        "coloured.yaml": b'root: d\n"sam\\e[31mples": 4',
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
    ("report", "--out"),
    ("report --run run --out file", "file is there and is no HTML page"),
    ("report --run run --out run/metrics.jsonl", "is no HTML page"),
    ("report --run run --out pipe", "pipe is no ordinary file"),
    ("report --run run --out loop", "loop is no ordinary file"),
    ("report --run run --out loop/r.html", "loop"),
    (["report", "--run", "run", "--out", LONG], "too long"),
    (["report", "--run", "run", "--out", ""], "--out is ''"),
    (["report", "--run", "run", "--out", "a\0b"], "--out is 'a\\x00b'"),
    ("report --run run --out s3://bucket/r.html", "not a URL"),
    (["report", "--run", "", "--out", "r.html"], "--run is ''"),
    ("report --run ~nobody-here/x --out r.html", "no home folder of ~nobody-here"),
    ("report --run empty --out r.html", "empty holds neither metrics.jsonl nor scores"),
    ("report --run full --out r.html", "full holds neither metrics.jsonl nor scores"),
    ("report --run old-dataset --out r.html", "holds neither metrics.jsonl nor scores"),
    ("report --run run --out r.html --dataset run", "there is no dataset"),
    ("report --run run --out r.html --out s.html", "specified multiple times"),
    ("report --rnu run --out r.html", "Did you mean --run?"),
    ("report --dataset listed --out r.html", "'spec' is []", 3),
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
    ("export --dataset tars --vocabulary miniature --classes miniature --out full", "notes.txt"),
    ("export --dataset tars --vocabulary miniature --classes miniature --out ~nobody-here", "~no"),
    ("export --dataset bare --classes miniature --out e", "'scheme' is missing", 3),
    ("export --datset tars --classes miniature --out e", "Did you mean --dataset"),
    ("train --dataset tars --out full", "full holds other files (such as 'notes.txt')"),
    ("train --dataset tars --out old-dataset", "holds other files"),
    ("train --dataset tars --out s3://bucket/run", "not a URL"),
    ("train --dataset tars --out loop", "loop"),
    ("train --dataset tars --out dangling/x", "dangling"),
    (["train", "--dataset", "tars", "--out", LONG], "too long"),
    (["train", "--dataset", "tars", "--out", FAR], "too long"),
    (["train", "--dataset", "a\0b"], "--dataset is 'a\\x00b'"),
    ("train --dataset ~nobody-here/x", "no home folder of ~nobody-here"),
    ("train --dataset file://host/x --out new", "expected file:///folder"),
    ("train --dataset listed", "'spec' is []", 3),
    ("train --dataset tars --profile ~nobody-here/x.yaml", "~nobody-here"),
    ("train --dataset tars --profile pipe", "pipe"),
    ("train --dataset tars --set seed=1 --set seed=2", "'seed' is set twice"),
    ("train --dataset tars --set optimiser.steps=true", "'optimiser.steps' is true"),
    ("train --dataset tars --set optimiser.learning_rate=.nan", "optimiser.learning_rate"),
    ("train --dataset tars --set optimiser.learning_rate=1e400", "optimiser.learning_rate"),
    ("train --dataset tars --set device=quantum", "quantum"),
    ("train --dataset tars --set device=meta", "'meta' is not supported"),
    ("train --dataset tars --out new --set device=cuda:99", "CUDA devices are"),
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
    ("generate --root d --samples 99999999999999999999", "expected a whole number"),
    ("generate --root d --samples 999999999999999999", "cannot be planned"),
    ("generate --root d --samples 1.5", "--samples is '1.5', expected a whole number"),
    ("generate --root d --samples true", "--samples is 'true'"),
    ("generate --root d --samples nan", "--samples is 'nan'"),
    ("generate --root d --samples 1e400", "--samples is '1e400'"),
    (["generate", "--root", "d", "--samples", ""], "--samples is ''"),
    (["generate", "--root", "d", "--samples", "9" * 5000], "--samples is not a number"),
    ("generate --root d --samples 4 --samples 5", "specified multiple times"),
    ("generate --root d --samples 4 --set samples=5", "by --samples and by --set"),
    ("generate --root d --sampels 4", "Did you mean --samples?"),
    ("generate --root d --samples 4 --set samples_per_shard=true", "'samples_per_shard' is true"),
    ("generate --root d --samples 4 --set samples_per_shard=1.5", "'samples_per_shard' is 1.5"),
    ("generate --root d --samples 4 --set two_class_share=.nan", "'two_class_share' is"),
    ("generate --root d --samples 4 --set two_class_share=.inf", "'two_class_share' is"),
    ("generate --root d --samples 4 --set masks.min_area=true", "'masks.min_area' is true"),
    ("generate --root d --samples 4 --set batch_size=99999999999999999999", "below 2**63"),
    (["generate", "--root", "a\0b", "--samples", "4"], "--root is 'a\\x00b'"),
    (["generate", "--root", LONG, "--samples", "4"], "too long"),
    (["generate", "--root", FAR, "--samples", "4"], "too long"),
    (["generate", "--root", "  ", "--samples", "4"], "--root is ' '"),
    ("generate --root ~nobody-here/x --samples 4", "no home folder of ~nobody-here"),
    ("generate --root loop --samples 4", "loop"),
    ("generate --root /proc/x --samples 4", "/proc"),
    ("generate --root file:// --samples 4", "expected file:///folder"),
    ("generate --root d --samples 4 --set device=cuda:99", "CUDA devices are"),
    ("generate --root listed --samples 4", "'spec' is []", 3),
    ("generate steps.yaml", "lie in one another"),
    ("generate program.yaml", "not YAML"),
    ("generate large.yaml", "more than 4000000 bytes"),
    ("generate bomb.yaml", "holds more than"),
    ("generate latin.yaml", "save it as UTF-8"),
    ("generate endless.yaml", "samples"),
    ("generate coloured.yaml", "unknown key 'sam\\x1b[31mples'"),
    ("generate pipe", "expected a mapping"),
    ("generate loop", "loop cannot be read"),
    (["generate", "a\0b.yaml"], "without the character NUL"),
    (["generate", f"{LONG}.yaml"], "name too long"),
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
    ("plan --root d --samples 1.5", "--samples is '1.5'"),
    (["plan", "--root", "d", "--samples", "4", "--slice", "\x1b[2Jcat"], "\\x1b[2Jcat"),
    ("plan --root numbered --samples 4", "'spec.plan.vocabulary' is 4", 3),
    ("status", "--root"),
    ("status none", "there is no dataset"),
    ("status file", "file"),
    ("status file/x", "file"),
    ("status foo://bar", "foo://bar"),
    ("status empty more", "more"),
    (["status", ""], "the current folder is '.'"),
    (["status", "a\0b"], "without the character NUL"),
    (["status", LONG], "too long"),
    (["status", FAR], "too long"),
    ("status ~nobody-here/x", "no home folder of ~nobody-here"),
    ("status loop", "loop"),
    ("status dangling", "there is no dataset"),
    ("status file://", "expected file:///folder"),
    ("status memory://none", "there is no dataset"),
    (["status", "s3://bucket/a\0b"], "expected a URL of printable characters"),
    *(
        (f"status {name}", "restore it from a copy", 3)
        for name in SPECIFICATIONS
        if name != "older"
    ),
    ("status older", "identity scheme 0"),
    ("status old-dataset --json --json", "specified multiple times"),
    ("status old-dataset --jsno", "Did you mean --json?"),
    (["status", "a\x1b[31mb"], "a\\x1b[31mb"),
    ("verify", "--root"),
    ("verify none --deep", "there is no dataset"),
    ("verify file", "file"),
    ("verify listed --deep", "'spec' is []", 3),
    ("verify planless", "'spec.plan' is 3", 3),
    (["verify", "a\0b", "--deep"], "NUL"),
    ("verify empty --deeper", "--deeper"),
    ("evaluate --run none --root none", "none"),
    ("evaluate --run file --root file", "file"),
    ("evaluate --run none", "--root"),
    ("evaluate --run none --root none --limit -1", "'limit' is -1"),
    ("evaluate --run none --root none --split ../x", "../x"),
    ("evaluate --run none --root none --benchmark voc", "open_images"),
    ("evaluate --run none --root none --set benchmark.lvis.images=all", "leave out lvis"),
    ("evaluate --run run --root empty --limit 1.5", "--limit is '1.5'"),
    ("evaluate --run s3://bucket/run --root empty", "not a URL"),
    (["evaluate", "--run", "a\0b", "--root", "empty"], "NUL"),
    ("evaluate --run ~nobody-here/x --root empty", "~nobody-here"),
    ("evaluate --run run --root empty --rooot x", "Did you mean --root?"),
    (
        "closed-set --dataset tars --recipe deeplabv3_miniature --classes miniature --out full",
        "notes",
    ),
    ("closed-set --dataset listed --recipe deeplabv3_miniature --classes miniature", "'spec'", 3),
    ("closed-set --dataset tars --recipe large.yaml --classes miniature", "4000000 bytes"),
    ("closed-set --dataset tars --recipe nope --classes miniature", "nope"),
    ("closed-set --dataset tars --recipe list.yaml --classes miniature", "list.yaml"),
    ("closed-set --dataset tars --recipe deeplabv3_miniature --classes unicorn", "unicorn"),
    ("closed-set --dataset tars --classes miniature", "--recipe"),
    ("ablate", "give either"),
    ("ablate list.yaml --preset miniature", "give either"),
    ("ablate --preset huge", "huge"),
    ("ablate none.yaml", "none.yaml"),
    ("ablate list.yaml", "expected a mapping"),
    ("ablate --preset miniature --out full", "full holds other files (such as 'notes.txt')"),
    ("ablate --preset miniature --out file", "file"),
    ("ablate --preset miniature --out /proc/x", "/proc/x"),
    ("ablate --preset miniature --set seeds=[true]", "seeds"),
    ("ablate --preset miniature --out a --out b", "specified multiple times"),
    ("doctor --profile nope", "nope"),
    ("doctor --benchmark voc21", "--root"),
    ("doctor --benchmark voc --root empty", "open_images"),
    ("doctor --set x=y", "means nothing"),
    ("generate --root dangling --samples 4", "is a link to nothing"),
    (["doctor", "--root", ""], "--root is ''"),
    ("doctor --profile bomb.yaml", "holds more than"),
    ("demo --seed -1", "-1"),
    ("demo --seed 1.5", "--seed is '1.5'"),
    ("demo --out full", "full holds other files (such as 'notes.txt')"),
    ("demo --out /proc/x", "/proc/x"),
    (["demo", "--out", ""], "--out is ''"),
    (["demo", "--out", LONG], "too long"),
    ("demo --seed x", "x"),
    ("demo --out file", "file"),
    ("demo more", "more"),
    ("sttaus", '"status"'),
    ("--hlep", "--hlep"),
]


def _words(line):
    return line.split() if isinstance(line, str) else line


def _name(line):
    return ascii(" ".join(word if len(word) < 80 else f"{word[:9]}..." for word in _words(line)))


@pytest.mark.parametrize("case", LINES, ids=[_name(line) for line, *_ in LINES])
def test_a_bad_command_line_ends_in_one_line_that_says_why(typed, case):
    line, words, *rest = case
    code, said = typed(_words(line))
    assert code == (rest[0] if rest else 2), said
    assert "Traceback" not in said
    assert "fault of the engine" not in said
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    assert said[:-1].isprintable()
    assert words in said


def test_every_command_is_typed_wrongly_here():
    from flows.command_line import app

    commands = {name for name in app if not name.startswith("-")}
    assert commands <= {_words(line)[0] for line, *_ in LINES}


PLACES = [
    "status @",
    "verify @ --deep",
    "plan @",
    "plan --root @ --samples 4 --profile @.yaml",
    "generate --root @ --samples 4",
    "train --dataset @",
    "train --dataset tars --out @",
    "evaluate --run @ --root empty",
    "evaluate --run run --root @",
    "closed-set --dataset @ --recipe deeplabv3_miniature --classes miniature",
    "closed-set --dataset tars --recipe deeplabv3_miniature --classes miniature --out @",
    "export --dataset @ --vocabulary miniature --classes miniature --out e",
    "export --dataset tars --vocabulary miniature --classes miniature --out @",
    "report --dataset @ --out r.html",
    "report --run @ --out r.html",
    "report --run run --out @",
    "doctor --benchmark voc21 --root @",
    "demo --out @",
    "ablate @",
    "ablate --preset miniature --out @",
]
"""Every argument that takes a path."""
NO_PATHS = {
    "NUL": "a\0b",
    "nobody's home": "~nobody-here/x",
    "empty": "",
    "blank": " ",
    "long name": LONG,
    "long path": FAR,
    "loop": "loop/x",
    "in a file": "file/x",
}


@pytest.mark.parametrize("kind", NO_PATHS)
def test_what_is_no_path_is_refused_by_every_argument_that_takes_one(typed, kind):
    for place in PLACES:
        line = [word.replace("@", NO_PATHS[kind]) for word in place.split()]
        code, said = typed(line)
        assert code == 2, (place, said)
        assert len(said.splitlines()) <= 1, said  # the doctor writes to standard output
        assert "fault of the engine" not in said


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
DONE += ["--set", "samples_per_shard=4", "--set", "texts_per_class_set=1", "--set", "seed=5"]


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
