"""A dataset that an earlier version made is whole, finished, and left alone by what only reads.

`tests/data/old-dataset.tar.xz` was made by the code of version 0.1.0 (commit 3a8c346) with the
parameters below and today's weights of the painter, on which keys depend; only the host's name in
its records was changed. When the weights change it has to be made again, by the old code.
"""

import json
import os
import sys
import tarfile
from pathlib import Path

import pytest

from flows.__main__ import main
from flows.generate_dataset import generate_dataset
from flows.generation_form import form_values
from flows.generation_parameters import GenerationParameters
from storage.records import Stage
from storage.store import Store
from storage.verification import verify_bytes

ARCHIVE = Path(__file__).parents[1] / "data/old-dataset.tar.xz"
CLASSES = "cat,star,balloon"
SETTINGS = ("samples_per_shard=4", "texts_per_class_set=1", "seed=6")
SHARD = "92e45b98-000001"
STAGES = [stage for stage in Stage if not stage.is_optional]


@pytest.fixture
def dataset(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "old-dataset"


def parameters(dataset):
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    return ("--root", dataset, "--slice", CLASSES, "--samples", 7, *settings)


@pytest.fixture
def magicseg_here(monkeypatch, capsys):
    """Run a command in this process; returns its exit code and its output."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["magicseg", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as error:
            code = error.code
        return code, capsys.readouterr().out

    return run


def test_it_is_whole(dataset):
    store = Store.open(dataset)
    assert verify_bytes(store, 14) == []
    assert [shard.samples for shard in store.shards()] == [4, 3]
    assert len(store.commits()) == 2 * len(STAGES)


def test_the_plan_finds_every_stage_committed(dataset, magicseg_here):
    code, out = magicseg_here("plan", *parameters(dataset), "--json")
    assert code == 0
    stages = json.loads(out)["stages"]
    assert [(each["committed"], each["to_do"]) for each in stages] == [(2, 0)] * len(STAGES)


def test_generating_it_again_does_nothing(dataset, run):
    code, out, err = run("generate", *parameters(dataset))
    assert code == 0, err
    assert "nothing to do: all 2 shards" in out


@pytest.mark.server
@pytest.mark.slow
def test_it_grows_and_what_it_has_is_taken_over_and_not_made_again(dataset, server):
    settings = dict(setting.split("=") for setting in SETTINGS)
    wanted = {"root": str(dataset), "slice": CLASSES, "samples": 9} | settings
    generate_dataset(**form_values(GenerationParameters.model_validate(wanted)))
    store = Store.open(dataset)
    painted = [each for each in store.commits(Stage.PAIRS) if each.is_piece and each.seconds]
    assert sum(each.counts.requested for each in painted) == 2
    assert [shard.samples for shard in store.shards()] == [4, 4, 1]
    assert verify_bytes(store, 14) == []


def snapshot(root):
    """Every name, content and time."""
    found = {}
    for path in (root, *sorted(root.rglob("*"))):
        stat = path.lstat()
        data = path.read_bytes() if path.is_file() else None
        found[str(path)] = (stat.st_mtime_ns, stat.st_mode, stat.st_ino, data)
    return found


def cut_a_tar(dataset):
    tar = dataset / f"data/train-{SHARD}.tar"
    os.truncate(tar, tar.stat().st_size - 512)


def cut_an_output(dataset):
    commit = Store.open(dataset).commits(Stage.MASKS)[0]
    (dataset / commit.object.path).write_bytes(b"")


def interrupt_a_commit(dataset):
    """What a kill leaves between the bytes and the record: it could be adopted."""
    [record] = (dataset / ".engine/commits/shards" / SHARD).iterdir()
    intent = dataset / ".engine/intents/shards" / SHARD / record.name
    intent.parent.mkdir(parents=True)
    record.rename(intent)


def break_a_record(dataset):
    [record] = (dataset / ".engine/commits/pairs" / SHARD).iterdir()
    record.write_bytes(b'{"stage":')


def leave_files_behind(dataset):
    (dataset / "data/.train.tar.0badcafe.tmp").write_bytes(b"half")
    (dataset / "data/train-0badcafe-000009.tar").write_bytes(b"nobody's")


@pytest.mark.parametrize(
    "harm", [cut_a_tar, cut_an_output, interrupt_a_commit, break_a_record, leave_files_behind]
)
def test_commands_that_read_change_no_file_of_a_damaged_dataset(
    dataset, tmp_path, magicseg_here, harm
):
    harm(dataset)
    before = snapshot(dataset)
    for command in (
        ("plan", *parameters(dataset)),
        ("status", dataset),
        ("verify", dataset),
        ("verify", dataset, "--deep"),
        ("report", "--dataset", dataset, "--out", tmp_path / "report.html"),
        ("export", "--dataset", dataset, "--classes", CLASSES, "--out", tmp_path / "export"),
        ("doctor", "--root", dataset),
    ):
        magicseg_here(*command)
        assert snapshot(dataset) == before, command[0]


def test_the_plan_counts_what_is_damaged_as_left_to_do(dataset, magicseg_here):
    cut_a_tar(dataset)
    _, out = magicseg_here("plan", *parameters(dataset), "--json")
    stages = {each["stage"]: each["to_do"] for each in json.loads(out)["stages"]}
    assert stages == dict.fromkeys(("prompts", "pairs", "detections", "masks"), 0) | {"shards": 1}
