import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("flows", "tasks", "models", "storage", "training", "evaluation")

# Names that every module of a package has, for one thing each: what reads them takes any of them.
INTERFACES = {
    "models.miniature": {
        *(
            "Config",
            "untrained_network",
            "export",
            "processor",
            "schedule",
            "score",
            "task",
            "train",
        ),
        *("MINIATURE", "batch_losses", "objective"),
    },
    "tasks": {"DECLARATION"},
}
# Names that may stand for two things.
SHARED_NAMES = {
    "app",  # of each command line
    "main",  # of each program
}
# Names that stand for two things and are to be renamed; what is renamed leaves the list.
TWINS: set[str] = set()


def public_names(path):
    """Functions, classes and constants of a module; no commands, and no type variables."""
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                if not any(".command" in ast.unparse(each) for each in node.decorator_list):
                    yield node.name
            case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar"))):
                pass
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name


def owner(module, name):
    """The module that a name is of, or the package whose modules all have it."""
    return next(
        (room for room, names in INTERFACES.items() if module.startswith(room) and name in names),
        module,
    )


def find_twins(root):
    """Public names that two modules define for two things, each with its modules."""
    owners = defaultdict(set)
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            module = ".".join(path.relative_to(root).with_suffix("").parts)
            for name in public_names(path):
                if not name.startswith("_"):
                    owners[name].add(owner(module, name))
    return {
        name: sorted(modules)
        for name, modules in owners.items()
        if len(modules) > 1 and name not in SHARED_NAMES
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_resolves_into_this_repository(package):
    module = importlib.import_module(package)
    assert Path(module.__file__).parent == ROOT / package


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_distribution_ships_a_package_of_our_name(package):
    owners = set(importlib.metadata.packages_distributions().get(package, []))
    assert owners <= {"magicseg-engine"}


def test_a_flow_file_is_not_named_like_anything_importable():
    names = {path.stem for path in (ROOT / "flows").glob("*.py")} - {"__init__", "__main__"}
    taken = set(importlib.metadata.packages_distributions()) | set(PACKAGES)
    assert not names & taken


def test_no_module_is_a_grab_bag():
    stems = {path.stem for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert not stems & {"utils", "util", "common", "base", "core", "helpers", "misc", "constants"}


def test_no_public_name_stands_for_two_things():
    found = find_twins(ROOT)
    assert {name: modules for name, modules in found.items() if name not in TWINS} == {}


def test_a_name_that_stands_for_two_things_is_found_with_its_modules(tmp_path):
    texts = {
        "storage/plan.py": "LIMIT = 1\n_LIMIT = 2\nT = TypeVar('T')\ndef main(): ...\n",
        "flows/demo.py": "LIMIT: int = 2\n_LIMIT = 2\nT = TypeVar('T')\ndef main(): ...\n",
        "flows/__main__.py": "class Plan: ...\n@app.command(name='p')\ndef plan(): ...\n",
        "training/plan.py": "class Plan: ...\ndef plan(): ...\n",
        "models/miniature/clip.py": "def task(): ...\n",
        "models/miniature/vae.py": "def task(): ...\n",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert find_twins(tmp_path) == {
        "LIMIT": ["flows.demo", "storage.plan"],
        "Plan": ["flows.__main__", "training.plan"],
    }


def test_every_protocol_can_be_asked_for_at_run_time():
    """Else no annotation that names it can be executed."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef) and "Protocol" in {
                    ast.unparse(base).split("[")[0] for base in node.bases
                }:
                    marks = [ast.unparse(each) for each in node.decorator_list]
                    assert "runtime_checkable" in marks, f"{path}: {node.name}"


def test_package_markers_hold_one_docstring_and_nothing_else():
    for package in PACKAGES:
        for marker in (ROOT / package).rglob("__init__.py"):
            assert re.fullmatch(r'"""[^"]+"""\n', marker.read_text()), marker


def test_tests_are_no_package():
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_the_wheel_holds_exactly_the_six_packages():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == set(PACKAGES)


def test_the_pins_name_no_package_index():
    pins = (ROOT / "constraints.txt").read_text()
    assert "://" not in pins
    assert "--index" not in pins


def test_plan_and_status_start_without_prefect():
    code = (
        "import sys, flows.dataset_status, flows.generation_plan; print('prefect' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


LIGHT = (
    "training.config",
    "training.closed_sets.config",
    "evaluation.benchmarks.contract",
    "evaluation.scoring.config",
    "evaluation.scoring.measured",
    "evaluation.scoring.presets",
    *(
        f"evaluation.reports.{path.stem}"
        for path in sorted((ROOT / "evaluation" / "reports").glob("[a-z]*.py"))
    ),
    "storage.metrics",
)
"""What settings, status and reports are made of: they start without the networks' libraries."""


def test_settings_results_and_reports_start_without_torch():
    heavy = {"torch", "torchvision", "transformers", "diffusers", "tensorboard", "prefect"}
    code = (
        f"import sys, importlib\n"
        f"for name in {LIGHT}:\n"
        f"    importlib.import_module(name)\n"
        f"    found = sorted({heavy} & set(sys.modules))\n"
        f"    assert not found, (name, found)\n"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not found.returncode, found.stderr
