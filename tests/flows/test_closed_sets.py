import pytest

from flows.training_parameters import TrainAndEvaluateParameters, closed_set_jobs
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark
from storage.errors import InputError


def test_the_export_command_says_what_came_out_and_does_it_once(run, dataset, tmp_path):
    arguments = ("export", "--dataset", dataset, "--classes", "rocket,bus", "--out", "out")
    code, _, err = run(*arguments)
    assert code == 2
    assert "names no vocabulary: give --vocabulary" in err
    for _ in range(2):
        code, out, err = run(*arguments, "--vocabulary", "miniature")
        assert code == 0, err
        assert "2 samples in out" in out
        assert "12 samples show no class of rocket,bus" in out
    assert len((tmp_path / "out/splits/train.txt").read_text().split()) == 2


@pytest.mark.slow
def test_the_closed_set_command_trains_scores_and_finds_both_done(run, dataset, tmp_path):
    root = write_benchmark(DrawnBenchmarkConfig(num_train=0, num_val=4), tmp_path / "drawn")
    arguments = ("closed-set", "--dataset", dataset, "--out", "run", "--root", root)
    chosen = ("--recipe", "deeplabv3_miniature", "--classes", "miniature", "--set", "steps=2")
    code, out, err = run(*arguments, *chosen)
    assert code == 0, err
    assert "deeplabv3_miniature on miniature" in out
    [scores] = (tmp_path / "run").rglob("scores-*.json")
    before = scores.stat().st_mtime_ns
    assert run(*arguments, *chosen)[0] == 0
    assert scores.stat().st_mtime_ns == before


def test_requests_become_jobs_with_the_recipe_s_settings(dataset):
    parameters = TrainAndEvaluateParameters.model_validate(
        {
            "dataset": str(dataset),
            "closed_sets": [
                {"recipe": "deeplabv3_r50", "classes": "rocket,bus", "settings": {"steps": 40_000}},
                {"recipe": "mask2former_miniature", "classes": "miniature"},
            ],
        }
    )
    first, second = closed_set_jobs(parameters)
    assert (first.config.steps, first.config.learning_rate) == (40_000, 1e-4)
    assert first.closed_set.names == ("rocket", "bus")
    assert second.config.network.kind == "mask2former"
    assert first.config.out != second.config.out


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"recipe": "deeplab", "classes": "miniature"}, "recipe 'deeplab' is unknown"),
        ({"recipe": "deeplabv3_r50", "classes": "unicorn"}, "unicorn"),
        (
            {"recipe": "deeplabv3_r50", "classes": "cat", "settings": {"step": 1}},
            "unknown key 'step'",
        ),
    ],
)
def test_requests_that_cannot_be_met_are_refused_before_anything_is_trained(
    dataset, request_, message
):
    parameters = TrainAndEvaluateParameters(dataset=str(dataset), closed_sets=(request_,))
    with pytest.raises(InputError, match=message):
        closed_set_jobs(parameters)
