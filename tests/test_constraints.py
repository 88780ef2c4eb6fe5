"""What pyproject.toml allows is what is tested: its lower bounds, and no index is named."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TESTED_WITH = {"beartype", "hypothesis", "pytest", "pytest-timeout", "pytest-xdist"}


def pins(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def lower_bounds() -> dict[str, Version]:
    wanted = PROJECT["dependencies"] + [
        text
        for text in PROJECT["optional-dependencies"]["dev"]
        if Requirement(text).name in TESTED_WITH
    ]
    requirements = [Requirement(text) for text in wanted]
    return {
        canonicalize_name(each.name): Version(bound.version)
        for each in requirements
        for bound in each.specifier
        if bound.operator == ">="
    }


def test_the_oldest_versions_that_are_tested_are_the_lower_bounds():
    oldest = pins("constraints-oldest.txt")
    assert lower_bounds() == {name: oldest[name] for name in lower_bounds()}


def test_every_dependency_has_a_lower_bound_and_both_sets_of_versions_are_allowed():
    for text in PROJECT["dependencies"]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        assert name in lower_bounds()
        for file in ("constraints.txt", "constraints-oldest.txt"):
            assert pins(file)[name] in requirement.specifier, (file, name)


def test_the_extra_with_an_environment_of_its_own_is_pinned_as_it_allows():
    found = pins("constraints-original.txt")
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["original"]]:
        requirement = Requirement(text)
        assert found[canonicalize_name(requirement.name)] in requirement.specifier, text
    assert found.keys() >= TESTED_WITH


def test_the_makefile_installs_the_test_tools_that_are_pinned():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    [tools] = re.findall(r"^OLDEST_TOOLS := (.*)$", makefile, re.MULTILINE)
    assert set(tools.split()) == TESTED_WITH
