import pytest

from flows.generation_parameters import GenerationParameters
from models.writing.chat import ChatWriterConfig
from storage.plan import plan_shard
from storage.records import Stage
from storage.slices import resolve_slice
from storage.vocabulary import load_vocabulary


@pytest.fixture
def parameters(tmp_path):
    return GenerationParameters(root=str(tmp_path), samples=8, samples_per_shard=8)


def key(parameters, stage=Stage.PROMPTS):
    classes = resolve_slice(load_vocabulary(parameters.spec.vocabulary), parameters.slice)
    shard = plan_shard(parameters.spec, classes, 0, parameters.samples)
    return parameters.recipe.key(stage, shard, {})


def test_the_same_question_has_the_same_key(parameters):
    assert key(parameters) == key(parameters.model_copy())


@pytest.mark.parametrize(
    "change",
    [{"samples": 7}, {"seed": 1}, {"slice": "cat,bus"}, {"prompts": {"max_rounds": 9}}],
)
def test_what_the_texts_depend_on_changes_their_key(parameters, change):
    document = parameters.model_dump() | change
    assert key(GenerationParameters.model_validate(document)) != key(parameters)


def test_rules_of_later_stages_leave_earlier_keys_alone(parameters):
    document = parameters.model_dump() | {"masks": {"min_area": 0.3}}
    other = GenerationParameters.model_validate(document)
    assert key(other) == key(parameters)
    assert other.recipe.config(Stage.MASKS) != parameters.recipe.config(Stage.MASKS)


def test_prices_and_addresses_are_no_part_of_what_a_language_model_writes(parameters):
    recipe = parameters.recipe

    def with_writer(**fields):
        writer = ChatWriterConfig(model="m", **fields)
        profile = recipe.profile.model_copy(update={"writer": writer})
        return recipe.model_copy(update={"profile": profile}).config(Stage.PROMPTS)

    assert with_writer() == with_writer(base_url="http://localhost:1/v1", concurrency=2)
    assert with_writer() != with_writer(temperature=0.5)


def test_every_stage_says_what_it_depends_on(parameters):
    described = parameters.recipe.describe()
    assert set(described) == {"prompts", "pairs", "detections", "masks"}
    assert described["pairs"]["painter"]["weights"].startswith("sha256:")
