import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, time
if os.environ["RANK"] == "1":
    sys.exit({code})
time.sleep({seconds})
"""


@pytest.mark.slow
@pytest.mark.parametrize(("code", "seconds"), [(0, 0), (2, 600), (3, 600), (1, 600)])
def test_several_processes_end_with_the_code_of_the_one_that_failed(tmp_path, code, seconds):
    file = tmp_path / "program.py"
    file.write_text(PROGRAM.format(code=code, seconds=seconds))
    command = [sys.executable, "-m", "training.torchrun", "--standalone", "--nproc-per-node=2"]
    ended = subprocess.run([*command, str(file)], capture_output=True, text=True, timeout=300)
    assert ended.returncode == code, ended.stderr
