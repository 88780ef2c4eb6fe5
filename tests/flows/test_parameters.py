import pytest

from flows.generation_parameters import GenerationParameters
from flows.training_parameters import TrainAndEvaluateParameters, training_config
from storage.documents import nest, read_parameters, split_assignment
from storage.errors import InputError
from tasks.stages import StageKeys


def test_single_values_win_over_the_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("root: here\nsamples: 5\nmasks: {min_area: 0.1, max_area: 0.5}\n")
    parameters = read_parameters(GenerationParameters, file, {"samples": 7, "masks.min_area": 0.2})
    assert parameters.samples == 7
    assert (parameters.masks.min_area, parameters.masks.max_area) == (0.2, 0.5)


def test_an_assignment_is_read_as_yaml():
    assert split_assignment("a.b=0.5") == ("a.b", 0.5)
    assert split_assignment("a=[1, x]") == ("a", [1, "x"])


@pytest.mark.parametrize("text", ["a", "=3", "a=[1"])
def test_an_assignment_that_sets_nothing_is_refused(text):
    with pytest.raises(InputError, match=r"sets nothing|not YAML"):
        split_assignment(text)


def test_a_name_that_reaches_into_a_single_value_is_refused():
    with pytest.raises(InputError, match="seed holds a single value"):
        nest({"seed.more": 1}, {"seed": 3})


def test_the_batch_size_and_device_reach_every_network_and_no_key(tmp_path):
    plain = GenerationParameters(root=str(tmp_path), samples=4)
    other = plain.model_copy(update={"batch_size": 3, "device": "cpu"})
    assert other.recipe.profile.painter.batch_size == 3
    assert other.recipe.profile.labeller.segmenter.device == "cpu"
    assert StageKeys(other.recipe).describe() == StageKeys(plain.recipe).describe()


def test_parameters_survive_a_round_trip_through_json(tmp_path):
    parameters = GenerationParameters(root=str(tmp_path), samples=4)
    assert GenerationParameters.model_validate_json(parameters.model_dump_json()) == parameters


def test_an_unknown_training_setting_is_named(tmp_path):
    parameters = TrainAndEvaluateParameters(
        dataset=str(tmp_path), out=str(tmp_path), training={"optimiser": {"stpes": 3}}
    )
    with pytest.raises(InputError, match=r"optimiser\.stpes.*steps"):
        training_config(parameters)


def test_another_writer_changes_the_texts_and_nothing_else(tmp_path):
    plain = GenerationParameters(root=str(tmp_path), samples=4)
    document = {**plain.model_dump(), "writer": {"kind": "template", "templates": "simple"}}
    other = StageKeys(GenerationParameters.model_validate(document).recipe).describe()
    assert other.pop("prompts") != StageKeys(plain.recipe).describe()["prompts"]
    assert other.items() < StageKeys(plain.recipe).describe().items()
