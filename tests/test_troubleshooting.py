"""docs/troubleshooting.md shows the messages that the code prints."""

import ast
import re
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from evaluation.benchmarks.catalogue import open_benchmark
from evaluation.benchmarks.contract import BenchmarkConfig
from flows.__main__ import main
from flows.generation_parameters import GenerationParameters
from flows.generation_run import prepare
from models.devices import pick_device
from models.profiles import load_profile
from models.student.trained import load_student
from models.writing.chat_config import ChatWriterConfig
from runs import write_run
from storage.errors import EngineError
from storage.leases import take_lease
from storage.local_objects import LocalObjects
from storage.locks import hold_folder
from storage.records import Reason, Rejected, Stage
from storage.store import Store
from tasks.breaker import Breaker
from tasks.training import require_shards
from training.divergence import diverged, lower_settings

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^    (.+)$", PAGE, re.MULTILINE)
PACKAGES = ("flows", "tasks", "training", "evaluation", "models", "storage")
LONG = 12


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the errors are about."""
    folder = tmp_path_factory.mktemp("place")
    with tarfile.open(ROOT / "tests/data/old-dataset.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    (folder / "old-dataset").rename(folder / "d")
    shutil.copytree(folder / "d", folder / "damaged")
    commit = Store.open(folder / "damaged").commits(Stage.MASKS)[0]
    assert commit.object is not None
    (folder / "damaged" / commit.object.path).write_bytes(b"cut")
    for name in ("empty", "mine"):
        (folder / name).mkdir()
    (folder / "mine" / "README.md").write_text("mine\n")
    (folder / "broken.yaml").write_text("root: [")
    (folder / "doubled.yaml").write_text("root: d\nsamples: 5\nsamples: 6\n")
    document = load_profile("miniature").model_dump(mode="json", exclude={"name"})
    document["labeller"]["detector"]["model"] = "weights:nope"
    (folder / "nope.yaml").write_text(yaml.safe_dump(document))
    write_run(folder / "diverged", nan=True)
    return folder


def generate(**values: object) -> None:
    with prepare(GenerationParameters.model_validate({"samples": 4, **values})):
        pass


def hold_twice(folder: str) -> None:
    with hold_folder(Path(folder)), hold_folder(Path(folder)):
        pass


def lease_twice(folder: str) -> None:
    objects = LocalObjects(Path(folder).absolute())
    first = take_lease(objects, "x.lock")
    try:
        take_lease(objects, "x.lock")
    finally:
        first.release()


def read_damaged() -> None:
    store = Store.open("damaged")
    store.read(store.commits(Stage.MASKS)[0])


def drop_all() -> None:
    breaker, lost = Breaker(2, 0.5), Reason.CLASS_NOT_FOUND
    row = Rejected(key="k", stage=Stage.DETECTIONS, reason=lost, detail="cat not found")
    breaker.note(Stage.DETECTIONS, [row, row])
    breaker.check()


def diverge() -> None:
    raise diverged("step 7", ["loss nan"], lower_settings("optimiser.", 0.1, None), "then go on")


OLD = {"slice": "cat,star,balloon", "samples_per_shard": 4, "texts_per_class_set": 1}
PROVOKED: dict[str, str | Callable[[], object]] = {
    "is unknown; did you mean": lambda: load_profile("minature"),
    "is not in vocabulary": lambda: generate(root="n", slice="unicorn"),
    "unknown key": "plan --root n --samples 4 --set sede=1",
    "parameters: '…' is": "plan --root n --samples 4 --set seed=x",
    "is not YAML: …": "plan broken.yaml",
    "stands there twice": "plan doubled.yaml",
    "do not ship": lambda: generate(root="n", profile="nope.yaml"),
    "the environment variable": ChatWriterConfig(model="m", api_key_env="NOBODY_SETS_IT").check,
    "CUDA devices are": lambda: pick_device("cuda:99"),
    "there is no dataset": "status none",
    "is neither a dataset": lambda: require_shards("none", 1),
    "made with other settings": lambda: generate(root="d", **OLD, seed=7),
    "has a README.md": lambda: generate(root="mine"),
    "holds other files": "export --dataset d --classes cat --out mine",
    "is held by": lambda: lease_twice("empty"),
    "somebody is at work": lambda: hold_twice("empty"),
    "sha256 is": read_damaged,
    "good shards": lambda: require_shards("d", 5),
    "is not a checkpoint": lambda: load_student("empty"),
    "dropped for one reason": drop_all,
    "has no open batch": "batch forget d 0123456789abcdef",
    "waits for no model": "batch export d calls.jsonl",
    "has no line about": "batch import d broken.yaml",
    "training has diverged": diverge,
    "is not finite": lambda: load_student("diverged"),
    "expected a list of image names": lambda: open_benchmark(
        BenchmarkConfig(name="voc21", root=Path("empty"))
    ),
}


@pytest.fixture
def said(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str | Callable[[], object]], str]:
    """What is printed behind `error: ` when a command is typed, or a function called."""

    def provoke(cause: str | Callable[[], object]) -> str:
        monkeypatch.chdir(place)
        if callable(cause):
            with pytest.raises(EngineError) as raised:
                cause()
            return str(raised.value)
        monkeypatch.setattr(sys, "argv", ["magicseg", *cause.split()])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        return capsys.readouterr().err.removeprefix("error: ").strip()

    return provoke


def pattern(shown: str) -> str:
    return ".*".join(map(re.escape, shown.split("…")))


@pytest.mark.parametrize("words", PROVOKED)
def test_a_message_stands_on_the_page_as_it_is_printed(
    said: Callable[[str | Callable[[], object]], str], words: str
) -> None:
    [shown] = [line for line in SHOWN if words in line and not line.startswith("checkpoint")] or [
        line for line in SHOWN if words in line
    ]
    message = said(PROVOKED[words])
    assert re.fullmatch(pattern(shown), message, re.DOTALL), message


def written() -> str:
    """Every text of the code, a filled-in value as `…`, one a line."""
    texts = []
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [v.value if isinstance(v, ast.Constant) else "…" for v in node.values]
                    texts.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return "\n".join(texts)


def test_every_message_of_the_page_is_of_the_code() -> None:
    code = written()
    provoked = [line for line in SHOWN if any(words in line for words in PROVOKED)]
    for shown in set(SHOWN) - set(provoked):
        parts = [part.strip() for part in re.split("[…`';:.]", shown)]
        fragments = [part for part in parts if len(part) >= LONG]
        missing = [part for part in fragments if part not in code]
        assert not missing, (shown, missing)


def test_the_page_has_at_least_twenty_messages_and_most_are_provoked() -> None:
    assert len(SHOWN) == len(set(SHOWN)) >= 20
    assert len(PROVOKED) >= 20
