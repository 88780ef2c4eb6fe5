"""Labellers are compared on the same pictures, which are painted once."""

import json

import pytest

from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.reports.comparison_files import COMPARISON_JSON, COMPARISON_PAGE
from flows.demo import demo_comparison
from flows.labeller_comparison import ComparisonParameters, LabellerComparison, require_measured
from models.attention_maps import MapsWanted
from models.profiles import load_profile
from storage.documents import validate
from storage.errors import IncompleteError, InputError
from storage.records import Stage
from storage.store import Store
from tasks.drawn_agreement import agree_on_scenes, draw_scenes

FINDS = {"detector": {"kind": "grounding-dino", "model": "weights:detector"}}
ATTENTIVE = {"kind": "dataset-diffusion", "cross_resolution": 8, "cell_resolution": 8, **FINDS}
OTHER = {"kind": "diffumask", "cross_resolutions": {4: 1.0, 8: 1.0}, **FINDS}


def parameters(place, **changes):
    document = {
        "out": str(place),
        "labellers": {"grounded": None, "attentive": ATTENTIVE, "other": OTHER},
        "generation": {"samples": 8, "samples_per_shard": 8, "masks": {"min_area": 0}},
        "student": False,
        "seeds": [0],
    }
    return validate(ComparisonParameters, document | changes, "parameters")


def test_all_datasets_record_what_any_labeller_reads_and_take_over_the_first(tmp_path):
    comparison = LabellerComparison(parameters(tmp_path, seeds=[0, 1]))
    recorded = {dataset.pairs.record for dataset in comparison.datasets.values()}
    assert recorded == {MapsWanted(mentions=True, class_prompt=True, cross=(4, 8), cells=8)}
    assert comparison.datasets["grounded", 0].reuse is None
    assert comparison.datasets["other", 1].reuse == comparison.datasets["grounded", 1].root
    assert not comparison.runs


def test_without_attention_nothing_is_recorded(tmp_path):
    comparison = LabellerComparison(parameters(tmp_path, labellers={"grounded": None}))
    assert comparison.datasets["grounded", 0].pairs.record is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labellers": {}}, "labellers"),
        ({"labellers": {"A b": None}}, "labellers"),
        ({"generation": {"samples": 8, "root": "x"}}, "the comparison itself sets"),
        ({"student": True}, "benchmarks are empty"),
        ({"out": "s3://bucket/x"}, "a folder of this machine"),
        (
            {"labellers": {"a": ATTENTIVE, "b": ATTENTIVE | {"cell_resolution": 4}}},
            r"resolutions \[4, 8\], of which one is recorded",
        ),
        ({"profile": "sd15", "drawn_scenes": 3}, "drawn_scenes is 3 .* set drawn_scenes to 0"),
    ],
)
def test_what_cannot_be_compared_is_told(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        LabellerComparison(parameters(tmp_path, **changes))


def test_the_demonstration_is_one_that_can_be_compared(tmp_path):
    comparison = LabellerComparison(demo_comparison(tmp_path))
    assert comparison.subjects == ("student", "deeplabv3_miniature on miniature")
    [request] = comparison.runs["diffumask", 2].closed_sets
    assert request.settings["seed"] == 2
    assert len(comparison.datasets) == len(comparison.runs) == 9


def test_masks_of_drawn_scenes_are_held_against_exact_ones():
    found = agree_on_scenes(load_profile("miniature"), draw_scenes(8, seed=1))
    assert 0.8 < found.one <= 1
    assert found.two is not None


@pytest.mark.slow
@pytest.mark.server
def test_a_comparison_paints_once_reports_and_finds_itself_done(type_line, tmp_path):
    benchmark = BenchmarkConfig(root=tmp_path / "out" / "benchmark", limit=4)
    document = parameters(
        tmp_path / "out",
        student=True,
        benchmarks=[benchmark],
        drawn_scenes=4,
        training={"optimiser": {"steps": 2}},
    ).model_dump(mode="json")
    file = tmp_path / "comparison.yaml"
    file.write_text(json.dumps(document))
    code, said = type_line("compare-labellers", file)
    assert code == 0, said
    found = json.loads((tmp_path / "out" / COMPARISON_JSON).read_text())
    assert [each["labeller"] for each in found["sets"]] == ["grounded", "attentive", "other"]
    assert {each["state"] for each in found["trained"]} == {"measured"}
    assert (tmp_path / "out" / COMPARISON_PAGE).stat().st_size > 10_000
    for name in ("attentive", "other"):
        store = Store.open(tmp_path / "out" / "datasets" / f"{name}-seed0")
        assert all(commit.seconds == 0 for commit in store.commits(Stage.PAIRS))
    code, again = type_line("compare-labellers", file, "--json")
    assert code == 0
    said = json.JSONDecoder().raw_decode(again, again.index("{\n"))[0]
    assert said["trained"] == found["trained"]


def test_what_is_not_measured_is_told(tmp_path):
    from evaluation.reports.comparisons import Comparison, TrainedSubject

    left = TrainedSubject(labeller="a", seed=0, subject="student", state="failed", error="x")
    found = Comparison(
        profile="miniature", labellers=("a",), subjects=("student",), seeds=(0,), benchmarks=(),
        metrics={}, sets=(), trained=(left,), settings={}, engine_version="0",
    )  # fmt: skip
    with pytest.raises(IncompleteError, match="1 of 1 trainings are not measured"):
        require_measured(found)
