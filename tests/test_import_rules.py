"""The import rules of pyproject.toml catch what they are there for."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("flows", "tasks", "models", "storage", "training", "evaluation")

CIRCLE = "No import circle"
MODELS = "Floors of models; its roles do not know each other"
EVALUATION = "Floors of evaluation"
EXPORTS = "Exports are above the rest of storage"
CLOSED_SETS = "Closed sets are above the rest of training"
METRICS = "Closed sets take of training its metrics, its divergence and its order alone"
PACKAGE_ORDER = "Data flows one way"


@pytest.fixture
def copy(tmp_path):
    """The product's modules and its import rules, free to be spoiled."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            target = tmp_path / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder):
    """Run the linter there: its exit status, and the names of the contracts it finds broken."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    found = subprocess.run(
        [sys.executable, "-c", code, "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = found.stdout.splitlines()
    broken = set(re.findall(r"^(.+) BROKEN\b", found.stdout, re.MULTILINE))
    assert any(line.startswith("Contracts: ") for line in lines), found.stdout + found.stderr
    return found.returncode, broken


def add(folder, importer, imported, *, inside=False):
    path = folder / (importer.replace(".", "/") + ".py")
    line = f"import {imported}\n"
    path.write_text(path.read_text() + (f"\n\ndef _late():\n    {line}" if inside else line))


def test_the_product_keeps_the_rules(copy):
    assert lint(copy) == (0, set())


@pytest.mark.parametrize(
    ("importer", "imported", "rule"),
    [
        ("storage.objects", "models.weights", PACKAGE_ORDER),
        ("storage.errors", "storage.codecs", CIRCLE),
        ("flows.generation_run", "flows.generation_plan", CIRCLE),
        ("training.closed_sets.config", "training.closed_sets.runner", CIRCLE),
        ("models.painting.config", "models.student.config", MODELS),
        ("models.protocols", "models.configs", MODELS),
        ("models.writing.chat", "models.profiles", MODELS),
        ("models.closed_sets.configs", "models.miniature.world", MODELS),
        ("evaluation.benchmarks.contract", "evaluation.scoring.config", EVALUATION),
        ("evaluation.scoring.config", "evaluation.reports.charts", EVALUATION),
        ("storage.archives", "storage.exports.folders", EXPORTS),
        ("training.disk", "training.closed_sets.config", CLOSED_SETS),
        ("training.closed_sets.runner", "training.loop", METRICS),
    ],
)
def test_an_arrow_that_runs_up_or_round_breaks_a_rule_by_name(copy, importer, imported, rule):
    add(copy, importer, imported)
    status, broken = lint(copy)
    assert status == 1
    assert rule in broken


def test_a_circle_of_imports_inside_functions_is_a_circle(copy):
    add(copy, "storage.errors", "storage.codecs", inside=True)
    assert lint(copy) == (1, {CIRCLE})


@pytest.mark.parametrize(
    ("module", "rule"), [("models/oracle.py", MODELS), ("evaluation/oracle.py", EVALUATION)]
)
def test_a_new_room_must_name_its_floor(copy, module, rule):
    (copy / module).write_text('"""A new room."""\n')
    assert lint(copy) == (1, {rule})
