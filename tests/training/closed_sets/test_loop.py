import hashlib
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmseg.registry import DATASETS
from safetensors.torch import load_file, save_file

from storage.codecs import decode_image, decode_label_map, encode_image, encode_label_map
from storage.errors import DataError, InputError
from storage.exports.closed_sets import resolve_closed_set
from storage.exports.folders import export_shards, read_export
from storage.labelled_images import LabelledImage, RealImage, pack_real_images
from storage.shards import iterate
from storage.vocabulary import load_vocabulary
from training.closed_sets.__main__ import main
from training.closed_sets.config import ClosedSetConfig, ClosedSetRequest, load_recipe
from training.closed_sets.loop import train_closed_set
from training.closed_sets.runner import EndlessSampler, MixedSampler, runner_document
from training.closed_sets.trained import (
    closed_set_run_identity,
    find_trained_closed_set,
    load_closed_set,
    read_exports,
)
from training.data import find_shards

DEEPLAB = {
    "kind": "deeplabv3",
    "depth": 18,
    "base_channels": 4,
    "channels": 8,
    "dilations": [1, 2],
    "auxiliary_channels": 4,
}
MASK2FORMER = {
    "kind": "mask2former",
    "backbone": {
        "model_type": "resnet",
        "embedding_size": 8,
        "hidden_sizes": [8, 8, 16, 16],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    },
    "decoder": {
        "feature_size": 32,
        "mask_feature_size": 32,
        "hidden_dim": 32,
        "encoder_feedforward_dim": 16,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "num_attention_heads": 2,
        "dim_feedforward": 16,
        "num_queries": 4,
        "train_num_points": 32,
    },
}


@pytest.fixture(scope="session")
def exported(tars, tmp_path_factory):
    """Ten drawn scenes, exported."""
    out = tmp_path_factory.mktemp("closed") / "data"
    shards = {shard.path: shard.identity for shard in find_shards(str(tars))}
    export_shards(shards, resolve_closed_set(load_vocabulary("miniature"), "miniature"), out)
    return out


@pytest.fixture
def run(exported, tmp_path):
    """Fields of a run that takes a second."""
    return {
        "name": "tiny",
        "data": str(exported),
        "out": str(tmp_path / "run"),
        "network": DEEPLAB,
        "steps": 3,
        "batch_size": 2,
        "crop": 32,
        "short_side": 32,
        "workers": 0,
        "checkpoint_every": 1,
    }


def rows_of(run):
    text = Path(run["out"], "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_training_leaves_a_network_that_can_be_loaded_and_is_not_done_twice(run):
    config = ClosedSetConfig.model_validate(run)
    assert find_trained_closed_set(config) is None
    record = train_closed_set(config)
    assert [row["step"] for row in rows_of(run)] == [0, 1, 2]
    network, loaded = load_closed_set(Path(run["out"]))
    assert loaded == record == find_trained_closed_set(config)
    assert record.closed_set.labels[:3] == ("background", "balloon", "bus")
    assert record.num_samples == 10
    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    assert network.scores(pixels, (32, 32)).shape == (15, 32, 32)
    weights = Path(run["out"], "model.safetensors")
    before = weights.stat().st_mtime_ns
    assert train_closed_set(config) == record
    assert weights.stat().st_mtime_ns == before


def test_an_interrupted_training_goes_on_from_its_last_checkpoint(run):
    config = ClosedSetConfig.model_validate(run)
    train_closed_set(config)
    before = rows_of(run)
    out = Path(run["out"])
    # As it is when the last step was cut off.
    for name in ("closed_set.json", "model.safetensors", "work/iter_3.pth"):
        (out / name).unlink()
    (out / "work/last_checkpoint").write_text(str(out / "work/iter_2.pth"))
    record = train_closed_set(config)
    after = rows_of(run)
    assert after[:2] == before[:2]
    assert after[2]["seconds"] != before[2]["seconds"]
    assert after[2]["lr"] == before[2]["lr"]
    assert load_closed_set(out)[1] == record


def test_mask2former_is_trained_by_the_same_runner(run):
    record = train_closed_set(
        ClosedSetConfig.model_validate({**run, "network": MASK2FORMER, "steps": 2})
    )
    network, loaded = load_closed_set(Path(run["out"]))
    assert loaded == record
    assert network.scores(torch.zeros(1, 3, 40, 32, dtype=torch.uint8), (20, 16)).shape[0] == 15
    assert len(rows_of(run)) == 2


def test_mmsegmentation_reads_the_exported_labels(run, exported, tars):
    document = runner_document(
        ClosedSetConfig.model_validate(run), [read_export(exported)], exported / "work"
    )
    described = document["train_dataloader"]["dataset"]
    described["pipeline"] = [*described["pipeline"][:2], {"type": "PackSegInputs"}]
    dataset = DATASETS.build({**described, "_scope_": "mmseg"})
    stored = {sample.key: sample for tar in tars.glob("*.tar") for sample in iterate(tar)}
    assert len(dataset) == len(stored) == 10
    assert dataset.metainfo["classes"][:2] == ("background", "balloon")
    for item in dataset:
        sample = stored[Path(item["data_samples"].img_path).stem]
        labels = item["data_samples"].gt_sem_seg.data[0].numpy()
        # In the vocabulary's own order the labels stay what they were.
        assert np.array_equal(labels, decode_label_map(sample.mask_bytes))
        pixels = item["inputs"].numpy().transpose(1, 2, 0)[..., ::-1]
        assert np.array_equal(pixels, decode_image(sample.image_bytes))


def test_only_the_backbone_learns_slowly(run, exported):
    for network, key in ((DEEPLAB, "backbone"), (MASK2FORMER, "pixel_level_module.encoder")):
        config = ClosedSetConfig.model_validate({**run, "network": network})
        optimiser = runner_document(config, [read_export(exported)], exported)["optim_wrapper"]
        assert optimiser["paramwise_cfg"] == {"custom_keys": {key: {"lr_mult": 0.1}}}
        assert optimiser["clip_grad"] == {"max_norm": 0.01, "norm_type": 2}


def test_a_sampler_that_begins_later_goes_on_in_the_same_order():
    whole = iter(EndlessSampler(range(5), seed=3))
    drawn = [next(whole) for _ in range(15)]
    assert sorted(drawn[:5]) == sorted(drawn[5:10]) == [0, 1, 2, 3, 4]
    assert drawn[:5] != drawn[5:10]
    later = iter(EndlessSampler(range(5), seed=3, first=7))
    assert [next(later) for _ in range(8)] == drawn[7:]


def test_images_of_several_exports_are_drawn_by_their_weights_from_any_place_on():
    whole = iter(MixedSampler(range(13), sizes=[3, 10], shares=[200, 800], seed=3))
    drawn = [next(whole) for _ in range(1000)]
    assert sum(number < 3 for number in drawn) == 200
    few = [number for number in drawn if number < 3]
    assert all(sorted(few[k : k + 3]) == [0, 1, 2] for k in range(0, 198, 3))
    many = [number for number in drawn if number >= 3]
    assert sorted(many[:10]) == list(range(3, 13))
    later = iter(MixedSampler(range(13), sizes=[3, 10], shares=[200, 800], seed=3, first=700))
    assert [next(later) for _ in range(300)] == drawn[700:]


def mixed_with(run, exported, folder):
    """The run on two exports: ten drawn scenes, and one real image of another size and format."""
    labels = np.zeros((40, 50), np.uint16)
    labels[5:30, 5:30] = 1
    image = LabelledImage(
        key="real00000000",
        class_ids=(0,),
        class_names=("balloon",),
        image_bytes=encode_image(np.zeros((40, 50, 3), np.uint8), "jpg"),
        mask_bytes=encode_label_map(labels),
        judged_class_ids=tuple(range(14)),
    )
    tar = folder / "real.tar"
    tar.write_bytes(pack_real_images([RealImage(image, 0, "photo")]))
    closed_set = resolve_closed_set(load_vocabulary("miniature"), "miniature")
    export_shards({str(tar): "x"}, closed_set, folder / "real")
    sources = [{"data": str(exported)}, {"data": str(folder / "real"), "weight": 3}]
    return {**{k: v for k, v in run.items() if k != "data"}, "sources": sources}


def test_a_network_is_trained_on_two_exports_and_the_run_is_known_by_both(run, exported, tmp_path):
    config = ClosedSetConfig.model_validate(mixed_with(run, exported, tmp_path))
    record = train_closed_set(config)
    assert record.num_samples == 11
    assert find_trained_closed_set(config) == record
    meta = closed_set_run_identity(config, read_exports(config))
    assert meta["config"]["shares"] == (250, 750)
    assert [each["samples"] for each in meta["data"]] == [10, 1]
    alone = ClosedSetConfig.model_validate(run)
    assert not {"sources", "shares"} & alone.identity().keys()
    assert closed_set_run_identity(alone, read_exports(alone))["data"]["samples"] == 10


def test_exports_of_other_classes_are_not_mixed(run, exported, tars, tmp_path):
    shards = {shard.path: shard.identity for shard in find_shards(str(tars))}
    export_shards(
        shards, resolve_closed_set(load_vocabulary("miniature"), "cat,bus"), tmp_path / "e"
    )
    sources = [{"data": str(exported)}, {"data": str(tmp_path / "e")}]
    mixed = {**{k: v for k, v in run.items() if k != "data"}, "sources": sources}
    with pytest.raises(InputError, match="is an export of cat,bus, expected miniature"):
        train_closed_set(ClosedSetConfig.model_validate(mixed))


def test_another_run_in_the_same_folder_is_refused(run):
    train_closed_set(ClosedSetConfig.model_validate(run))
    with pytest.raises(InputError, match=r"belongs to another run: .*learning_rate"):
        train_closed_set(ClosedSetConfig.model_validate({**run, "learning_rate": 0.5}))


def test_a_damaged_record_of_an_unfinished_run_is_named(run):
    Path(run["out"]).mkdir(parents=True, exist_ok=True)
    Path(run["out"], "run.json").write_bytes(b"[" * 200_000)
    with pytest.raises(DataError, match=r"run\.json is not a JSON object .*train into another"):
        train_closed_set(ClosedSetConfig.model_validate(run))


def test_damaged_weights_are_refused(run):
    train_closed_set(ClosedSetConfig.model_validate({**run, "steps": 1}))
    weights = Path(run["out"], "model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(DataError, match="expected"):
        load_closed_set(Path(run["out"]))


@pytest.mark.parametrize("network", [DEEPLAB, MASK2FORMER])
def test_a_training_that_diverges_ends_in_words_and_leaves_nothing_of_it(run, tmp_path, network):
    steep = {**run, "network": network, "steps": 6, "learning_rate": 1e20, "clip_norm": None}
    path = tmp_path / "run.json"
    path.write_text(json.dumps(steep))
    command = [sys.executable, "-m", "training.closed_sets", "--config", str(path)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 2
    [said] = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in ended.stderr
    assert "training has diverged at step " in said
    assert "lower learning_rate (now 1e+20), or set clip_norm (1 is usual)" in said
    out = Path(run["out"])
    assert not (out / "model.safetensors").exists()
    for row in rows_of(run):
        assert all(math.isfinite(value) for value in row.values())
    for checkpoint in (out / "work").glob("*.pth"):
        weights = torch.load(checkpoint, weights_only=False)["state_dict"]
        assert all(tensor.isfinite().all() for tensor in weights.values())
    # As advised.
    other = {**run, "network": network, "out": str(tmp_path / "other")}
    assert train_closed_set(ClosedSetConfig.model_validate(other)).num_samples == 10


def test_weights_that_are_not_finite_are_not_loaded(run):
    out = Path(run["out"])
    train_closed_set(ClosedSetConfig.model_validate({**run, "steps": 1}))
    tensors = load_file(out / "model.safetensors")
    name = max(tensors)
    tensors[name] = torch.full_like(tensors[name], float("inf"), dtype=torch.float32)
    save_file(tensors, out / "model.safetensors")
    record = json.loads((out / "closed_set.json").read_text())
    digest = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    (out / "closed_set.json").write_text(json.dumps({**record, "weights_sha256": digest}))
    with pytest.raises(InputError, match=f"not finite, {re.escape(name)}"):
        load_closed_set(out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "nowhere"}, "no finished export"),
        ({"network": {"kind": "deeplabv3", "depth": 20}}, "'network.depth' is 20"),
        ({"stepz": 1}, "unknown key 'stepz'; did you mean steps"),
    ],
)
def test_wrong_input_ends_with_two_and_a_reason(run, tmp_path, capsys, change, message):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**run, **change}))
    assert main(["--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


@pytest.mark.parametrize(
    "name", ["deeplabv3_r50", "deeplabv3_r101", "mask2former_r50", "mask2former_swin_b"]
)
def test_the_recipes_of_full_size_keep_the_published_settings(name):
    config = ClosedSetConfig.model_validate({**load_recipe(name), "data": "d", "out": "o"})
    assert (config.name, config.crop, config.steps) == (name, 512, 20_000)
    assert (config.learning_rate, config.backbone_rate) == (1e-4, 0.1)
    assert (config.short_side, config.long_side) == (512, 2048)


def test_an_unknown_recipe_names_those_that_are_known():
    with pytest.raises(InputError, match="did you mean deeplabv3_r50"):
        load_recipe("deeplab_r50")


def test_every_request_has_a_folder_of_its_own():
    folders = [
        ClosedSetRequest(recipe=recipe, classes=classes, settings=settings).folder_name
        for recipe in ("deeplabv3_r50", "mask2former_r50")
        for classes in ("voc20", "cat,bus")
        for settings in ({}, {"seed": 1}, {"seed": 2})
    ]
    assert len(set(folders)) == 12
    assert folders[0] == "deeplabv3_r50-voc20"
