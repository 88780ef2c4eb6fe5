"""The worked example of CONTRIBUTING.md: a detector kind is one module and one row."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from models.profiles import load_profile

ROOT = Path(__file__).parents[2]
PACKAGES = ("flows", "tasks", "models", "storage", "training", "evaluation")
MODULE = "models/labelling/colour_detector.py"
ROW_GOES_BEFORE = ')\n"""All kinds;'


def blocks():
    """The Python blocks of the section: the module, the import and the row."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page.split("## Add a kind of model")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?\n) *```", section, re.DOTALL)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the product with the example in it."""
    copy = tmp_path_factory.mktemp("tree")
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, copy / package, ignore=shutil.ignore_patterns("weights", "__pycache__")
        )
    (copy / "models" / "miniature" / "weights").symlink_to(ROOT / "models/miniature/weights")
    module, line, row = blocks()
    (copy / MODULE).write_text(module)
    registry = copy / "models" / "registry.py"
    text = registry.read_text()
    assert text.count(ROW_GOES_BEFORE) == 1
    text = text.replace("from models.labelling.config", f"{line}from models.labelling.config", 1)
    indented = "".join(f"    {each}\n" for each in row.splitlines())
    registry.write_text(text.replace(ROW_GOES_BEFORE, indented + ROW_GOES_BEFORE))
    return copy


@pytest.fixture
def python(tree, tmp_path):
    """Run Python on the copy, in an empty folder."""

    def run(*arguments):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        environment |= {"PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def profile(tmp_path):
    """The miniature profile with the new detector, made quick."""
    document = load_profile("miniature").model_dump(mode="json", exclude={"name"})
    document["painter"] |= {"steps": 3, "batch_size": 4}
    document["labeller"]["detector"] = {"kind": "colour", "min_distance": 20}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


@pytest.mark.slow
@pytest.mark.server
def test_generation_the_key_the_doctor_and_the_docs_know_a_kind_that_is_a_module_and_a_row(
    python, profile, tmp_path
):
    checked = python("-m", "flows", "doctor", "--profile", profile, "--json")
    found = {each["what"]: each for each in json.loads(checked.stdout)}
    assert found["detector"]["ok"]
    assert "colours" in found["detector"]["detail"]

    table = python("-c", "from models.registry import kinds_table; print(kinds_table())").stdout
    assert "| detector | `colour` |" in table

    settings = {"samples_per_shard": 4, "texts_per_class_set": 1, "profile": str(profile)}
    rules = {"detections": {"counterfactual": "record"}, "masks": {"min_area": 0, "max_area": 1}}
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"samples": 4, **settings, **rules}))
    made = python("-m", "flows", "generate", file, "--root", "d")
    assert made.returncode == 0, made.stderr
    assert "detections of 1" in made.stdout
    spec = json.loads((tmp_path / "d" / ".engine" / "spec.json").read_text())["spec"]
    assert spec["stages"]["detections"]["detector"] == {"kind": "colour", "min_distance": 20}

    again = python("-m", "flows", "generate", file, "--root", "d")
    assert "nothing to do" in again.stdout
    profile.write_text(profile.read_text().replace("min_distance: 20", "min_distance: 25"))
    other = python("-m", "flows", "generate", file, "--root", "d")
    assert other.returncode == 2
    assert "min_distance: 20 -> 25" in " ".join(other.stderr.split())
