"""A folder with what bad command lines name: files, folders, links, broken YAML, tars, a run."""

import os
import sys
import tarfile
from pathlib import Path

_ARCHIVE = Path(__file__).parents[1] / "data/old-dataset.tar.xz"
SPECIFICATIONS = {
    "listed": b'{"scheme": 1, "spec": []}',
    "bare": b"{}",
    "nothing": b"",
    "null": b"null",
    "text": b"\xff",
    "deeply": b"[" * 100_000,
    "older": b'{"scheme": 0, "spec": {}}',
    "versionless": b'{"scheme": "1", "spec": {}}',
    "planless": b'{"scheme": 1, "spec": {"plan": 3}}',
    "numbered": b'{"scheme": 1, "spec": {"plan": {"vocabulary": 4}}}',
    "yielding": b'{"scheme": 1, "spec": {"min_yield": NaN}}',
}
"""What a dataset's spec.json may hold that no engine writes."""


def make_place(folder, tar):
    """Fill an empty folder; `tar` is what its shard holds."""
    (folder / "file").write_text("x\n")
    (folder / "empty").mkdir()
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").write_text("mine\n")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    with tarfile.open(_ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    for name, contents in SPECIFICATIONS.items():
        (folder / name / ".engine").mkdir(parents=True)
        (folder / name / ".engine" / "spec.json").write_bytes(contents)
    files = {
        "doubled.yaml": b"root: d\nsamples: 5\nsamples: 6\n",
        "binary.yaml": b"\xff\xfe\x00",
        "broken.yaml": b"root: [",
        "list.yaml": b"- 1",
        "blank.yaml": b"",
        "deep.yaml": b"a: " + b"[" * 100_000,
        "itself.yaml": b"a: &a [*a]",
        "tagged.yaml": b"root: !!python/name:os.system x",
        "nested.yaml": b"root: {a: b}\nsamples: 3",
        "steps.yaml": b"".join(b" " * depth + b"a:\n" for depth in range(2000)),
        "program.yaml": Path(sys.executable).read_bytes()[:100_000],
        "large.yaml": b"root: " + b"x" * 5_000_000,
        "bomb.yaml": b"a: &a [" + b"x," * 1000 + b"x]\nb: [" + b"*a," * 1000 + b"*a]",
        "latin.yaml": "root: caf\u00e9\nsamples: 4".encode("latin-1"),
        "endless.yaml": b"root: d\nsamples: 1e400",
        "coloured.yaml": b'root: d\n"sam\\e[31mples": 4',
    }
    for name, contents in files.items():
        (folder / name).write_bytes(contents)
    (folder / "tars").mkdir()
    (folder / "tars" / "train-0.tar").write_bytes(tar)
    (folder / "run" / "scores").mkdir(parents=True)
    (folder / "run" / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
