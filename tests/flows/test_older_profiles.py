"""A dataset of a profile that has changed since says how it is gone on with."""

import json
import re
import shlex
import sys

import pytest
from rich.console import Console

from benchmarks.random_models import SMALL, save_detector, save_painter, save_segmenter
from benchmarks.sleeping_models import Pace, SleepingModels
from flows.generation_parameters import GenerationParameters
from flows.generation_run import described
from flows.kept_parameters import command_line
from flows.local_runs import generate_locally
from models.profiles import load_profile
from storage.specification import Specification
from storage.store import Store

DATASET_OF_SD15 = "947828f9d04f64fec498e48c49ca6f06e92f837481a7127b782ee403911435f8"
"""What stood for a dataset of the profile `sd15`, all else as it is by default, while that labelled
in float32."""

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries warn while models are made


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Tiny networks under the ids of sd15."""
    folder = tmp_path_factory.mktemp("weights")
    profile = load_profile("sd15")
    for save, config in (
        (save_painter, profile.painter),
        (save_detector, profile.labeller.detector),
        (save_segmenter, profile.labeller.segmenter),
    ):
        save(folder / config.model, SMALL, "cpu")
    return folder


def parameters(root, **changes):
    settings = {
        "writer": {"kind": "template", "templates": "simple"},
        "detections": {"counterfactual": "record"},
        "masks": {"max_area": 1.0},
        "slice": "cat",
        "samples": 2,
    }
    return GenerationParameters.model_validate({"root": str(root), **settings, **changes})


def words(asked):
    return shlex.split(command_line(asked))[1:]


@pytest.mark.server
def test_a_dataset_that_sd15_made_in_float32_is_gone_on_with(run, tmp_path, weights, monkeypatch):
    monkeypatch.setenv("MAGICSEG_WEIGHTS", str(weights))
    root = tmp_path / "old"
    made = parameters(root, profile="sd15-float32")
    generate_locally(made, Console(file=sys.stderr), SleepingModels(Pace()))
    before = Store.open(root).shards()
    assert [shard.samples for shard in before] == [2]

    code, _, said = run(*words(parameters(root, profile="sd15")))
    said = " ".join(said.split())
    assert code == 2, said
    assert "detector.dtype" in said
    [advice] = re.findall(r"The profile sd15-float32 has the old values: `([^`]+)`", said)
    assert "--profile sd15-float32" in advice
    code, out, said = run(*shlex.split(advice)[1:])
    assert code == 0, said
    assert "nothing to do" in out
    code, out, _ = run("plan", *shlex.split(advice)[2:], "--json")
    assert code == 0
    assert {stage["to_do"] for stage in json.loads(out)["stages"]} == {0}
    assert Store.open(root).shards() == before


def test_no_profile_is_named_where_none_has_the_old_values(run, tmp_path, weights, monkeypatch):
    monkeypatch.setenv("MAGICSEG_WEIGHTS", str(weights))
    Store.create(str(tmp_path / "old"), {"plan": {"vocabulary": "lvis1205"}, "seed": 5})
    code, _, said = run(*words(parameters(tmp_path / "old", profile="sd15")))
    assert code == 2
    assert "made with other settings" in said
    assert "has the old values" not in said


def test_sd15_float32_is_what_sd15_was():
    ids = {
        name: Specification(
            described(GenerationParameters(root="unused", samples=1, profile=name))
        ).dataset_id
        for name in ("sd15", "sd15-float32")
    }
    assert ids["sd15-float32"] == DATASET_OF_SD15
    assert ids["sd15"] != DATASET_OF_SD15
