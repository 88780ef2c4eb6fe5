"""Damage of every kind is found, and healed by what the message says, to the same dataset.

All is done to copies of one small dataset.
"""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from cards import card_without_cost
from damage import DAMAGE
from flows.__main__ import main
from flows.generate_dataset import generate_dataset
from flows.generation_form import form_values
from flows.generation_parameters import GenerationParameters
from flows.generation_run import prepare
from models.profiles import load_profile
from storage.errors import DataError
from storage.records import Stage
from storage.store import Store
from storage.vocabulary import load_vocabulary
from tasks.resident import ResidentModels
from training.data import SampleFiles, find_shards

pytestmark = [pytest.mark.server, pytest.mark.slow]

SAMPLES, SIZE = 6, 2


@pytest.fixture(scope="module")
def generate(server, tmp_path_factory):
    """The generating flow on models that stay, with few steps and rules that let pictures pass."""
    document = load_profile("miniature").model_dump(mode="json", exclude={"name"})
    document["painter"] |= {"steps": 3, "batch_size": 4}
    document["labeller"]["detector"] |= {
        "box_threshold": 0.02,
        "text_threshold": 0.01,
        "batch_size": 4,
    }
    file = tmp_path_factory.mktemp("profile") / "quick.yaml"
    file.write_text(yaml.safe_dump(document))
    rules = {
        "profile": str(file),
        "texts_per_class_set": 1,
        "detections": {"counterfactual": "record", "require": "any"},
        "masks": {"min_area": 0.0, "max_area": 1.0},
        "samples": SAMPLES,
        "samples_per_shard": SIZE,
    }
    models = ResidentModels()

    def run(root: Path, **changes):
        values = {**rules, "root": str(root), **changes}
        parameters = GenerationParameters.model_validate(values)
        with prepare(parameters, models) as prepared, prepared.handed_on():
            return generate_dataset(**form_values(parameters), return_state=True).result()

    return run


@pytest.fixture(scope="module")
def whole(generate, tmp_path_factory):
    """The dataset that is never damaged; two samples a shard, three shards."""
    root = tmp_path_factory.mktemp("whole") / "d"
    generate(root)
    tars = sorted((root / "data").glob("*.tar"))
    assert len({tar.stat().st_size for tar in tars}) < len(tars) == 3
    return root


@pytest.fixture
def copy(whole, tmp_path, monkeypatch):
    """A copy to damage."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(shutil.copytree(whole, tmp_path / "d"))


@pytest.fixture
def here(monkeypatch, capsys):
    """Run a command in this process: its exit code, its output, and what it complained of."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["magicseg", *map(str, arguments)])
        code = 0
        capsys.readouterr()
        try:
            main()
        except SystemExit as error:
            code = error.code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, " ".join(err.split())

    return run


def contents(root):
    """What readers of a dataset see."""
    paths = [*(root / "data").iterdir(), *(root / ".engine/manifests").iterdir()]
    return {"card": card_without_cost(root), **{path.name: path.read_bytes() for path in paths}}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_healed_by_what_the_message_says(whole, copy, generate, here, kind):
    DAMAGE[kind](copy)
    code, out, _ = here("verify", copy, "--deep", "--json")
    findings = json.loads(out)
    assert code == 3, kind
    assert findings
    assert all("--repair" in finding["way_out"] for finding in findings)
    code, out, _ = here("verify", copy, "--deep", "--repair", "--json")
    assert code == 3
    assert all(finding["repaired"] for finding in json.loads(out))
    summary = generate(copy)
    assert summary.is_complete
    assert summary.executed.keys() <= set(Stage)
    code, out, _ = here("verify", copy, "--deep")
    assert (code, out.split()[0]) == (0, "0"), out
    assert contents(copy) == contents(whole)


def swapped(root):
    """Two tars of one size, each under the other's name."""
    sizes = {}
    for tar in sorted((root / "data").glob("*.tar")):
        sizes.setdefault(tar.stat().st_size, []).append(tar)
    first, second = next(tars for tars in sizes.values() if len(tars) > 1)[:2]
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


SILENT = {
    "one bit in a tar": DAMAGE["one bit in a tar"],
    "one bit in the padding of a tar": DAMAGE["one bit in the padding of a tar"],
    "a text edited in every tar": DAMAGE["a text edited in every tar"],
    "two tars of one size swapped": swapped,
}


@pytest.mark.parametrize("kind", SILENT)
def test_training_reports_and_exports_refuse_a_tar_that_is_not_what_was_committed(
    copy, here, tmp_path, kind
):
    """Damage that keeps the size."""
    list(SampleFiles(find_shards(str(copy)), load_vocabulary("miniature")))  # and it is remembered
    SILENT[kind](copy)
    words = "data/train-.*sha256 is .*'magicseg verify --deep --repair'"
    with pytest.raises(DataError, match=words):
        list(SampleFiles(find_shards(str(copy)), load_vocabulary("miniature")))
    classes, out = ("--classes", "miniature"), ("--out", tmp_path / "out")
    for command in (
        ("report", "--dataset", copy, "--out", tmp_path / "page.html"),
        ("export", "--dataset", copy, *classes, *out),
    ):
        code, _, said = here(*command)
        assert code == 3, command
        assert "sha256 is" in said
        assert "verify --deep --repair" in said
    assert not (tmp_path / "out/splits").exists()


def test_the_training_command_ends_with_the_code_of_damaged_data(copy, run, tmp_path):
    DAMAGE["one bit in a tar"](copy)
    steps = ("--set", "optimiser.steps=3", "--set", "optimiser.batch_size=2")  # every sample
    code, _, said = run("train", "--dataset", copy, "--out", tmp_path / "run", *steps)
    assert code == 3, said
    assert "verify --deep --repair" in said


def test_no_false_alarm_on_whole_datasets(generate, here, tmp_path, whole):
    """A dataset is looked at after every step of a life; a copy of it begins another one."""
    looked = 0

    def clean(root):
        nonlocal looked
        looked += 1
        code, out, _ = here("verify", root, "--deep")
        assert (code, out.split()[0]) == (0, "0"), out

    root = tmp_path / "d"
    clean(whole)
    for samples in (1, 2, 3, 5, 8):  # shards grow, and new ones come
        generate(root, samples=samples)
        clean(root)
    for size in (3, 8, 1, 2):  # packed anew
        generate(root, samples=8, samples_per_shard=size)
        clean(root)
    generate(root, samples=4)  # less than there is
    clean(root)
    for classes in ("cat,star", "balloon", "0:5"):
        generate(root, samples=4, slice=classes)
        clean(root)
    stages = Store.open(whole).specification.stages
    for stage in stages:  # as a kill leaves it: everything from this stage on is missing
        cut = Path(shutil.copytree(whole, tmp_path / stage.value))
        store = Store.open(cut)
        for later in stages[stages.index(stage) :]:
            for commit in store.commits(later):
                store.withdraw(commit, "not made yet")
        generate(cut)
        clean(cut)
        assert contents(cut) == contents(whole)
    generate(tmp_path / "other", seed=5, samples=5, slice="cat,boat")
    clean(tmp_path / "other")
    assert looked >= 20
