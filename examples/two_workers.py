"""Two workers on one dataset: what one has made or is making, the other leaves alone.

    python examples/two_workers.py runs/shared 8

Both get the same command. On two machines the root is a shared folder or an object-store URL, and
each machine runs the command by itself. A shard that the other worker holds is no failure: exit
code 3 says that work is left, and the same command goes on. Kill a worker and start it again: what
it had finished is found.
"""

import subprocess
import sys
import time

WORK_LEFT = 3


def start(root: str, samples: str) -> "subprocess.Popen[bytes]":
    """Start one worker."""
    wanted = ["--root", root, "--samples", samples, "--set", "samples_per_shard=4"]
    quick = ["--set", "shards_in_flight=1", "--slice", "cat,star"]
    return subprocess.Popen([sys.executable, "-m", "flows", "generate", *wanted, *quick])


def work(root: str, samples: str) -> list[int]:
    """Let two workers work side by side; their exit codes."""
    workers = [start(root, samples) for _ in range(2)]
    return [worker.wait() for worker in workers]


def main(root: str, samples: str) -> None:
    """Run both until nothing is left."""
    while True:
        codes = work(root, samples)
        if not set(codes) <= {0, WORK_LEFT}:
            message = f"a worker ended with {codes}"
            raise SystemExit(message)
        if 0 in codes:
            break
        time.sleep(1)
    print("all shards are there")


if __name__ == "__main__":
    main(*sys.argv[1:])
