"""Several workers on one dataset behind a bad line: one dataset, each sample decided once."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections import Counter

import pytest
import yaml

from processes import end_processes
from storage.records import Stage
from storage.store import Store
from storage.verification import verify_bytes
from troubled_line import serve_troubled_line

_WORKERS = 4

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture
def start(tmp_path):
    """Start `magicseg` as a worker with a home and, if root, a host name of its own."""
    processes = []
    enter = ["unshare", "--uts", "sh", "-c"] if shutil.which("unshare") and not os.geteuid() else []

    def worker(name, *arguments, **variables):
        home = tmp_path / name
        home.mkdir()
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        command = [sys.executable, "-m", "flows", *map(str, arguments)]
        if enter:
            command = [*enter, f'hostname {name}; exec "$@"', "sh", *command]
        process = subprocess.Popen(
            command,
            cwd=home,
            env=kept | {"HOME": str(home), "HF_HUB_OFFLINE": "1", "COLUMNS": "200"} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield worker
    end_processes(processes)


def test_workers_behind_a_bad_line_make_one_dataset(make, quick, bucket, start, tars, tmp_path):
    make(tmp_path / "whole")
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(quick))
    with serve_troubled_line(bucket.server_port, refused=0.2, lost=0.05, cut=0.03) as line:
        endpoint = f"http://127.0.0.1:{line.server_port}"
        running = [
            start(
                f"host-{number}",
                *("generate", file, "--root", bucket.root),
                AWS_ENDPOINT_URL=endpoint,
            )
            for number in range(_WORKERS)
        ]
        said = [process.communicate(timeout=500) for process in running]
        assert line.fates["refused"] > 0
        assert line.fates["lost"] > 0
    assert [process.returncode for process in running] == [0] * _WORKERS, said
    store = Store.open(bucket.root)
    assert verify_bytes(store, 14) == []
    made = {
        path.rpartition("/")[2]: hashlib.sha256(store.objects.read(path)).hexdigest()
        for path in store.objects.paths("data")
    }
    assert made == tars(tmp_path / "whole")
    decided = Counter(
        (commit.stage, key)
        for commit in store.commits()
        if commit.stage is not Stage.SHARDS
        for key in commit.verdicts
    )
    assert set(decided.values()) == {1}
