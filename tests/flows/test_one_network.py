"""A profile whose labeller is one network, through every command; its weights are random."""

import json

import pytest
import transformers
import yaml

from models.miniature.benchmark import DrawnBenchmarkConfig, write_benchmark
from models.profiles import load_profile
from storage.records import Detection, Stage
from storage.store import Store
from tiny_sam3 import save_sam3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not hasattr(transformers, "Sam3Model"), reason="the installed transformers has no SAM 3"
    ),
]


@pytest.fixture
def profile(tmp_path):
    """The shipped painter in few steps, and a network that finds something in any picture."""
    document = load_profile("miniature").model_dump(mode="json", exclude={"name"})
    document["painter"] |= {"steps": 3, "batch_size": 4}
    folder = save_sam3(tmp_path / "sam3")
    document["labeller"] = {"kind": "sam3", "model": folder, "score_threshold": 0.0}
    file = tmp_path / "one.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def test_every_command_knows_a_labeller_that_is_one_network(run, profile, tmp_path):
    def said(*arguments):
        code, out, err = run(*arguments)
        assert code == 0, err
        return out

    found = {
        each["what"]: each for each in json.loads(said("doctor", "--profile", profile, "--json"))
    }
    assert found["labeller"]["ok"]
    assert "sam3" in found["labeller"]["detail"]
    assert not {"detector", "segmenter"} & found.keys()

    settings = {
        "samples": 6,
        "samples_per_shard": 3,
        "texts_per_class_set": 1,
        "profile": str(profile),
        "detections": {"counterfactual": "record"},
        "masks": {"min_area": 0, "max_area": 1},
    }
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(settings))
    assert "detections" in said("plan", file, "--root", "d")
    made = said("generate", file, "--root", "d")
    assert "masks of 2" in made
    assert "nothing to do" in said("generate", file, "--root", "d")
    assert said("status", "d").count("2") > 0
    said("verify", "d")
    said("preview", file, "--root", "d")

    store = Store.open(tmp_path / "d")
    rows = [row for commit in store.commits(Stage.DETECTIONS) for row in store.rows(commit)]
    kept = [row for row in rows if isinstance(row, Detection)]
    assert kept
    assert all(len(row.masks) == len(row.boxes) for row in kept)
    spec = json.loads((tmp_path / "d" / ".engine" / "spec.json").read_text())["spec"]["stages"]
    assert spec["detections"]["labeller"]["kind"] == "sam3"
    assert spec["masks"].keys() == {"rules"}

    said("train", "--dataset", "d", "--profile", profile, "--set", "optimiser.steps=1")
    drawn = write_benchmark(DrawnBenchmarkConfig(num_train=0, num_val=2), tmp_path / "drawn")
    scored = said(
        "evaluate", "--run", "d-run", "--root", drawn, "--profile", profile, "--no-untrained"
    )
    assert "sam3" in scored
