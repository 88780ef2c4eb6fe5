import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("flows", "tasks", "models", "storage", "training", "evaluation")


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


def public_names(path):
    """Functions, classes and constants that a module defines; not its type variables."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign) and "TypeVar" not in ast.unparse(node.value):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def test_no_public_name_means_two_things_in_training_scoring_and_their_tasks():
    places = {}
    rooms = ["training", "models/student", "models/closed_sets", "models/labelling"]
    rooms += ["tasks", "evaluation/benchmarks", "evaluation/scoring"]
    for room in rooms:
        for path in (ROOT / room).rglob("*.py"):
            for name in public_names(path):
                if not name.startswith("_") and name not in {"main", "DECLARATION"}:
                    places.setdefault(name, []).append(path.relative_to(ROOT).as_posix())
    assert not {name: paths for name, paths in places.items() if len(paths) > 1}


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
