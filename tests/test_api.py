"""docs/api.md and the code say the same: names, and snippets that run."""

import ast
import importlib
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark
from runs import write_run

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PACKAGES = ("flows", "tasks", "training", "evaluation", "models", "storage")


def named_in_code() -> Iterator[tuple[str, str]]:
    """Each public name with its module, read without importing anything."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for statement in ast.parse(path.read_text(encoding="utf-8")).body:
                match statement:
                    case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                        yield from ((module, name) for name in ast.literal_eval(value))


def named_on_page() -> Iterator[tuple[str, str]]:
    """Each name of the page's tables with its module, which stands in the first of its rows."""
    module = ""
    for first, name in re.findall(r"^\|([^|]*)\| `(\w+)` \|.*\|$", PAGE, re.MULTILINE):
        module = first.strip(" `") or module
        yield module, name


def test_the_page_names_every_public_name_and_no_other() -> None:
    page, code = list(named_on_page()), list(named_in_code())
    assert len(page) == len(set(page))
    assert sorted(page) == sorted(code)


@pytest.mark.parametrize("module", sorted({module for module, _ in named_in_code()}))
def test_every_public_name_is_there_and_described(module: str) -> None:
    loaded = importlib.import_module(module)
    for name in loaded.__all__:
        value = getattr(loaded, name)
        if getattr(value, "__module__", "") == module:
            assert value.__doc__, name


def test_programs_and_snippets_use_public_names_alone() -> None:
    public = set(named_in_code())
    programs = [path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*.py")]
    for text in (*SNIPPETS, *programs):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
                for alias in node.names:
                    used = (str(node.module), alias.name)
                    package = any(module == ".".join(used) for module, _ in public)
                    drawn = used[0] == "models.miniature.benchmark"
                    assert used in public or package or drawn, used


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `make demo` leaves, but small."""
    folder = tmp_path_factory.mktemp("demo")
    runs = folder / "runs" / "demo"
    runs.mkdir(parents=True)
    with tarfile.open(ROOT / "tests/data/old-dataset.tar.xz") as archive:
        archive.extractall(runs, filter="data")
    (runs / "old-dataset").rename(runs / "dataset")
    write_run(runs / "run")
    config = DrawnBenchmarkConfig(num_train=0, num_val=4, num_test=0)
    write_benchmark(config, runs / "benchmark")
    return folder


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_runs_or_is_that_of_an_example(
    number: int, demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snippet = SNIPPETS[number]
    covered = re.match(r"# (examples/\w+\.py)\n", snippet)
    if covered:  # tests/test_examples.py runs it
        text = (ROOT / covered[1]).read_text(encoding="utf-8")
        imports = [line for line in snippet.splitlines() if line.startswith("from ")]
        assert imports
        assert all(line in text for line in imports)
        return
    monkeypatch.chdir(demo)
    exec(compile(snippet, f"docs/api.md, snippet {number}", "exec"), {})  # noqa: S102 - our own
