"""Prefect ignores keys of prefect.yaml that it does not know: here they are errors."""

import importlib
from pathlib import Path

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
    return flow_of(deployment).validate_parameters(deployment["parameters"])


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["entrypoint"] + d["name"])
def test_every_key_of_a_deployment_is_one_that_prefect_reads(deployment):
    assert set(deployment) <= set(DeploymentConfig.model_fields)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["entrypoint"] + d["name"])
def test_a_deployment_names_a_flow_and_its_parameters_are_valid(deployment):
    assert parameters_of(deployment)


def test_the_paper_deployments_know_their_profile_and_share_a_writer():
    papers = [d for d in DEPLOYMENTS if d["entrypoint"].endswith(".generate_dataset")]
    papers = [parameters_of(d) for d in papers if "sd15" in d["tags"]]
    assert len(papers) == 7
    assert {each["profile"] for each in papers} == {"sd15"}
    assert {each["advanced"].writer_limit for each in papers} == {"magicseg-writer"}


def test_the_deployed_ablation_is_the_one_of_the_command_line(tmp_path):
    from flows.demo import demo_ablation

    deployment = next(d for d in DEPLOYMENTS if d["entrypoint"].endswith(".ablate"))
    apart = {"out", "benchmarks"}
    deployed, preset = parameters_of(deployment)["parameters"], demo_ablation(tmp_path)
    assert deployed.model_dump(exclude=apart) == preset.model_dump(exclude=apart)
    assert [b.split for b in deployed.benchmarks] == [b.split for b in preset.benchmarks]
