"""Folders of painters as people have them: they paint the same, or the words say what to do."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.painting.config import PainterConfig
from models.painting.painters import DiffusionPairPainter
from models.protocols import PairRequest
from models.weights import weights_identity
from storage.errors import InputError

REQUESTS = [PairRequest("a bus red", "a nothing red", 1), PairRequest("b", "c", 2)]


def config(folder, **changes):
    small = {"steps": 2, "guidance": 3.0, "height": 16, "width": 16, "batch_size": 2}
    return PainterConfig(model=str(folder), device="cpu", **(small | changes))


def paint(folder, **changes):
    pairs = DiffusionPairPainter(config(folder, **changes)).paint(REQUESTS)
    return np.stack([image for pair in pairs for image in (pair.image, pair.counterfactual)])


@pytest.fixture(scope="module")
def plain(build_pipeline, tmp_path_factory):
    return Path(build_pipeline(tmp_path_factory.mktemp("plain")))


@pytest.fixture(scope="module")
def with_checker(build_pipeline, tmp_path_factory):
    return Path(build_pipeline(tmp_path_factory.mktemp("checked"), safety_threshold=2.0))


@pytest.fixture(scope="module")
def pictures(plain):
    return paint(plain)


@pytest.fixture
def copy(plain, tmp_path):
    return Path(shutil.copytree(plain, tmp_path / "copy"))


@pytest.fixture
def checked_copy(with_checker, tmp_path):
    return Path(shutil.copytree(with_checker, tmp_path / "checked"))


def weight_files(folder):
    return sorted(folder.rglob("*.safetensors"))


def in_torch_format(folder):
    for file in weight_files(folder):
        name = "pytorch_model.bin" if file.name == "model.safetensors" else file.stem + ".bin"
        torch.save(load_file(file), file.with_name(name))
        file.unlink()


def with_variant(file, variant):
    return file.with_name(f"{file.stem}.{variant}.safetensors")


def in_shards(file):
    state = load_file(file)
    names, shards = sorted(state), {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        shard = f"{file.stem}-0000{number}-of-00002.safetensors"
        save_file({n: state[n] for n in part}, file.with_name(shard), {"format": "pt"})
        shards |= dict.fromkeys(part, shard)
    index = {"metadata": {"total_size": 1}, "weight_map": shards}
    file.with_name(f"{file.name}.index.json").write_text(json.dumps(index))
    file.unlink()


@pytest.mark.parametrize("variant", ["fp16", "bf16", "ema"])
def test_weights_in_one_variant_alone_are_taken(copy, pictures, variant):
    for file in weight_files(copy):
        file.rename(with_variant(file, variant))
    assert np.array_equal(paint(copy), pictures)


def test_of_weights_in_full_and_in_a_variant_the_full_ones_are_taken(copy, pictures):
    for file in weight_files(copy):
        halved = {name: tensor / 2 for name, tensor in load_file(file).items()}
        save_file(halved, with_variant(file, "fp16"), {"format": "pt"})
    assert np.array_equal(paint(copy), pictures)


def test_of_several_variants_none_is_guessed(copy):
    for file in weight_files(copy / "unet"):
        shutil.copy(file, with_variant(file, "fp16"))
        file.rename(with_variant(file, "non_ema"))
    with pytest.raises(InputError, match=r"variants \['fp16', 'non_ema'\] and not in full"):
        paint(copy)


def test_files_of_torch_are_taken(copy, pictures):
    in_torch_format(copy)
    assert np.array_equal(paint(copy), pictures)


def test_a_file_of_torch_that_would_run_code_is_refused(copy):
    in_torch_format(copy)
    torch.save({"conv_in.weight": Path("x")}, copy / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(InputError, match=r"'unet' of folder .* cannot be loaded"):
        paint(copy)


def test_weights_in_several_files_are_taken(copy, pictures):
    for file in weight_files(copy):
        in_shards(file)
    assert np.array_equal(paint(copy), pictures)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_missing_shard_is_named_before_there_is_an_identity(copy, part):
    in_shards(weight_files(copy / part)[0])
    lost = min((copy / part).glob("*-00002-*"))
    lost.unlink()
    with pytest.raises(InputError, match=f"{lost.name}, which .*index.json names"):
        weights_identity(str(copy))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "scheduler", "tokenizer"])
def test_a_part_that_is_missing_has_no_identity(copy, part):
    whole = weights_identity(str(copy))
    moved = (copy / part).rename(copy.parent / part)
    with pytest.raises(InputError, match=f"no folder '{part}', which model_index.json names"):
        config(copy).identity()
    moved.rename(copy / part)
    assert weights_identity(str(copy)) == whole


@pytest.mark.parametrize(
    "name",
    [
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "vae/config.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_a_file_that_is_missing_is_named_by_the_check_and_by_the_identity(copy, name):
    (copy / name).unlink()
    for ask in (config(copy).check, config(copy).identity):
        with pytest.raises(InputError, match=Path(name).name.replace(".", r"\.")):
            ask()


@pytest.mark.parametrize(
    "name", ["unet/config.json", "tokenizer/tokenizer_config.json", "model_index.json"]
)
def test_a_pointer_of_git_lfs_is_named_with_the_way_out(copy, name):
    oid = "sha256:" + "0" * 64
    text = f"version https://git-lfs.github.com/spec/v1\noid {oid}\nsize 3438167534\n"
    for file in (copy / name, weight_files(copy / "vae")[0]):
        whole = file.read_bytes()
        file.write_text(text)
        with pytest.raises(InputError, match=f"{file.name}' is a Git LFS pointer.*git lfs pull"):
            config(copy).check()
        file.write_bytes(whole)


def test_an_empty_weights_file_is_named(copy):
    weight_files(copy / "vae")[0].write_bytes(b"")
    with pytest.raises(InputError, match="is empty, expected weights"):
        config(copy).check()


@pytest.mark.parametrize("lost", [["safety_checker"], ["safety_checker", "feature_extractor"]])
def test_a_checker_that_was_not_downloaded_is_needed_only_for_judging(checked_copy, lost):
    for part in lost:
        shutil.rmtree(checked_copy / part)
    with pytest.raises(InputError, match=r"safety_checker.*`safety_checker: false`"):
        paint(checked_copy)
    with pytest.raises(InputError, match=r"safety_checker.*`safety_checker: false`"):
        config(checked_copy).identity()
    config(checked_copy, safety_checker=False).identity()
    assert paint(checked_copy, safety_checker=False).std() > 1


def test_an_index_without_a_checker_is_believed(checked_copy, pictures):
    path = checked_copy / "model_index.json"
    index = json.loads(path.read_text())
    index |= {"safety_checker": [None, None], "requires_safety_checker": True}
    path.write_text(json.dumps(index))
    shutil.rmtree(checked_copy / "feature_extractor")
    config(checked_copy).identity()
    assert np.array_equal(paint(checked_copy), pictures)


def test_an_index_of_2022_is_read(checked_copy, pictures):
    path = checked_copy / "model_index.json"
    index = json.loads(path.read_text())
    index.pop("image_encoder", None)
    index.pop("requires_safety_checker", None)
    index |= {
        "_diffusers_version": "0.2.2",
        "feature_extractor": ["transformers", "CLIPFeatureExtractor"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    }
    path.write_text(json.dumps(index))
    assert np.array_equal(paint(checked_copy), pictures)


@pytest.mark.parametrize("entry", [["diffusers"], ["diffusers", 3], ["os", "system"], "UNet"])
def test_an_index_with_an_impossible_part_is_refused(copy, entry):
    path = copy / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"unet": entry}))
    with pytest.raises(InputError, match=r"model_index.json says 'unet' is"):
        paint(copy)


def test_a_snapshot_of_the_hubs_cache_is_its_folder(plain, pictures, tmp_path):
    root = tmp_path / "models--a--b"
    snapshot = root / "snapshots" / ("0" * 40)
    (root / "blobs").mkdir(parents=True)
    for number, file in enumerate(path for path in plain.rglob("*") if path.is_file()):
        blob = root / "blobs" / str(number)
        shutil.copy(file, blob)
        link = snapshot / file.relative_to(plain)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    assert np.array_equal(paint(snapshot), pictures)
    assert weights_identity(str(snapshot)) == weights_identity(str(plain))
    for outside in (root, root / "snapshots"):
        with pytest.raises(InputError, match=f"set `model` to '{snapshot}'"):
            config(outside).check()


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt", "pt"])
def test_a_single_file_is_refused_with_a_command(plain, tmp_path, suffix):
    file = tmp_path / f"v1-5-pruned.{suffix}"
    shutil.copy(weight_files(plain)[0], file)
    with pytest.raises(InputError, match=r"single file.*from_single_file.*save_pretrained"):
        paint(file)


MISSING = [
    ("text_encoder", "mlp.fc2.weight"),
    ("text_encoder", "token_embedding"),
    ("text_encoder", "final_layer_norm.bias"),
    ("unet", "conv_out.weight"),
    ("unet", "attn2.to_k"),
    ("unet", "time_embedding.linear_1.bias"),
    ("vae", "decoder.conv_out.weight"),
    ("vae", "post_quant_conv.weight"),
    ("vae", "encoder.conv_in.bias"),
]


@pytest.mark.parametrize(("part", "name"), MISSING)
def test_a_part_that_lacks_a_tensor_is_refused_by_name(copy, part, name):
    file = weight_files(copy / part)[0]
    state = load_file(file)
    gone = next(each for each in state if name in each)
    del state[gone]
    save_file(state, file, {"format": "pt"})
    with pytest.raises(InputError) as caught:
        paint(copy)
    words = str(caught.value)
    assert name in words
    assert f"'{part}' of" in words
    assert "download the model again" in words


@pytest.mark.parametrize(
    "name", ["concept_embeds", "special_care_embeds_weights", "post_layernorm"]
)
def test_a_checker_that_lacks_a_tensor_is_refused_by_name(checked_copy, name):
    file = weight_files(checked_copy / "safety_checker")[0]
    state = load_file(file)
    del state[next(each for each in state if name in each)]
    save_file(state, file, {"format": "pt"})
    with pytest.raises(InputError, match=rf"'safety_checker' of .*{name}"):
        paint(checked_copy)


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_a_tensor_of_another_shape_is_refused_by_name(copy, part):
    file = weight_files(copy / part)[0]
    state = load_file(file)
    name = next(each for each, tensor in state.items() if tensor.ndim > 1)
    save_file(
        state | {name: state[name].repeat(2, *[1] * (state[name].ndim - 1))}, file, {"format": "pt"}
    )
    with pytest.raises(InputError, match=rf"'{part}' of .* cannot be loaded|{name}"):
        paint(copy)


@pytest.mark.parametrize("part", ["text_encoder", "unet"])
def test_a_tensor_without_a_place_is_told_in_the_log(copy, pictures, caplog, part):
    file = weight_files(copy / part)[0]
    save_file(load_file(file) | {"stray.weight": torch.ones(2)}, file, {"format": "pt"})
    assert np.array_equal(paint(copy), pictures)
    assert f"{part} of {copy}: 1 tensors have no place in the network" in caplog.text
    assert "stray.weight" in caplog.text


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_from_inside_a_wrapper_are_read_or_renamed_by_the_command_given(
    copy, pictures, prefix
):
    for part in ("text_encoder", "unet", "vae"):
        file = weight_files(copy / part)[0]
        state = {prefix + name: tensor for name, tensor in load_file(file).items()}
        save_file(state, file, {"format": "pt"})
    for _ in range(3):
        try:
            painted = paint(copy)
        except InputError as error:
            command = str(error).split("`")[1]
            shell = shlex.split(command)
            subprocess.run([sys.executable, *shell[1:]], check=True, capture_output=True)
        else:
            break
    assert np.array_equal(painted, pictures)


def test_the_command_for_names_in_a_file_of_torch_works_too(copy, pictures):
    in_torch_format(copy)
    file = copy / "unet" / "diffusion_pytorch_model.bin"
    torch.save({f"module.{n}": t for n, t in torch.load(file).items()}, file)
    with pytest.raises(InputError, match=r"expected names without 'module\.'") as caught:
        paint(copy)
    shell = shlex.split(str(caught.value).split("`")[1])
    subprocess.run([sys.executable, *shell[1:]], check=True, capture_output=True)
    assert np.array_equal(paint(copy), pictures)


OTHER_FILES = ["vocab.json", "merges.txt", "tokenizer.json"]


@pytest.mark.parametrize("kept", [[], ["vocab.json"], ["merges.txt"]])
def test_a_tokenizer_without_its_words_is_refused(copy, kept):
    folder = copy / "tokenizer"
    words = {chr(97 + n): n for n in range(26)}
    for name in OTHER_FILES:
        (folder / name).unlink(missing_ok=True)
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    for name in {"vocab.json", "merges.txt"} - set(kept):
        (folder / name).unlink()
    lacking = {"vocab.json": "no merges.txt", "merges.txt": "no vocab.json"}
    expected = lacking[kept[0]] if kept else "no vocabulary"
    for ask in (config(copy).identity, config(copy).check, lambda: paint(copy)):
        with pytest.raises(InputError, match=expected):
            ask()


def test_words_that_the_network_does_not_know_are_refused(copy):
    path = copy / "text_encoder" / "config.json"
    rows = json.loads(path.read_text())["vocab_size"]
    file = next(iter(weight_files(copy / "text_encoder")))
    state = load_file(file)
    name = next(each for each in state if "token_embedding" in each)
    save_file(state | {name: state[name][:-4].contiguous()}, file, {"format": "pt"})
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": rows - 4}))
    with pytest.raises(InputError, match=f"have {rows - 4} words, but their tokenizer has"):
        paint(copy)
