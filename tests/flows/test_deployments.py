"""Prefect ignores keys of prefect.yaml that it does not know: here they are errors."""

import importlib
import json
from pathlib import Path

import jinja2
import pytest
import yaml
from prefect.cli.deploy._models import DeploymentConfig

FILE = Path(__file__).parents[2] / "prefect.yaml"
DOCUMENT = yaml.safe_load(FILE.read_text())
DEPLOYMENTS = DOCUMENT["deployments"]


def flow_of(deployment):
    module, _, name = deployment["entrypoint"].rpartition(".")
    return getattr(importlib.import_module(module), name)


def parameters_of(deployment):
    return flow_of(deployment).validate_parameters(deployment["parameters"])["parameters"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["entrypoint"] + d["name"])
def test_every_key_of_a_deployment_is_one_that_prefect_reads(deployment):
    assert set(deployment) <= set(DeploymentConfig.model_fields)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["entrypoint"] + d["name"])
def test_a_deployment_names_a_flow_and_its_parameters_are_valid(deployment):
    assert parameters_of(deployment)


def test_the_paper_deployment_knows_its_slice_and_profile():
    paper = next(d for d in DEPLOYMENTS if d["name"] == "paper")
    parameters = parameters_of(paper)
    assert parameters.recipe.profile.vocabulary == "lvis1205"
    assert parameters.writer_limit in FILE.read_text().split("deployments:")[0]


def test_the_event_of_the_generator_gives_valid_parameters_for_training():
    from flows.generate_dataset import READY_EVENT

    deployment = next(d for d in DEPLOYMENTS if d.get("triggers"))
    [trigger] = deployment["triggers"]
    assert trigger["expect"] == [READY_EVENT]
    template = trigger["parameters"]["parameters"]["value"]["template"]
    event = {"payload": {"dataset": "/data/it's", "shards": 4, "profile": "miniature"}}
    rendered = json.loads(jinja2.Template(template).render(event=event))
    parameters = flow_of(deployment).validate_parameters({"parameters": rendered})["parameters"]
    assert (parameters.dataset, parameters.min_shards) == ("/data/it's", 4)


def test_the_deployed_ablation_is_the_one_of_the_command_line(tmp_path):
    from flows.demo import demo_ablation

    deployment = next(d for d in DEPLOYMENTS if d["entrypoint"].endswith(".ablate"))
    apart = {"out", "benchmarks"}
    deployed, preset = parameters_of(deployment), demo_ablation(tmp_path)
    assert deployed.model_dump(exclude=apart) == preset.model_dump(exclude=apart)
    assert [b.split for b in deployed.benchmarks] == [b.split for b in preset.benchmarks]
