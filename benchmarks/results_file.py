"""The file that a benchmark leaves behind."""

import json
import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).with_name("results")


def write_results(
    name: str,
    rows: list[dict[str, Any]],
    packages: tuple[str, ...],
    *,
    setting: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> None:
    """Print rows and write them with the machine and the versions.

    Args:
        name: Of the benchmark; figures of a GPU go to a file of their own.
        rows: What was measured.
        packages: Distributions whose versions matter.
        setting: Sizes that the rows share.
        device: Where the work was done.
    """
    machine = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": sys.version.split()[0],
    }
    if device != "cpu":
        machine["gpu"] = torch.cuda.get_device_name()
    document: Mapping[str, Any] = {
        "benchmark": name,
        "setting": dict(setting or {}),
        "machine": machine,
        "versions": {package: version(package) for package in packages},
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / (f"{name}.json" if device == "cpu" else f"{name}-cuda.json")
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print("  ".join(f"{key}={value}" for key, value in row.items()))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
