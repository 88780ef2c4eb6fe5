"""The form of generation with `twins`: what the user interface sends, shows and refuses."""

import json

import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import StateType
from prefect.utilities.schema_tools import validate

from flows.generate_dataset import generate_dataset
from flows.generation_form import form_values, read_form
from flows.generation_parameters import GenerationParameters

TWINS = {"way": "inpaint", "grow": 0.1, "feather": 0.05}


@pytest.fixture(scope="module")
def schema():
    """What the server has of the deployed flow, as JSON."""
    shown = generate_dataset.to_deployment("x")._parameter_openapi_schema
    return json.loads(shown.model_dump_json())


def test_the_schema_shows_the_ways_the_ranges_and_what_they_mean(schema):
    shown = schema["definitions"]["TwinRules"]["properties"]
    assert shown["way"]["enum"] == ["paint", "later", "inpaint"]
    assert shown["way"]["default"] == "paint"
    assert "painted over" in shown["way"]["description"]
    for name in ("grow", "feather"):
        assert (shown[name]["minimum"], shown[name]["maximum"]) == (0, 0.5)
        assert "shorter side" in shown[name]["description"] or "grow" in shown[name]["description"]
    assert "TwinRules" in json.dumps(schema["definitions"]["AdvancedSettings"])


def test_a_form_comes_through_json_and_back():
    sent = {"root": "d", "samples": 4, "advanced": {"twins": TWINS}}
    filled = generate_dataset.validate_parameters(json.loads(json.dumps(sent)))
    given = {"slice": "all", "classes": (), "shards": "all"} | filled
    parameters = read_form(**given)
    assert parameters == GenerationParameters(root="d", samples=4, twins=TWINS)
    assert parameters.recipe.paints_over
    values = generate_dataset.serialize_parameters(form_values(parameters))
    again = generate_dataset.validate_parameters(json.loads(json.dumps(values)))
    assert again["advanced"] == filled["advanced"]


BAD = [
    ({"way": "remove"}, "'remove' is not one of"),
    ({"way": None}, "None"),
    ({"grow": 2}, "2 is greater than the maximum of 0.5"),
    ({"grow": "wide"}, "'wide' is not of type 'number'"),
    ({"feather": -0.1}, "-0.1 is less than the minimum of 0"),
    ({"wya": "inpaint"}, "'wya' was unexpected"),
]


@pytest.mark.parametrize(("twins", "words"), BAD)
def test_bad_values_are_told_by_the_schema_beside_their_field(schema, twins, words):
    sent = {"root": "d", "samples": 4, "advanced": {"twins": twins}}
    errors = validate(sent, schema, raise_on_error=False)
    assert any(words in str(error) for error in errors), errors


@pytest.fixture
def deployed(server, schema):
    """A deployment of the flow on a server, which holds runs to its schema."""
    with get_client(sync_client=True) as client:
        made = client.create_deployment(
            flow_id=client.create_flow(generate_dataset),
            name="painted-over",
            parameters={"root": "d", "samples": 4},
            parameter_openapi_schema=schema,
            enforce_parameter_schema=True,
        )
        yield client, made
        client.delete_deployment(made)


@pytest.mark.server
def test_the_server_takes_a_good_form_and_refuses_a_bad_one_before_there_is_a_run(deployed):
    client, made = deployed

    def submit(twins):
        sent = {"advanced": {"twins": twins}}
        return client.create_flow_run_from_deployment(made, parameters=sent)

    assert submit(TWINS).parameters["advanced"]["twins"] == TWINS
    for twins, words in BAD:
        with pytest.raises(PrefectHTTPStatusError) as refused:
            submit(twins)
        assert words in refused.value.response.json()["detail"]


@pytest.mark.server
@pytest.mark.parametrize(
    ("advanced", "words"),
    [
        (
            {"twins": {"way": "inpaint", "grow": 0.01}},
            "feather is 0.03, expected at most grow, which is 0.01",
        ),
        (
            {"twins": TWINS, "labeller": {"kind": "dataset-diffusion", "min_presence": 0.5}},
            "twins.way is 'inpaint' where the painter's attention is recorded",
        ),
    ],
)
def test_what_no_schema_can_say_ends_the_run_with_the_same_words(server, tmp_path, advanced, words):
    values = {"root": str(tmp_path / "d"), "samples": 4, "advanced": advanced}
    state = generate_dataset(**values, return_state=True)
    assert state.type is StateType.FAILED
    assert words in state.message
    assert not (tmp_path / "d").exists()
