"""Networks are loaded whole, whoever else loads one at the same time."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPTextModel

from models.labelling.config import DetectorConfig, SegmenterConfig
from models.labelling.detectors import GroundingDino
from models.labelling.segmenters import Sam
from models.networks import load_part
from models.profiles import load_profile
from models.registry import Role, build
from models.student.clip import load_clip
from models.weights import Weights
from storage.errors import InputError

THREADS_LOAD = """
import sys
from concurrent.futures import ThreadPoolExecutor
from models.profiles import load_profile
from models.registry import Role, build

sys.setswitchinterval(1e-6)
profile = load_profile("miniature")
parts = [profile.labeller.segmenter, profile.labeller.detector] * 6
with ThreadPoolExecutor(6) as pool:
    for one in [pool.submit(build, part) for part in parts]:
        one.result()
build(profile.labeller.segmenter), build(profile.labeller.detector)
"""


def test_threads_that_load_networks_do_not_spoil_them_for_each_other():
    # A process of its own: what goes wrong there stays wrong until the process ends.
    command = [sys.executable, "-c", THREADS_LOAD]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def clip_folder(folder):
    side = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    side |= {"num_attention_heads": 2, "projection_dim": 16}
    text = {"vocab_size": 60, "max_position_embeddings": 20, "bos_token_id": 0, "eos_token_id": 1}
    config = CLIPConfig(
        text_config={**side, **text, "pad_token_id": 1},
        vision_config={**side, "image_size": 16, "patch_size": 8},
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(folder)
    return folder


def change(folder, edit):
    file = folder / "model.safetensors"
    save_file(edit(load_file(file)), file, {"format": "pt"})


def without(*names):
    return lambda state: {n: t for n, t in state.items() if not n.endswith(names)}


@pytest.mark.parametrize(
    "name", ["visual_projection.weight", "logit_scale", "text_model.final_layer_norm.bias"]
)
def test_a_clip_that_lacks_a_tensor_is_refused_by_name(tmp_path, name):
    clip = clip_folder(tmp_path / "clip")
    change(clip, without(name))
    with pytest.raises(InputError, match=f"lack 1 parameters of the architecture, '{name}'"):
        load_clip(str(clip))


@pytest.mark.parametrize(
    ("build", "load", "name"),
    [
        # Drawn at random when SAM was trained: a buffer, and without it boxes mean nothing.
        ("build_sam", Sam, "positional_embedding"),
        ("build_sam", Sam, "vision_encoder.pos_embed"),
        ("build_detector", GroundingDino, "model.text_projection.bias"),
        ("build_detector", GroundingDino, "model.level_embed"),
    ],
)
def test_labelling_networks_that_lack_a_tensor_are_refused_by_name(
    request, tmp_path, build, load, name
):
    model = request.getfixturevalue(build)(tmp_path / "model")
    change(tmp_path / "model", without(name))
    kind = SegmenterConfig if load is Sam else DetectorConfig
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        load(kind(model=model, device="cpu"))


def test_tables_of_indices_may_be_missing_and_may_be_there(build_detector, tmp_path):
    model = build_detector(tmp_path / "model")
    detector = GroundingDino(DetectorConfig(model=model, device="cpu"))
    before = detector.detect([np.zeros((64, 64, 3), np.uint8)], [("cat",)])[0].best_scores
    change(tmp_path / "model", without("relative_position_index"))
    again = GroundingDino(DetectorConfig(model=model, device="cpu"))
    after = again.detect([np.zeros((64, 64, 3), np.uint8)], [("cat",)])[0].best_scores
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_from_inside_a_wrapper_are_read(tmp_path, prefix):
    clip = clip_folder(tmp_path / "clip")
    whole = tensors_of(load_clip(str(clip)))
    change(clip, lambda state: {prefix + name: tensor for name, tensor in state.items()})
    found = tensors_of(load_clip(str(clip)))
    assert all(torch.equal(tensor, found[name]) for name, tensor in whole.items())


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff\xff\xff\xff\xff\xff\xff\x7f" + b"{" * 100])
def test_damaged_weights_are_an_error_with_the_folder(tmp_path, damage):
    clip = clip_folder(tmp_path / "clip")
    (clip / "model.safetensors").write_bytes(damage)
    with pytest.raises(InputError, match=str(clip)):
        load_clip(str(clip))


@pytest.mark.parametrize("name", ["painter", "detector", "segmenter", "clip"])
def test_shipped_weights_have_a_place_for_each_tensor_and_a_tensor_for_each_place(name, caplog):
    profile = load_profile("miniature")
    if name == "clip":
        load_clip(profile.student.clip)
    else:
        build(profile.models()[Role(name)])
    assert "no place in the network" not in caplog.text


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("text_encoder", {"text_model.": ""}),
        ("text_encoder", {"": "text_model."}),
        ("safety_checker", {"vision_model.vision_model.": "vision_model."}),
        ("safety_checker", {"vision_model.": "vision_model.vision_model."}),
    ],
)
def test_names_of_older_and_newer_transformers_are_read(build_pipeline, tmp_path, part, names):
    """Transformers 5 has a level less in CLIP's towers than transformers 4, in files too."""
    folder = tmp_path / "pipeline"
    build_pipeline(folder, safety_threshold=2.0)
    whole = load_as_part(folder, part)
    [(old, new)] = names.items()

    def rename(state):
        if any(new and name.startswith(new) for name in state):
            return state
        return {
            new + n.removeprefix(old) if n.startswith(old) else n: tensor
            for n, tensor in state.items()
        }

    change(folder / part, rename)
    found = load_as_part(folder, part)
    assert all(torch.equal(tensor, found[name]) for name, tensor in whole.items())


def load_as_part(folder, part):
    kinds = {"text_encoder": CLIPTextModel, "safety_checker": StableDiffusionSafetyChecker}
    weights = Weights(str(folder), None)
    return tensors_of(load_part(kinds[part], weights, dtype="float32", part=part))


def tensors_of(network):
    """Copies: what is loaded may be a view of the file."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}
