"""A hostile user: whatever is typed ends in one line that says why, with the right exit code."""

import runpy
import sys
from pathlib import Path

import pytest

from bad_places import SPECIFICATIONS

LONG = "x" * 300
FAR = "/".join(["y" * 200] * 25)


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
    ("export --dataset bare --classes miniature --out e", "expected scheme and spec", 3),
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
    (["train", "--dataset", "tars", "--set", f"device={'x' * 50_000}"], "expected auto, cpu, cuda"),
    (["train", "--dataset", "tars", "--set", 'shard_cache="a\\0b"'], "without the character NUL"),
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
    ("generate pipe", "a pipe into which nobody writes"),
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
    ("gc none", "there is no dataset"),
    ("gc file --yes", "file"),
    ("gc old-dataset --yse", "Did you mean --yes?"),
    ("merge", "ROOTS"),
    ("merge old-dataset", "--out"),
    ("merge none tars --out x", "there is no dataset"),
    ("merge old-dataset --out x", "expected two or more"),
    ("merge old-dataset old-dataset --out x", "hold the same dataset"),
    ("merge old-dataset file --out x", "file"),
    (["merge", "old-dataset", "", "--out", "x"], "argument is ''"),
    (["merge", "old-dataset", "none", "--out", "a\0b"], "NUL"),
    ("ledger show none", "there is no dataset"),
    ("ledger show file", "file"),
    (["ledger", "show", "a\0b"], "NUL"),
    ("ledger burn old-dataset", "Choose from"),
    ("ledger show listed", "'spec' is []", 3),
    ("retry none", "there is no dataset"),
    ("retry old-dataset --stage x", "'x'"),
    ("retry old-dataset --reason bad", "'bad'"),
    ("retry old-dataset --slice none", "none"),
    ("extend none --by 4", "there is no dataset"),
    ("extend old-dataset --by 0", "Must be >= 1"),
    ("extend old-dataset --by 4 --slice none", "none"),
    ("quarantine burn old-dataset", "Choose from"),
    ("quarantine list none", "there is no dataset"),
    ("quarantine restore old-dataset", "restore needs a batch"),
    ("quarantine restore old-dataset ../x", "../x"),
    ("quarantine empty old-dataset --older-than -1", "Must be >= 0"),
    ("batch burn old-dataset", "Choose from"),
    ("batch list none", "there is no dataset"),
    ("batch list file", "file"),
    ("batch list old-dataset x", "'x' means nothing for list"),
    ("batch export old-dataset", "export needs FILE"),
    ("batch export old-dataset calls.jsonl", "waits for no model of your own"),
    ("batch import old-dataset none", "none"),
    ("batch import old-dataset empty", "empty"),
    ("batch import old-dataset file", "has no line about a call"),
    (["batch", "import", "old-dataset", "a\0b"], "NUL"),
    ("batch forget old-dataset", "forget needs ID"),
    ("batch forget old-dataset ../x", "no open batch '../x'"),
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
    ("up --state file", "file"),
    ("up --state /proc/x", "/proc/x"),
    ("up --data file --state up-state", "file"),
    (["up", "--data", ""], "--data is ''"),
    (["up", "--state", ""], "--state is ''"),
    ("up --port 0", "0"),
    ("up --port 99999", "99999"),
    ("up --workers -1", "-1"),
    ("up --json", "--check"),
    ("up --server nonsense", "--server is 'nonsense', which is no address"),
    ("up --server http://127.0.0.1:9/api", "no server answers there", 3),
    ("up --host 203.0.113.7 --state up-state", "cannot be served"),
    ("up more", "more"),
    ("down --state file", "file"),
    (["down", "--state", "a\0b"], "--state is 'a\\x00b'"),
    ("submit cat --state empty", "'magicseg up' starts one"),
    ("submit --samples x", "x"),
    ("submit cat --samples -1", "-1"),
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
    assert len(said) < 4000
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
    "batch list @",
    "batch export old-dataset @",
    "batch import old-dataset @",
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
    "up --state @",
    "up --data @ --state up-state",
    "down --state @",
    "submit cat --state @",
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
