import os
import re
import signal
import threading
import time

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.states import StateType

from flows.generate_dataset import generate_dataset
from flows.generation_form import form_values
from flows.generation_parameters import GenerationParameters
from flows.generation_run import prepare, select_shards
from models.labelling.config import DetectorConfig
from storage.errors import IncompleteError, InputError
from storage.records import Stage
from storage.store import Store
from tasks.progress import StoppedError
from tasks.resident import ResidentModels

pytestmark = pytest.mark.server

STAGES = [stage for stage in Stage if not stage.is_optional]


@pytest.fixture
def emitted(server, tmp_path):
    """The events that the server has about this test's dataset, once there are so many."""
    from prefect.events.schemas.events import Event

    from flows.announcing import READY_EVENT

    def look(count):
        deadline = time.monotonic() + 30
        while True:
            wanted = {"filter": {"event": {"name": [READY_EVENT]}}}
            with get_client(sync_client=True) as client:
                answer = client._client.post("/events/filter", json=wanted)
            events = [Event.model_validate(each) for each in answer.json()["events"]]
            own = [each for each in events if each.payload["dataset"].startswith(str(tmp_path))]
            if len(own) >= count:
                return own
            assert time.monotonic() < deadline, events
            time.sleep(0.2)

    return look


@pytest.mark.slow
def test_the_second_run_executes_nothing_and_says_so(make, tmp_path, tars):
    state, summary = make(tmp_path / "d")
    assert summary.executed == dict.fromkeys(STAGES, 3)
    assert summary.requested == 12
    assert summary.requested == summary.written + sum(summary.dropped.values())
    before = tars(tmp_path / "d")
    assert before
    state, summary = make(tmp_path / "d")
    assert state.name == "Cached"
    assert summary.executed == {}
    assert summary.finished_before == 3
    assert tars(tmp_path / "d") == before


@pytest.mark.slow
def test_other_workers_order_and_process_history_give_the_same_tars(make, tmp_path, tars):
    make(tmp_path / "two", shards_in_flight=2)
    make(tmp_path / "one", shards="2", shards_in_flight=1)
    make(tmp_path / "one", shards="0-1", shards_in_flight=1)
    assert tars(tmp_path / "one") == tars(tmp_path / "two")


@pytest.mark.slow
def test_a_slice_is_extended_without_touching_what_is_there(make, tmp_path, tars):
    make(tmp_path / "d", samples=8)
    before = tars(tmp_path / "d")
    _, summary = make(tmp_path / "d", samples=12)
    assert summary.finished_before == 2
    assert summary.executed == dict.fromkeys(STAGES, 1)
    assert before.items() < tars(tmp_path / "d").items()


def holds(piece, index):
    """Whether a piece is about the sample at a position."""
    return any(int(key[8:]) == index for key in piece.verdicts)


@pytest.mark.slow
def test_a_damaged_output_is_made_again_and_nothing_else(make, tmp_path, tars):
    make(tmp_path / "d")
    before = tars(tmp_path / "d")
    store = Store.open(tmp_path / "d")
    (victim,) = (each for each in store.commits(Stage.MASKS) if holds(each, 4))
    (tmp_path / "d" / victim.object.path).write_bytes(b"")
    (tmp_path / "d" / store.commits(Stage.SHARDS)[1].object.path).unlink()
    _, summary = make(tmp_path / "d")
    assert summary.executed == {Stage.MASKS: 1, Stage.SHARDS: 1}
    assert tars(tmp_path / "d") == before


@pytest.mark.slow
def test_a_shard_that_somebody_else_makes_comes_last_and_is_made_when_they_let_go(make, tmp_path):
    make(tmp_path / "d", shards="0")
    store = Store.open(tmp_path / "d")
    name = store.commits(Stage.SHARDS)[0].shard.replace("000000", "000001")
    seen, held = [], threading.Event()

    def hold():
        with store.claim(name):
            held.set()
            while len(store.shards()) < 2:
                time.sleep(0.05)
            seen.extend(shard.name[-1] for shard in store.shards())

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    _, summary = make(tmp_path / "d")
    other.join()
    assert seen == ["0", "2"]
    assert summary.is_complete
    assert len(store.shards()) == 3


@pytest.mark.slow
def test_every_run_that_ends_with_enough_shards_announces_the_dataset(make, tmp_path, emitted):
    make(tmp_path / "d", min_yield=0.0)
    make(tmp_path / "d", ready_after_shards=4, min_yield=0.0)
    assert emitted(0) == []
    for number in (1, 2):  # the second makes nothing, and an event can be lost
        make(tmp_path / "d", ready_after_shards=2, min_yield=0.0)
        events = emitted(number)
    about = {"dataset": str(tmp_path / "d"), "shards": 3, "wanted": 2}
    about["profile"] = events[0].resource["magicseg.profile"]
    assert [event.payload for event in events] == [about] * 2
    [resource] = {event.resource.id for event in events}
    assert re.fullmatch(r"magicseg\.dataset\.[0-9a-f]{16}", resource)
    assert not (tmp_path / "d" / ".engine" / "announced").exists()


@pytest.mark.parametrize(
    ("text", "expected"), [("all", [0, 1, 2, 3]), ("1", [1]), ("0-1,3", [0, 1, 3])]
)
def test_shards_are_chosen_by_index_and_range(text, expected):
    assert select_shards(text, 4) == expected


@pytest.mark.parametrize("text", ["4", "2-1", "x", "", "0,,1"])
def test_shards_that_do_not_exist_are_refused(text):
    with pytest.raises(InputError, match="up to 3"):
        select_shards(text, 4)


@pytest.mark.slow
def test_a_killed_run_resumes_at_the_stage_where_it_was_and_ends_with_the_same_tars(
    magicseg, run, quick, tmp_path, tars
):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(quick))
    assert run("generate", file, "--root", "whole")[0] == 0
    process = magicseg("generate", file, "--root", "killed", "--set", "shards_in_flight=1")
    detections = tmp_path / "killed" / ".engine" / "commits" / "detections"
    deadline = time.monotonic() + 300
    while not list(detections.glob("*/*.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    killed = Store.open(tmp_path / "killed")
    kept = {stage: len(killed.commits(stage)) for stage in killed.specification.stages}
    assert kept[Stage.SHARDS] < 3
    code, out, err = run("generate", file, "--root", "killed")
    assert code == 0, err
    executed = " ".join(out.split()).split("executed: ")[1]
    for stage in kept:
        left = 3 - kept[stage]
        assert (f"{stage.value} of {left}" in executed) == (left > 0), (executed, kept)
    assert tars(tmp_path / "killed") == tars(tmp_path / "whole")
    code, out, _ = run("generate", file, "--root", "killed")
    assert code == 0
    assert "no stage was executed" in out


@pytest.mark.slow
def test_a_run_that_is_told_to_end_does_so_soon_and_says_that_it_can_go_on(
    magicseg, quick, tmp_path
):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(quick | {"samples_per_shard": 12}))
    process = magicseg("generate", file, "--root", "d")
    prompts = tmp_path / "d" / ".engine" / "commits" / "prompts"
    deadline = time.monotonic() + 300
    while not list(prompts.glob("*/*.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "run the command again to go on" in " ".join(err.split())
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_run_that_is_told_to_end_while_it_paints_keeps_what_is_painted(
    magicseg, run, quick, tmp_path, tars
):
    document = yaml.safe_load((tmp_path / "quick.yaml").read_text())
    document["painter"]["steps"] = 40  # the run has to be caught at it
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(document))
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(quick | {"samples": 64, "samples_per_shard": 64}))
    process = magicseg("generate", file, "--root", "d", PYTHONUNBUFFERED="1")
    lines = iter(process.stdout.readline, "")
    told = next(int(m[1]) for m in (re.search(r"pairs ([1-9]\d*)/64", line) for line in lines) if m)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    seconds = time.monotonic() - began
    assert process.returncode == 130, err
    assert seconds < 30
    kept = [each for each in Store.open(tmp_path / "d").commits(Stage.PAIRS) if each.is_piece]
    assert told <= sum(each.counts.requested for each in kept) < 64
    log = next((tmp_path / "d" / ".engine" / "logs").glob("*.log")).read_text()
    assert "Traceback" not in log


@pytest.mark.slow
def test_task_runs_are_named_by_slice_and_number_and_a_stopped_one_is_cancelled(
    server, quick, tmp_path
):
    listed = "cat,boat,star,bus,fish,rocket,tree,house,cup"
    values = {**quick, "root": str(tmp_path / "d"), "slice": listed, "samples": 4}
    parameters = GenerationParameters.model_validate(values)
    with prepare(parameters) as run, run.handed_on():
        progress = run.machine.progress
        progress.listen(lambda step: progress.stop() if step.stage == Stage.PAIRS else None)
        state = generate_dataset(**form_values(parameters), return_state=True)
    with pytest.raises(StoppedError):
        state.result()
    with get_client(sync_client=True) as client:
        found = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id={"any_": [state.state_details.flow_run_id]})
        )
    assert {each.name: each.state_type for each in found} == {
        "prompts · cat,boat,star,bus,fish,rocket,tree,hous… · 000000": StateType.COMPLETED,
        "pairs · cat,boat,star,bus,fish,rocket,tree,hous… · 000000": StateType.COMPLETED,
        "detections · cat,boat,star,bus,fish,rocket,tree,hous… · 000000": StateType.CANCELLED,
    }


class FailingOnce(ResidentModels):
    """A machine whose detector breaks down once, in a way that nobody foresaw."""

    def __init__(self):
        super().__init__()
        self.broken = False

    def model(self, config, objects):
        built = super().model(config, objects)
        if not isinstance(config, DetectorConfig) or self.broken:
            return built
        self.broken = True
        return BrokenDetector()


class BrokenDetector:
    def detect(self, images, phrases):
        message = "device-side assert triggered"
        raise RuntimeError(message)


@pytest.mark.slow
def test_an_error_that_nobody_foresaw_costs_its_shard_and_no_other(server, quick, tmp_path, tars):
    parameters = GenerationParameters.model_validate({**quick, "root": str(tmp_path / "d")})
    with prepare(parameters, FailingOnce()) as run, run.handed_on():
        state = generate_dataset(**form_values(parameters), return_state=True)
    with pytest.raises(IncompleteError, match=r"1 of 3 shards .*RuntimeError: device-side assert"):
        state.result()
    assert len(tars(tmp_path / "d")) == 2
    # Advice of the message: run again.
    assert generate_dataset(**form_values(parameters), return_state=True).is_completed()
    assert len(tars(tmp_path / "d")) == 3


@pytest.mark.slow
def test_a_stopped_run_does_not_stop_the_next_one_in_the_process(server, quick, tmp_path):
    parameters = GenerationParameters.model_validate({**quick, "root": str(tmp_path / "d")})
    with prepare(parameters) as run, run.handed_on():
        run.machine.progress.stop()
        state = generate_dataset(**form_values(parameters), return_state=True)
    with pytest.raises(StoppedError):
        state.result()
    assert generate_dataset(**form_values(parameters), return_state=True).result().written


@pytest.mark.slow
def test_shards_in_flight_share_the_calls_that_a_writer_may_have_in_flight(
    make, chat_server, tmp_path
):
    chat_server.delay = 0.1
    writer = {"kind": "chat", "model": "m", "base_url": chat_server.url, "api_key_env": None}
    writer |= {"concurrency": 2, "texts_per_call": 1}
    with pytest.raises(
        IncompleteError, match="no sample"
    ):  # its texts are too long for the painter
        make(tmp_path / "d", writer=writer, shards_in_flight=3, prompts={"max_rounds": 1})
    assert chat_server.most_in_flight == 2
