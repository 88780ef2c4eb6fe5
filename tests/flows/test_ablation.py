import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
import yaml

from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.reports.ablations import Ablation
from evaluation.scoring.measured import headline
from flows.ablation_grid import AblationParameters, Grid, check_grid, require_all, walk
from flows.generation_run import prepare
from flows.training_parameters import training_config
from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark
from storage.documents import read_parameters
from storage.errors import BudgetError, DataError, IncompleteError, InputError
from storage.records import Stage
from storage.shards import iterate
from storage.store import Store

PLAIN = {"writer": {"kind": "template", "templates": "miniature_simple"}}


@pytest.fixture
def document(tmp_path):
    """Parameters of a grid, as they stand in a file."""
    benchmark = write_benchmark(
        DrawnBenchmarkConfig(num_train=0, num_val=3, num_test=0), tmp_path / "benchmark"
    )
    return {
        "out": str(tmp_path / "grid"),
        "generation": {"samples": 4},
        "benchmarks": [{"root": str(benchmark)}],
        "seeds": [0, 1],
    }


@pytest.fixture
def grid(document):
    """A grid of the document with changes."""

    def make(**changes):
        return Grid(AblationParameters.model_validate(document | changes))

    return make


def described(arm):
    return arm.prompts, arm.classes_per_image, arm.counterfactual


def test_the_grid_has_the_papers_arms_at_every_seed(grid):
    made = grid(prompts={"simple": PLAIN, "rich": {}})
    arms = [described(run.arm) for run in made.runs if run.seed == 0]
    assert arms == [
        ("simple", 8, False),
        ("simple", 8, True),
        ("rich", 8, False),
        ("rich", 8, True),
        ("rich", 1, False),
        ("rich", 14, False),
    ]
    assert [described(run.arm) for run in made.runs if run.seed == 1] == arms


def test_arms_that_come_to_the_same_are_trained_once(grid):
    made = grid(classes_per_image=[8, 14, "all", 99], seeds=[0])
    assert [described(run.arm) for run in made.runs] == [
        ("rich", 8, False),
        ("rich", 8, True),
        ("rich", 14, False),
    ]


def test_runs_that_differ_in_training_alone_share_a_dataset_and_nothing_else(grid):
    made = grid(prompts={"simple": PLAIN, "rich": {}})
    assert len(made.datasets) == 4
    own = [run for run in made.runs if (run.arm.prompts, run.seed) == ("rich", 1)]
    assert {run.parameters.dataset for run in own} == {made.datasets["rich", 1].root}
    folders = [run.parameters.run_folder for run in made.runs]
    assert len(set(folders)) == len(made.runs)
    configs = [training_config(run.parameters) for run in own]
    assert {config.seed for config in configs} == {1}
    assert [config.losses.counterfactual_weight for config in configs] == [0, 1, 0, 0]
    assert [config.classes_per_image for config in configs] == [8, 8, 1, 14]


def test_kinds_of_prompts_differ_by_their_settings_alone(grid):
    made = grid(prompts={"simple": PLAIN, "rich": {}}).datasets
    assert made["simple", 0].writer.templates == "miniature_simple"
    assert made["rich", 0].writer is None
    apart = {"root", "writer"}
    assert made["simple", 0].model_dump(exclude=apart) == made["rich", 0].model_dump(exclude=apart)
    assert made["rich", 1].seed == 1


def test_the_untrained_student_is_scored_once_for_each_seed(grid):
    made = grid(prompts={"simple": PLAIN, "rich": {}})
    assert [run.seed for run in made.runs if run.parameters.untrained] == [0, 1]
    assert not any(run.parameters.untrained for run in grid(untrained=False).runs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names_prompts": "poor"}, r"names_prompts is 'poor', expected one of \['rich'\]"),
        ({"seeds": [1, 1]}, "hold one twice"),
        ({"generation": {"samples": 4, "seed": 3}}, r"set \['seed'\], which the grid itself sets"),
        ({"prompts": {"rich": {"root": "x"}}}, r"set \['root'\], which the grid itself sets"),
        ({"prompts": {"../rich": {}}}, "prompts"),
        ({"out": "s3://bucket/grid"}, "expected a folder"),
        ({"classes_per_image": ["most"]}, "classes_per_image"),
        ({"benchmarks": []}, "benchmarks"),
        ({"benchmarks": [{"root": "a"}, {"root": "b"}]}, "expected each split once"),
    ],
)
def test_parameters_that_mean_nothing_are_refused(document, changes, message):
    with pytest.raises(InputError, match=message):
        read_parameters(AblationParameters, None, document | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generation": {"samples": 4, "sampels_per_shard": 2}}, "sampels_per_shard"),
        ({"prompts": {"rich": {"writter": {}}}}, "generation of rich prompts: .*'writter'"),
        ({"training": {"optimiser": {"stpes": 3}}}, r"optimiser\.stpes"),
        ({"training": {"losses": {"counterfactual_weight": 0}}}, "set it above 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_made(grid, changes, message):
    with pytest.raises(InputError, match=message):
        grid(**changes)


def test_a_benchmark_that_is_not_there_is_refused_before_anything_is_made(grid, tmp_path):
    made = grid(benchmarks=[BenchmarkConfig(root=tmp_path / "none")])
    with pytest.raises(InputError, match="none"):
        check_grid(made)
    assert not made.folder.exists()


def make_empty(dataset):
    """Make a dataset without a shard: yields are read from its store."""
    with prepare(dataset):
        pass


def test_a_dataset_that_fails_fails_its_own_cells_and_no_others(grid):
    made = grid(classes_per_image=[])

    def generate(dataset):
        if dataset.seed == 1:
            message = "one shard is left to do"
            raise IncompleteError(message)
        make_empty(dataset)

    walked = walk(made, generate, lambda run: ())
    assert [cell.state for cell in walked.cells] == ["measured", "measured", "failed", "failed"]
    assert {cell.error for cell in walked.unfinished} == {"one shard is left to do"}
    with pytest.raises(IncompleteError, match="2 of 4 cells are not measured"):
        require_all(walked)


def test_a_run_that_fails_does_not_stop_the_others(grid):
    made = grid(classes_per_image=[], seeds=[0])

    def measure(run):
        message = "the shards are damaged"
        raise DataError(message)

    walked = walk(made, make_empty, measure)
    assert [cell.state for cell in walked.cells] == ["failed", "failed"]
    text = (made.folder / "ablation.md").read_text()
    assert "failed: rich, m = 8, loss on, seed 0: the shards are damaged" in text
    assert Ablation.model_validate_json((made.folder / "ablation.json").read_bytes()) == walked


@pytest.mark.parametrize("kind", [InputError, BudgetError])
def test_what_the_caller_must_change_stops_the_grid(grid, kind):
    def generate(dataset):
        message = "no key is set"
        raise kind(message)

    with pytest.raises(kind, match="no key is set"):
        walk(grid(), generate, lambda run: ())


def test_the_command_wants_a_file_or_a_preset(run):
    code, _, said = run("ablate", "--out", "x")
    assert code == 2
    assert "either a YAML file" in said


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seeds=[]", "'seeds' is []"),
        ("training.optimiser.stpes=3", "optimiser.stpes"),
        ("scoring.infernce=3", "infernce"),
        ("scoring.preset=groupvit", "preset groupvit says nothing about miniature"),
        ("generation.sampels=3", "sampels"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_before_the_benchmark_is_drawn(
    refused, tmp_path, setting, message
):
    said = refused("ablate", "--preset", "miniature", "--out", tmp_path / "x", "--set", setting)
    assert message in said
    assert not (tmp_path / "x").exists()


DOCS = Path(__file__).parents[2] / "docs" / "ablations.md"


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL))
def test_the_documented_grids_are_the_papers(text):
    made = Grid(AblationParameters.model_validate(yaml.safe_load(text)))
    assert (made.num_classes, made.usual) == (1205, 100)
    arms = [described(run.arm) for run in made.runs if run.seed == 0]
    assert arms in (
        [
            ("simple", 100, False),
            ("simple", 100, True),
            ("rich", 100, False),
            ("rich", 100, True),
        ],
        [
            ("rich", 100, False),
            ("rich", 100, True),
            ("rich", 1, False),
            ("rich", 1205, False),
        ],
    )


@pytest.fixture
def tiny(document, quick):
    """A grid of two cells that takes seconds."""
    settings = {name: value for name, value in quick.items() if name != "profile"}
    return document | {
        "profile": quick["profile"],
        "generation": settings | {"samples": 8, "min_yield": 0.0},
        "training": {
            "optimiser": {"steps": 3, "batch_size": 4, "warmup_steps": 1},
            "checkpoint_every": 1,
        },
        "classes_per_image": [],
        "seeds": [0],
    }


def state_of(folder):
    """Every file of datasets and runs with its time; logs and the tables are left out."""
    return {
        path: path.stat().st_mtime_ns
        for part in ("datasets", "runs")
        for path in (folder / part).rglob("*")
        if path.is_file() and path.suffix not in {".log", ".md"}
    }


def wait_for(process, pattern, folder):
    """Wait until a file of a running command is there."""
    deadline = time.monotonic() + 300
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.server
@pytest.mark.slow
def test_a_killed_grid_goes_on_and_a_finished_one_does_nothing(magicseg, run, tiny, tmp_path):
    file, folder = tmp_path / "grid.yaml", tmp_path / "grid"
    file.write_text(yaml.safe_dump(tiny))
    process = magicseg("ablate", file)
    wait_for(process, "runs/rich-m8-loss-off-seed0/checkpoints/step-00000003", folder)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    kept = state_of(folder)
    assert not list(folder.glob("runs/rich-m8-loss-on-seed0/checkpoints/step-*"))

    code, out, err = run("ablate", file)
    assert code == 0, err
    assert (folder / "ablation.md").read_text() in out
    done = state_of(folder)
    assert kept.items() <= done.items()
    told = Ablation.model_validate_json((folder / "ablation.json").read_bytes())
    assert not told.unfinished
    assert told.datasets[0].written == 8 - sum(told.datasets[0].dropped.values())
    rows = (folder / "runs/rich-m8-loss-off-seed0/metrics.jsonl").read_text().splitlines()
    assert ["counterfactual" in json.loads(row) for row in rows] == [False] * 3

    code, out, err = run("ablate", file, "--json")
    assert code == 0, err
    assert Ablation.model_validate_json(out) == told
    assert "training is over" in err
    assert state_of(folder) == done


@pytest.mark.server
@pytest.mark.slow
def test_the_flow_makes_what_is_missing_by_subflows_and_comes_to_the_same(tiny, tmp_path, server):
    from rich.console import Console

    from flows.ablation import ablate
    from flows.generate_dataset import generate_dataset
    from flows.generation_form import form_values
    from flows.local_steps import evaluate_locally, train_locally

    grid = Grid(AblationParameters.model_validate(tiny | {"untrained": False}))
    [dataset] = grid.datasets.values()
    generate_dataset(**form_values(dataset))
    first, second = grid.runs
    console = Console(quiet=True)
    train_locally(first.parameters, console)
    [scores] = evaluate_locally(first.parameters, console)
    before = state_of(grid.folder)

    ablation = ablate(grid.parameters)
    assert not ablation.unfinished
    assert ablation.cells[0].scores == {"miniature val": headline(scores)[1]}
    added = state_of(grid.folder).keys() - before.keys()
    assert second.parameters.run_folder / "scores" in {path.parent.parent for path in added}
    assert before.items() <= state_of(grid.folder).items()

    changed = scores.model_copy(
        update={"protocol": scores.protocol.model_copy(update={"threshold": 0.5})}
    )
    with pytest.raises(DataError, match=r"scored in two ways \(threshold: 0.35 -> 0.5\)"):
        walk(grid, lambda _: None, lambda run: [scores if run == first.parameters else changed])


@pytest.mark.server
@pytest.mark.slow
def test_ways_to_make_counterfactuals_are_kinds_of_prompts_of_a_grid(tiny, run, tmp_path):
    kinds = {
        "nothing": {},
        "remove": {"prompts": {"counterfactual": "remove"}},
        "inpaint": {"twins": {"way": "inpaint"}},
    }
    file, folder = tmp_path / "grid.yaml", tmp_path / "grid"
    fast = {"steps": 12, "batch_size": 4, "warmup_steps": 0, "learning_rate": 0.01}
    changes = {"prompts": kinds, "untrained": False, "training": {"optimiser": fast}}
    changes["generation"] = tiny["generation"] | {"samples": 4}
    file.write_text(yaml.safe_dump(tiny | changes, sort_keys=False))
    code, out, err = run("ablate", file)
    assert code == 0, err
    assert (folder / "ablation.md").read_text() in out
    told = Ablation.model_validate_json((folder / "ablation.json").read_bytes())
    arms = [(kind, 8, loss) for kind in kinds for loss in (False, True)]
    assert [described(cell.arm) for cell in told.cells] == arms
    assert not told.unfinished
    scores = [100 * cell.scores["miniature val"] for cell in told.cells]
    assert len({round(score, 1) for score in scores}) > 1
    assert len(set(scores[::2])) == 1  # without the loss, counterfactuals are not looked at
    for (kind, _, loss), score in zip(arms, scores, strict=True):
        row = f"| {kind} | {'on' if loss else 'off'} | {score:.1f} | {score:.1f} |  |"
        assert row in out.splitlines()
    for kind, off, on in zip(kinds, scores[::2], scores[1::2], strict=True):
        assert f"| {kind} | 8 | {on - off:+.1f} | {on - off:+.1f} |  |" in out.splitlines()
    stores = [Store.open(folder / "datasets" / f"{kind}-seed0") for kind in kinds]
    assert [(each.prompts, each.requested) for each in told.datasets] == [(k, 4) for k in kinds]
    first, second, third = ({*store.specification.stages} for store in stores)
    assert first == second == third - {Stage.TWINS, Stage.CHECKS}
    assert Stage.TWINS in third
    painted = [{each.index: each for each in pictures(store)} for store in stores]
    for others in painted[1:]:  # the kinds differ in what stands beside the images alone
        for index, sample in painted[0].items():
            assert others[index].image_bytes == sample.image_bytes
            assert others[index].mask_bytes == sample.mask_bytes
            assert others[index].counterfactual_bytes != sample.counterfactual_bytes


def pictures(store):
    return [each for shard in store.shards() for each in iterate(shard.path)]
