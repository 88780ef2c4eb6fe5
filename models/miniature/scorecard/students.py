"""The student on generated samples beside the same student on drawn scenes."""

import json
from collections.abc import Mapping
from pathlib import Path

from storage.errors import InputError

_WANTED_SHARE = 60  # percent
_SUBJECTS = {
    "student on generated": "student on generated samples",
    "student on drawn": "student on drawn scenes with exact masks",
    "untrained": "student before its training",
    "baseline": "Grounding DINO and SAM",
}


def read_students(results: Path) -> dict[str, int | float]:
    """Read how the students scored.

    Args:
        results: What `python -m benchmarks.student_transfer` wrote.

    Returns:
        Mean mIoU over the seeds in percent as `<subject>, <split>`, the number of seeds (`seeds`),
        and for each split how much of the second student's the first one reaches, as
        `share, <split>`.

    Raises:
        InputError: The benchmark has not been run.
    """
    if not results.is_file():
        message = f"{results} is not there; run python -m benchmarks.student_transfer first"
        raise InputError(message)
    rows = json.loads(results.read_text(encoding="utf-8"))["rows"]
    scores = {
        f"{row['subject']}, {row['split']}": row["miou"] for row in rows if row["seed"] == "mean"
    }
    found: dict[str, int | float] = {"seeds": len({row["seed"] for row in rows} - {"mean"})}
    for split in ("val", "test"):
        first, second = (scores[f"student on {kind}, {split}"] for kind in ("generated", "drawn"))
        found[f"share, {split}"] = first / second
    return found | scores


def student_section(compared: Mapping[str, int | float]) -> str:
    """Write the page's section about what `read_students` found."""
    lines = [
        "### student",
        "",
        f"mIoU on the drawn benchmark in percent, mean of {compared['seeds']:.0f} seeds, from "
        "`python -m benchmarks.student_transfer`; [results](results.md) has the protocol.",
        "",
        "| subject | val | test |",
        "| --- | ---: | ---: |",
    ]
    for subject, words in _SUBJECTS.items():
        val, test = (compared[f"{subject}, {split}"] for split in ("val", "test"))
        lines.append(f"| {words} | {val:.1f} | {test:.1f} |")
    val, test = (100 * compared[f"share, {split}"] for split in ("val", "test"))
    lines += [
        "",
        f"On generated samples the student reaches {val:.0f} % (val) and {test:.0f} % (test) of "
        f"what it reaches on drawn scenes; asked for: {_WANTED_SHARE} %.",
    ]
    return "\n".join(lines)
