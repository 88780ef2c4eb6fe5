"""A dataset is relabelled once, by one student, and an interrupted relabelling goes on."""

import hashlib
import signal
import subprocess
import time

import numpy as np
import pytest

from benchmarks.student_transfer import draw_dataset
from evaluation.scoring.config import ScoringConfig
from processes import end_processes
from runs import write_run
from storage.codecs import decode_label_map
from storage.errors import DataError, InputError
from storage.shards import iterate, pack
from tasks.relabelling import (
    RELABELLING_FILE,
    RelabelledTar,
    Relabelling,
    RelabellingJob,
    _is_whole,
)

EVERYTHING = {"templates": "single", "inference": {"background": "none", "window": None}}
"""An untrained student's best class of a sample's own has every pixel."""
SHARDS = 4


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder of tars with drawn scenes."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_dataset(folder, 8 * SHARDS, 0)
    samples = list(iterate(folder / "drawn.tar"))
    (folder / "drawn.tar").unlink()
    for number in range(SHARDS):
        (folder / f"part-{number}.tar").write_bytes(pack(samples[number::SHARDS]))
    return folder


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("student") / "run")


def job_of(drawn, student, out, scoring=EVERYTHING):
    return RelabellingJob(
        dataset=str(drawn),
        vocabulary="miniature",
        run=str(student),
        scoring=ScoringConfig.model_validate(scoring),
        out=str(out),
    )


def contents(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.tar")
    }


def test_masks_are_others_and_all_else_stays(drawn, student, tmp_path):
    folder = Relabelling(job_of(drawn, student, tmp_path / "out")).work()
    before = {each.key: each for path in drawn.glob("*.tar") for each in iterate(path)}
    after = {each.key: each for path in folder.glob("*.tar") for each in iterate(path)}
    assert after.keys() == before.keys()
    for key, sample in after.items():
        own = before[key]
        assert (sample.text, sample.image_bytes) == (own.text, own.image_bytes)
        assert sample.counterfactual_bytes == own.counterfactual_bytes
        labels = decode_label_map(sample.mask_bytes)
        assert set(np.unique(labels).tolist()) == {each + 1 for each in sample.class_ids}
        assert {each.class_id for each in sample.instances} == set(sample.class_ids)
        assert set(sample.class_ids) <= set(own.class_ids)


def test_what_is_done_is_found_and_other_settings_are_done_anew(drawn, student, tmp_path):
    own = Relabelling(job_of(drawn, student, tmp_path / "out"))
    assert own.find() is None
    folder = own.work()
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    assert own.find() == own.collect() == folder
    assert own.work() == folder
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.tar")} == stamps
    next(iter(stamps)).write_bytes(b"another tool was here")
    assert own.find() is None
    other = {**EVERYTHING, "inference": {**EVERYTHING["inference"], "batch_size": 1}}
    assert Relabelling(job_of(drawn, student, tmp_path / "out", other)).find() is None


def test_a_killed_relabelling_goes_on_with_the_next_tar(drawn, student, tmp_path):
    whole = contents(Relabelling(job_of(drawn, student, tmp_path / "whole")).work())
    step = Relabelling(job_of(drawn, student, tmp_path / "killed"))
    step.folder.mkdir()
    child = subprocess.Popen(step.program())
    try:
        while not list(step.folder.glob("*.tar.json")) and child.poll() is None:
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        child.wait()
        done = {path: path.stat().st_mtime_ns for path in step.folder.glob("*.tar.json")}
        assert done
    finally:
        end_processes([child])
    subprocess.run(step.program(), check=True)
    assert contents(step.folder) == whole
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())


def test_tars_of_more_shards_are_gone_afterwards(drawn, student, tmp_path):
    own = Relabelling(job_of(drawn, student, tmp_path / "out"))
    own.folder.mkdir()
    (own.folder / "train-000099.tar").write_bytes(b"of a larger dataset")
    (own.folder / "train-000099.tar.json").write_bytes(b"{}")
    own.work()
    assert not (own.folder / "train-000099.tar").exists()
    assert own.find() == own.folder


def test_a_shard_in_which_nothing_was_found_is_done_without_a_tar(tmp_path):
    empty = RelabelledTar(sha256="", samples=0, lost=3)
    assert _is_whole(tmp_path / "train-000000.tar", empty)
    (tmp_path / "train-000000.tar").write_bytes(b"of another student")
    assert not _is_whole(tmp_path / "train-000000.tar", empty)


def test_a_student_that_finds_nothing_is_told(drawn, student, tmp_path):
    nothing = {"inference": {"background": "constant", "threshold": 1.0, "window": None}}
    step = Relabelling(job_of(drawn, student, tmp_path / "out", nothing))
    with pytest.raises(InputError, match=r"finds nothing in .*: train it longer, or lower"):
        step.work()
    assert not (step.folder / RELABELLING_FILE).exists()


def test_a_damaged_record_and_a_foreign_folder_are_told(drawn, student, tmp_path):
    step = Relabelling(job_of(drawn, student, tmp_path / "out"))
    step.folder.mkdir()
    (step.folder / RELABELLING_FILE).write_text("{")
    with pytest.raises(DataError, match="no record of a relabelling: delete it"):
        step.find()
    other = Relabelling(job_of(drawn, student, tmp_path / "other"))
    other.folder.mkdir()
    (other.folder / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"holds other files \(such as 'thesis.txt'\)"):
        other.work()
    with pytest.raises(InputError, match="left nothing"):
        other.collect()
