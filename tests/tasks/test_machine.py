import gc
import threading
import time
import weakref

import pytest

from models.profiles import load_profile
from models.writing.chat_config import ChatWriterConfig
from storage.objects import open_objects
from storage.records import Stage
from tasks.machine import Machine
from tasks.progress import Step, StoppedError
from tasks.resident import ResidentModels

STEP = Step(Stage.PAIRS, "a", 1, 2)


def test_a_stopped_run_does_not_stop_the_next_one_nor_the_one_beside_it():
    with Machine() as beside:
        with Machine() as first:
            first.progress.stop()
            with pytest.raises(StoppedError, match="pairs of a was interrupted"):
                first.progress.check("pairs of a")
            beside.progress.check("pairs of a")
        with Machine() as second:
            second.progress.check("pairs of a")


def test_a_stop_ends_a_wait():
    with Machine() as machine:
        machine.progress.wait(0.01, "the wait")
        threading.Timer(0.1, machine.progress.stop).start()
        started = time.monotonic()
        with pytest.raises(StoppedError, match="the wait was interrupted"):
            machine.progress.wait(60, "the wait")
        assert time.monotonic() - started < 10


def test_few_tars_are_packed_at_a_time_and_who_waits_can_be_stopped():
    with Machine() as machine:
        threading.Timer(0.1, machine.progress.stop).start()
        with (
            machine.packing(),
            machine.packing(),
            pytest.raises(StoppedError, match="room to pack"),
            machine.packing(),
        ):
            pass


def test_a_run_is_told_of_its_own_steps_alone():
    with Machine() as one, Machine() as other:
        seen = []
        end = one.progress.listen(seen.append)
        other.progress.tell(STEP)
        assert seen == []
        one.progress.tell(STEP)
        end()
        one.progress.tell(STEP)
        assert seen == [STEP]


def test_a_model_is_built_once_until_the_run_ends(tmp_path):
    config, objects = load_profile("miniature").labeller.segmenter, open_objects(tmp_path)
    with Machine() as machine:
        built = machine.models.model(config, objects)
        assert machine.models.model(config, objects) is built
        alive = weakref.ref(built)
        del built
        gc.collect()
        assert alive() is not None
    gc.collect()
    assert alive() is None


def test_models_that_are_handed_from_run_to_run_stay(tmp_path):
    config, models = load_profile("miniature").labeller.segmenter, ResidentModels()
    with Machine(models) as machine:
        built = machine.models.model(config, open_objects(tmp_path))
    with Machine(models) as machine:
        assert machine.models.model(config, open_objects(tmp_path)) is built
    models.release()
    assert models.model(config, open_objects(tmp_path)) is not built


def test_a_paid_writer_belongs_to_the_dataset_whose_ledger_it_writes(tmp_path):
    models = ResidentModels()
    config = ChatWriterConfig(model="m", api_key_env=None)
    one = models.model(config, open_objects(tmp_path / "one"))
    assert models.model(config, open_objects(tmp_path / "one")) is one
    assert models.model(config, open_objects(tmp_path / "other")) is not one
