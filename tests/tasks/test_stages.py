from contextlib import nullcontext
from pathlib import Path

import pytest

from flows.generation_parameters import GenerationParameters
from flows.generation_run import prepare
from models.painting.config import PainterConfig
from models.registry import Role
from models.writing.chat_config import ChatWriterConfig
from storage.errors import InputError
from storage.plan import ShardRange, plan_shard
from storage.records import Stage
from storage.slices import resolve_slice
from storage.vocabulary import load_vocabulary
from tasks.recipe import Recipe
from tasks.resident import ResidentModels
from tasks.rules import OtherRules, TwinRules
from tasks.stages import STAGES, StageKeys, stage_table

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"


@pytest.fixture
def parameters(tmp_path):
    return GenerationParameters(root=str(tmp_path), samples=8, samples_per_shard=8)


def key(parameters, stage=Stage.PROMPTS, inputs=()):
    """The key of the first sample."""
    classes = resolve_slice(load_vocabulary(parameters.spec.vocabulary), parameters.slice)
    sample = plan_shard(parameters.spec, classes, 0, parameters.samples).samples[0]
    return StageKeys(parameters.recipe).key(stage, sample, inputs)


def test_the_same_question_has_the_same_key(parameters):
    assert key(parameters) == key(parameters.model_copy())


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"slice": "cat,bus"}, {"prompts": {"max_rounds": 9}}],
)
def test_what_the_texts_depend_on_changes_their_key(parameters, change):
    document = parameters.model_dump() | change
    assert key(GenerationParameters.model_validate(document)) != key(parameters)


@pytest.mark.parametrize("change", [{"samples": 7}, {"samples_per_shard": 3}])
def test_how_many_samples_there_are_and_how_they_are_packed_changes_no_key(parameters, change):
    assert key(parameters.model_copy(update=change)) == key(parameters)


def test_what_a_stage_reads_changes_its_key(parameters):
    assert key(parameters, Stage.PAIRS, ["1" * 16]) != key(parameters, Stage.PAIRS, ["2" * 16])


def test_rules_of_later_stages_leave_earlier_keys_alone(parameters):
    document = parameters.model_dump() | {"masks": {"min_area": 0.3}}
    other = GenerationParameters.model_validate(document)
    assert key(other) == key(parameters)
    declared = STAGES[Stage.MASKS]
    assert declared.config(other.recipe) != declared.config(parameters.recipe)


def test_prices_and_addresses_are_no_part_of_what_a_language_model_writes(parameters):
    recipe = parameters.recipe

    def with_writer(**fields):
        writer = ChatWriterConfig(model="m", **fields)
        profile = recipe.profile.model_copy(update={"writer": writer})
        return STAGES[Stage.PROMPTS].config(recipe.model_copy(update={"profile": profile}))

    assert with_writer() == with_writer(base_url="http://localhost:1/v1", concurrency=2)
    assert with_writer() != with_writer(temperature=0.5)


def test_every_stage_says_what_it_depends_on(parameters):
    described = StageKeys(parameters.recipe).describe()
    assert set(described) == {"prompts", "pairs", "detections", "masks"}
    assert described["pairs"]["painter"]["weights"].startswith("sha256:")


PAINTED_OVER = {"twins": {"way": "inpaint"}}


def other(parameters, **changes):
    return GenerationParameters.model_validate(parameters.model_dump() | changes)


def test_who_paints_no_object_over_has_the_stages_and_keys_that_there_were_before(parameters):
    keys = StageKeys(parameters.recipe)
    usual = ["prompts", "pairs", "detections", "masks"]
    assert [*keys.inputs] == usual
    assert keys.stages == [*usual, "shards"]
    unused = {"twins": {"grow": 0.4, "feather": 0.2}}
    assert StageKeys(other(parameters, **unused).recipe).describe() == keys.describe()
    described = keys.describe()
    assert described["pairs"].keys() == {"painter", "rules", "image_format"}
    assert described["detections"]["rules"] == {"require": "all", "counterfactual": "reject"}
    assert "twins" not in str(described)


def test_who_paints_objects_over_has_two_stages_more(parameters):
    keys = StageKeys(other(parameters, **PAINTED_OVER).recipe)
    assert keys.stages == [stage for stage in Stage if stage is not Stage.OTHERS]
    described = keys.describe()
    assert set(described) == {"prompts", "pairs", "detections", "masks", "twins", "checks"}
    usual = StageKeys(parameters.recipe).describe()
    assert described["prompts"] == usual["prompts"]
    assert described["masks"] == usual["masks"]
    assert described["pairs"] != usual["pairs"]


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({"detections": {"counterfactual": "record"}}, {"checks"}),
        ({"detections": {"require": "any"}}, {"detections"}),
        ({"twins": {"way": "inpaint", "grow": 0.1}}, {"twins"}),
    ],
)
def test_a_rule_is_part_of_the_stage_alone_that_it_is_about(parameters, change, stages):
    before = StageKeys(other(parameters, **PAINTED_OVER).recipe).describe()
    after = StageKeys(other(parameters, **(PAINTED_OVER | change)).recipe).describe()
    assert {stage for stage in before if before[stage] != after[stage]} == stages


LOOKED_THROUGH = {"others": {"way": "ignore"}}


def test_who_looks_for_no_others_has_the_stages_and_keys_that_there_were_before(parameters):
    keys = StageKeys(parameters.recipe)
    unused = {"others": {"nearest": 9, "min_score": 0.1, "mentioned": False}}
    same = StageKeys(other(parameters, **unused).recipe)
    assert same.stages == keys.stages
    assert same.describe() == keys.describe()
    assert "others" not in str(keys.describe())
    spec, shard = parameters.spec, ShardRange("0" * 8, 0, 0, 4, 4)
    assert same.shard_key(spec, shard) == keys.shard_key(spec, shard)


def test_who_looks_for_others_has_a_stage_more_and_what_is_done_with_them_is_packing(parameters):
    usual = StageKeys(parameters.recipe).describe()
    keys = StageKeys(other(parameters, **LOOKED_THROUGH).recipe)
    assert keys.stages == ["prompts", "pairs", "detections", "masks", "others", "shards"]
    assert keys.inputs[Stage.OTHERS] == (Stage.PROMPTS, Stage.PAIRS, Stage.MASKS)
    described = keys.describe()
    own = described.pop("others")
    assert set(own) == {"vocabulary", "detector", "segmenter", "scout", "rules"}
    assert described.pop("shards") == {"others": "ignore"}
    assert described == usual
    labels = StageKeys(other(parameters, others={"way": "labels"}).recipe).describe()
    assert labels["others"] == own
    assert labels["shards"] == {"others": "labels"}


def test_with_later_counterfactuals_the_check_comes_first_and_its_boxes_are_not_read(parameters):
    later = {"twins": {"way": "later"}, **LOOKED_THROUGH}
    keys = StageKeys(other(parameters, **later).recipe)
    assert keys.stages == list(Stage)
    assert Stage.CHECKS in keys.inputs[Stage.OTHERS]
    assert Stage.CHECKS not in keys.reads[Stage.OTHERS]


def test_without_likeness_there_is_no_scout(parameters):
    recipe = other(parameters, others={"way": "ignore", "nearest": 0}).recipe
    assert "scout" not in StageKeys(recipe).describe()["others"]
    assert Role.SCOUT not in recipe.models(), "its weights need not be there"
    looked = other(parameters, **LOOKED_THROUGH).recipe
    assert looked.models()[Role.SCOUT].model == recipe.profile.student.clip
    assert Role.SCOUT not in parameters.recipe.models()


def test_a_profile_may_name_its_scout(parameters):
    recipe = other(parameters, **LOOKED_THROUGH).recipe
    own = recipe.profile.scouting.model_copy(update={"windows": 4})
    profile = recipe.profile.model_copy(update={"scout": own})
    named = recipe.model_copy(update={"profile": profile.on_device("cpu", 3)})
    assert StageKeys(named).describe()["others"]["scout"]["windows"] == 4
    assert named.models()[Role.SCOUT].batch_size == 3


def test_who_knows_the_painters_classes_alone_cannot_look_for_others(parameters):
    with pytest.raises(InputError, match=r"others\.way is 'ignore' with a labeller of the kind"):
        assert other(
            parameters, labeller={"kind": "diffumask", "min_presence": 0.1}, **LOOKED_THROUGH
        ).recipe


def test_models_that_look_for_others_share_a_device(parameters):
    profile = parameters.recipe.profile
    parts = {"segmenter": profile.labeller.segmenter.model_copy(update={"device": "cuda:1"})}
    moved = profile.model_copy(update={"labeller": profile.labeller.model_copy(update=parts)})
    with pytest.raises(InputError, match=r"segmenter cuda:1.*expected one"):
        Recipe(profile=moved, others=OtherRules(way="labels"))


def test_a_profile_may_name_who_paints_over(parameters):
    recipe = other(parameters, **PAINTED_OVER).recipe
    own = recipe.profile.inpainting.model_copy(update={"guidance": 1.0})
    profile = recipe.profile.model_copy(update={"inpainter": own})
    named = recipe.model_copy(update={"profile": profile.on_device("cpu", 3)})
    before, after = StageKeys(recipe).describe(), StageKeys(named).describe()
    assert before.pop("twins")["inpainter"]["guidance"] == 3.0
    assert after.pop("twins")["inpainter"]["guidance"] == 1.0
    assert before == after
    assert named.models()[Role.INPAINTER].batch_size == 3
    usual = named.model_copy(update={"twins": TwinRules()})
    assert Role.INPAINTER not in usual.models(), "its weights need not be there"


def test_the_stages_stand_in_the_order_of_their_names_and_read_earlier_ones_alone():
    assert list(STAGES) == list(Stage)
    for number, declaration in enumerate(STAGES.values()):
        assert set(declaration.inputs) <= set(list(Stage)[:number])


def test_the_page_shows_every_stage():
    assert stage_table() in PAGE.read_text(encoding="utf-8")


def test_writing_texts_builds_no_painter(parameters, tmp_path):
    """Its tokenizer is enough, and the GPU may be another worker's."""

    class NoPainter(ResidentModels):
        def model(self, config, objects):
            assert not isinstance(config, PainterConfig)
            return super().model(config, objects)

    with prepare(parameters, NoPainter()) as run:
        [shard] = run.planned
        assert run.work(shard).make_missing(STAGES[Stage.PROMPTS], nullcontext) == 1
