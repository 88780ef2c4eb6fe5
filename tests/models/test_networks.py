"""Networks are loaded whole, whoever else loads one at the same time."""

import subprocess
import sys

THREADS_LOAD = """
import sys
from concurrent.futures import ThreadPoolExecutor
from models.profiles import load_profile
from models.registry import build

sys.setswitchinterval(1e-6)
profile = load_profile("miniature")
parts = [profile.segmenter, profile.detector] * 6
with ThreadPoolExecutor(6) as pool:
    for one in [pool.submit(build, part) for part in parts]:
        one.result()
build(profile.segmenter), build(profile.detector)
"""


def test_threads_that_load_networks_do_not_spoil_them_for_each_other():
    # A process of its own: what goes wrong there stays wrong until the process ends.
    command = [sys.executable, "-c", THREADS_LOAD]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
