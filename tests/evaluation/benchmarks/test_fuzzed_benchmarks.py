"""2,000 damaged files of each format of benchmarks: read, or refused with the file's name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fuzz_benchmarks
from fuzzing import SECONDS

FEW, MANY = 150, 2000


def run(kind: str, count: int, root: Path) -> dict[str, float]:
    """Read damaged files in a process of its own, whose memory is bounded."""
    support = Path(fuzz_benchmarks.__file__)
    paths = (str(support.parents[2]), str(support.parent))
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", str(support), kind, str(count), str(root)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Warning" not in done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", fuzz_benchmarks.FORMATS)
@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.fuzz)])
def test_damage_ends_in_words_and_soon(tmp_path: Path, kind: str, count: int) -> None:
    found = run(kind, count, tmp_path)
    assert found["read"] + found["InputError"] + found["DataError"] == count
    assert found["slowest_s"] < SECONDS
    assert found["DataError"] > count / 4
