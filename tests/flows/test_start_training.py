"""Training starts once, whatever is lost: events, machines, answers of the server."""

import importlib
import shutil
import time
from pathlib import Path

import pytest
import yaml
from prefect.utilities.schema_tools.hydration import HydrationContext, HydrationError, hydrate

from flows.announcing import READY_EVENT
from storage.errors import InputError

DEPLOYMENTS = {
    each["name"]: each
    for each in yaml.safe_load((Path(__file__).parents[2] / "prefect.yaml").read_text())[
        "deployments"
    ]
}
TRAINING = "train-and-evaluate/miniature-training"


@pytest.fixture
def client(server):
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as found:
        yield found


@pytest.fixture
def deployed(client, tmp_path):
    """The deployment that trains, as prefect.yaml has it, for this test's folder."""
    from flows.train_and_evaluate import train_and_evaluate

    flow_id = client.create_flow(train_and_evaluate)
    schema = train_and_evaluate.to_deployment("x")._parameter_openapi_schema
    parameters = {
        "dataset": str(tmp_path / "d"),
        "profile": "miniature",
        "min_shards": 2,
        "benchmarks": [{"root": str(tmp_path / "benchmark")}],
        "scoring": {"threshold": 0.4},
    }
    made = client.create_deployment(
        flow_id=flow_id,
        name="miniature-training",
        parameters=parameters,
        parameter_openapi_schema=schema.model_dump(),
        enforce_parameter_schema=True,
    )
    yield made
    client.delete_deployment(made)


@pytest.fixture
def start(server, tmp_path):
    """Look at a dataset once, as the event and the schedule do: the final state."""
    from flows.start_training import start_training

    def look(name="d", **changes):
        values = {"dataset": str(tmp_path / name), "min_shards": 2, "training": TRAINING}
        return start_training(**values | changes, return_state=True)

    return look


def runs_of(client, deployment):
    from prefect.client.schemas.filters import DeploymentFilter

    filters = DeploymentFilter.model_validate({"id": {"any_": [deployment]}})
    found = client.read_flow_runs(deployment_filter=filters)
    return sorted(found, key=lambda run: run.created)


def end(client, run, kind):
    """Let a run end, as its worker would report."""
    from prefect.client.schemas.objects import State, StateType

    state = State(type=StateType[kind.upper()], message="the worker said so")
    client.set_flow_run_state(run.id, state, force=True)


@pytest.mark.server
def test_training_starts_once_when_the_event_was_lost_and_the_schedule_looks_again_and_again(
    client, deployed, start, commit_drawn, tmp_path
):
    assert start().name == "Waiting"  # there is no dataset yet
    commit_drawn(tmp_path / "d", 1)
    state = start()
    assert (state.name, state.message.endswith("has 1 of 2 good shards")) == ("Waiting", True)
    assert not runs_of(client, deployed)
    commit_drawn(tmp_path / "d", 2)
    assert start().name == "Started"
    assert start().name == "Running"
    commit_drawn(tmp_path / "d", 3)  # more shards than were wanted start nothing again
    state = start()
    [run] = runs_of(client, deployed)
    assert (state.name, str(run.id) in state.message) == ("Running", True)
    assert run.name == "training of d"
    assert run.parameters["dataset"] == str(tmp_path / "d")
    assert run.parameters["min_shards"] == 2
    assert run.parameters["scoring"] == {"threshold": 0.4}  # as deployed
    assert run.parameters["benchmarks"] == [{"root": str(tmp_path / "benchmark")}]
    assert run.parent_task_run_id is None
    end(client, run, "completed")
    assert start().name == "Cached"
    assert len(runs_of(client, deployed)) == 1


@pytest.mark.server
def test_a_crashed_training_is_started_again_three_times_in_all(
    client, deployed, start, commit_drawn, tmp_path
):
    commit_drawn(tmp_path / "d", 2)
    for number in range(3):
        assert start().name == "Started"
        runs = runs_of(client, deployed)
        assert len(runs) == number + 1
        end(client, runs[-1], "crashed")
    state = start()
    assert state.name == "Stopped"
    assert state.message.startswith("3 runs crashed, the last is 'training of d'")
    assert len(runs_of(client, deployed)) == 3


@pytest.mark.server
@pytest.mark.parametrize("kind", ["failed", "cancelled"])
def test_a_training_that_failed_or_was_cancelled_is_left_to_people(
    client, deployed, start, commit_drawn, tmp_path, kind
):
    commit_drawn(tmp_path / "d", 2)
    start()
    [run] = runs_of(client, deployed)
    end(client, run, kind)
    state = start()
    assert state.name == "Stopped"
    assert "mend what is wrong, then retry that run" in state.message
    assert len(runs_of(client, deployed)) == 1


@pytest.mark.server
def test_a_dataset_that_was_removed_and_made_again_is_trained_on_again(
    client, deployed, start, commit_drawn, tmp_path
):
    commit_drawn(tmp_path / "d", 2)
    start()
    [run] = runs_of(client, deployed)
    end(client, run, "completed")
    assert start().name == "Cached"
    shutil.rmtree(tmp_path / "d")
    time.sleep(1.1)  # commit records tell seconds
    commit_drawn(tmp_path / "d", 2)
    assert start().name == "Started"
    assert start().name == "Running"
    assert len(runs_of(client, deployed)) == 2


@pytest.mark.server
def test_equal_datasets_at_two_places_are_two_trainings_in_folders_of_their_own(
    client, deployed, start, commit_drawn, tmp_path
):
    client.update_deployment(deployed, _with_out(client, deployed, tmp_path / "runs" / "d-run"))
    for name in ("d", "e"):
        commit_drawn(tmp_path / name, 2)
        assert start(name).name == "Started"
    first, second = runs_of(client, deployed)
    assert first.parameters["out"] == str(tmp_path / "runs" / "d-run")
    assert second.parameters["dataset"] == str(tmp_path / "e")
    folder = Path(second.parameters["out"])
    assert folder.parent == tmp_path / "runs"
    assert folder.name.startswith("e-")


def _with_out(client, deployment, out):
    from prefect.client.schemas.actions import DeploymentUpdate

    found = client.read_deployment(deployment)
    return DeploymentUpdate(parameters={**found.parameters, "out": str(out)})


@pytest.mark.server
def test_a_deployment_that_is_missing_is_named_with_the_way_out(start, server):
    with pytest.raises(InputError, match=r"no deployment 'train-and-evaluate/none'.*magicseg up"):
        start(training="train-and-evaluate/none").result()


@pytest.mark.server
@pytest.mark.slow
def test_a_training_that_people_ran_by_hand_is_found_and_one_without_scores_is_not_enough(
    client, deployed, start, commit_drawn, tmp_path
):
    from prefect.client.schemas.actions import DeploymentUpdate

    from flows.train_and_evaluate import train_and_evaluate

    quick = {"optimiser": {"steps": 2, "batch_size": 2}}
    parameters = {"dataset": str(tmp_path / "d"), "training": quick}
    client.update_deployment(deployed, DeploymentUpdate(parameters=parameters))
    commit_drawn(tmp_path / "d", 2)
    train_and_evaluate(**parameters)
    state = start()
    assert (state.name, "trained and scored before" in state.message) == ("Cached", True)
    assert not runs_of(client, deployed)
    benchmarks = [{"root": str(tmp_path / "benchmark")}]
    update = DeploymentUpdate(parameters={**parameters, "benchmarks": benchmarks})
    client.update_deployment(deployed, update)
    assert start().name == "Started"


@pytest.mark.server
@pytest.mark.parametrize("wrong", [{"min_shards": 0}, {"dataset": ""}, {"profile": ""}])
def test_the_server_refuses_what_means_nothing(client, deployed, wrong):
    from prefect.deployments import run_deployment
    from prefect.exceptions import PrefectHTTPStatusError

    with pytest.raises(PrefectHTTPStatusError, match="409"):
        run_deployment(TRAINING, parameters=wrong, timeout=0)


def rendered(deployment, payload):
    """The parameters of the run that an event starts, rendered as Prefect's server does it."""
    [trigger] = deployment["triggers"]
    context = {"event": {"payload": payload}}
    how = HydrationContext(raise_on_error=True, render_jinja=True, jinja_context=context)
    return hydrate(trigger["parameters"], how)


@pytest.mark.parametrize("name", ["watch-miniature", "watch-paper"])
def test_the_event_starts_the_flow_that_starts_training(name):
    from flows.start_training import start_training

    deployment = DEPLOYMENTS[name]
    [trigger] = deployment["triggers"]
    assert trigger["expect"] == [READY_EVENT]
    assert trigger["match"]["magicseg.profile"] == deployment["parameters"]["profile"]
    payload = {"dataset": """/data/it's "x" <&>""", "wanted": 4, "shards": 5, "profile": "p"}
    values = rendered(deployment, payload)
    assert values == {"dataset": payload["dataset"], "profile": "p", "min_shards": 4}
    start_training.validate_parameters({**deployment["parameters"], **values})


@pytest.mark.parametrize("missing", ["dataset", "wanted", "profile"])
def test_an_event_that_lacks_something_starts_nothing(missing):
    payload = {"dataset": "/data/x", "wanted": 4, "shards": 5, "profile": "miniature"}
    del payload[missing]
    with pytest.raises(HydrationError):
        rendered(DEPLOYMENTS["watch-miniature"], payload)


@pytest.mark.parametrize("name", ["watch-miniature", "watch-paper"])
def test_a_watched_training_is_deployed_for_the_same_dataset(name):
    watch = DEPLOYMENTS[name]
    flow, _, training = watch["parameters"]["training"].partition("/")
    deployment = DEPLOYMENTS[training]
    module, _, function = deployment["entrypoint"].rpartition(".")
    assert getattr(importlib.import_module(module), function).name == flow
    for field in ("dataset", "profile", "min_shards"):
        assert deployment["parameters"][field] == watch["parameters"][field]
    [schedule] = watch["schedules"]
    assert schedule["active"]


def test_bad_form_values_are_refused_with_words():
    from flows.training_parameters import read_training_form

    with pytest.raises(InputError, match="min_shards"):
        read_training_form(dataset="d", min_shards=0)
    with pytest.raises(InputError, match="datsaet"):
        read_training_form(datsaet="d")
