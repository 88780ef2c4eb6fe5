"""A function that is compiled where the machine can, and runs as it is where it cannot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.labelling.config import (
    DetectorConfig,
    MmGroundingDinoConfig,
    SamHqConfig,
    SegmenterConfig,
)
from models.painting.config import PainterConfig

ROOT = Path(__file__).parents[2]

WITHOUT_A_COMPILER = """
import logging, torch
from models.compiling import Compiled
logging.basicConfig(format="%(levelname)s %(message)s")
double = Compiled(lambda x: x.sin() * 2, "the painter's unet")
x = torch.linspace(0, 1, 64)
for _ in range(2):
    assert torch.equal(double(x), x.sin() * 2)
"""


WITH_A_FAULT = """
import torch
from models.compiling import Compiled

def faulty(x):
    raise KeyError("not of the compiler")

Compiled(faulty, "it")(torch.ones(1))
"""


def run(script, tmp_path):
    """Run Python where there is no C++ compiler; compiling would warn in this process."""
    lacking = {"CXX": "/nonexistent/c++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    return subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | lacking | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_compiler_it_runs_as_it_is_and_the_log_says_so_once(tmp_path):
    done = run(WITHOUT_A_COMPILER, tmp_path)
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("WARNING the painter")]
    assert len(warnings) == 1
    assert "the painter's unet cannot be compiled and runs as it is" in warnings[0]
    assert "`compile: false`" in warnings[0]


def test_the_way_out_that_the_log_names_is_a_setting():
    assert not PainterConfig(model="x", compile=False).compile


@pytest.mark.parametrize(
    "kind", [DetectorConfig, MmGroundingDinoConfig, SegmenterConfig, SamHqConfig]
)
def test_labellers_have_that_setting_and_no_key_depends_on_it(kind):
    assert not kind(model="x", compile=False).compile
    assert {"device", "batch_size", "compile"} <= kind.of_the_machine
    assert ("boxes_at_once" in kind.model_fields) == ("boxes_at_once" in kind.of_the_machine)


def test_a_fault_of_the_function_itself_is_raised(tmp_path):
    done = run(WITH_A_FAULT, tmp_path)
    assert done.stderr.splitlines()[-1] == "KeyError: 'not of the compiler'"
    assert "cannot be compiled" not in done.stderr


FOR_BATCHES = """
import torch
from models.compiling import compiled_for_batches

called = []

def doubled(rows, more):
    called.append(tuple(rows.shape)) if not torch.compiler.is_compiling() else None
    return rows.sin() * 2 + more

def plain(rows, more):
    called.append(("plain", *rows.shape))
    return rows.sin() * 2 + more

run = compiled_for_batches(doubled, "it", batch_size=2, otherwise=plain)
for shape in ((1, 3), (2, 3), (2, 4), (3, 3), (2, 3)):
    rows = torch.linspace(0, 1, shape[0] * shape[1]).view(shape)
    torch.testing.assert_close(run(rows, 1), rows.sin() * 2 + 1)
print(called)
"""


@pytest.mark.slow
def test_full_batches_of_the_first_shape_are_compiled_and_no_others(tmp_path):
    environment = os.environ | {
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", FOR_BATCHES], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([("plain", 1, 3), ("plain", 2, 4), ("plain", 3, 3)])


def test_where_nothing_can_be_compiled_the_other_way_is_gone(tmp_path):
    done = run(FOR_BATCHES, tmp_path)
    assert done.returncode == 0, done.stderr
    plain = [("plain", *shape) for shape in ((1, 3), (2, 3), (2, 4), (3, 3), (2, 3))]
    assert done.stdout.strip() == str(plain)
