"""Weights that are not whole stop a run before it writes anything: no identity without them."""

import shutil
from pathlib import Path

import pytest
import yaml

from models.profiles import load_profile
from models.registry import Role
from models.weights import resolve_weights

FILES = {
    Role.PAINTER: "unet/diffusion_pytorch_model.safetensors",
    Role.DETECTOR: "tokenizer.json",
    Role.SEGMENTER: "model.safetensors",
}


@pytest.mark.parametrize("role", FILES)
def test_a_missing_file_leaves_no_dataset_behind(run, tmp_path, role):
    document = load_profile("miniature").model_dump(mode="json", exclude={"name"})
    place = document if role is Role.PAINTER else document["labeller"]
    whole = resolve_weights(place[role.value]["model"]).source
    shutil.copytree(whole, tmp_path / "weights")
    place[role.value]["model"] = str(tmp_path / "weights")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(document))
    lost = tmp_path / "weights" / FILES[role]
    lost.unlink()
    code, _, said = run(
        "generate", "--root", tmp_path / "d", "--samples", 4, "--profile", tmp_path / "mine.yaml"
    )
    assert code == 2, said
    assert str(tmp_path / "weights") in said
    assert not list(Path(tmp_path / "d").rglob("spec.json"))
