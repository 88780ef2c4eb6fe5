"""A profile with the original back ends, where their packages are not installed."""

from importlib.util import find_spec

import pytest
import yaml

from flows.doctor import examine
from models.profiles import load_profile
from tasks.recipe import Recipe


@pytest.mark.skipif(find_spec("groundingdino") is not None, reason="the packages are installed")
def test_the_doctor_says_what_the_original_back_ends_need(tmp_path):
    document = load_profile("miniature").model_dump(mode="json", exclude={"name"})
    document["labeller"] = {
        "kind": "grounded",
        "detector": {"kind": "grounding-dino-original", "model": str(tmp_path)},
        "segmenter": {"kind": "sam-original", "model": str(tmp_path)},
    }
    file = tmp_path / "original.yaml"
    file.write_text(yaml.safe_dump(document))
    recipe = Recipe(profile=load_profile(str(file)))
    said = {check.what: check for check in examine(recipe, None)}
    for role, package in (("detector", "groundingdino"), ("segmenter", "segment_anything")):
        assert not said[role].ok
        assert f"needs {package}" in said[role].detail
        assert "pip install 'magicseg-engine[original]'" in said[role].detail
