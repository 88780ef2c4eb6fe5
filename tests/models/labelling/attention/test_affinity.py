import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save
from torch import nn

from models.labelling.attention.affinity import (
    AffinityNet,
    as_network_input,
    image_affinities,
    load_affinity,
    pair_affinity,
    pair_offsets,
    paired,
    read_affinity_record,
    save_affinity,
)
from models.labelling.attention.affinity_config import AffinityNetConfig
from models.weights import weights_identity
from storage.documents import validate
from storage.errors import InputError

SMALL = AffinityNetConfig(stride=2, widths=(16, 16, 16), embeddings=(16, 16, 16), radius=3)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    save_affinity(tmp_path / "net", AffinityNet(SMALL), ("star", "cat"), {"seed": 0})
    return tmp_path / "net"


def vouch_for(folder):
    """Let the record have the digest of the weights that are there."""
    record = json.loads((folder / "config.json").read_bytes())
    data = (folder / "model.safetensors").read_bytes()
    record["weights_sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "config.json").write_text(json.dumps(record))


@pytest.mark.parametrize(("radius", "count"), [(2, 4), (3, 12), (5, 34)])
def test_each_pair_of_near_cells_is_met_once(radius, count):
    offsets = pair_offsets(radius)
    assert len(offsets) == len(set(offsets)) == count
    assert not {(-down, -right) for down, right in offsets} & set(offsets)


@pytest.mark.parametrize("grid", [(1, 1), (1, 6), (3, 4), (7, 2)])
def test_pairs_are_those_within_the_grid(grid):
    numbers = torch.arange(grid[0] * grid[1]).view(grid)
    found = set()
    for offset in pair_offsets(5):
        own, other = paired(numbers, offset)
        assert own.shape == other.shape
        found |= set(zip(own.flatten().tolist(), other.flatten().tolist(), strict=True))
    places = np.argwhere(np.ones(grid))
    expected = {
        (a, b)
        for a in range(len(places))
        for b in range(a + 1, len(places))
        if ((places[a] - places[b]) ** 2).sum() < 25
    }
    assert found == expected


def test_an_affinity_is_the_exponential_of_the_mean_difference():
    features = torch.tensor([[[[0.0, 1.0]], [[2.0, -1.0]]]])  # 1 image, 2 features, 1 x 2 cells
    found = pair_affinity(features, (0, 1))
    assert found.item() == pytest.approx(np.exp(-(1 + 3) / 2))
    assert pair_affinity(features, (1, 0)).numel() == 0


@pytest.mark.parametrize("stride", [1, 2, 8])
@pytest.mark.parametrize("size", [(1, 1), (17, 33), (64, 48)])
def test_a_cell_is_as_large_as_the_stride(stride, size):
    network = AffinityNet(SMALL.model_copy(update={"stride": stride})).eval()
    with torch.inference_mode():
        found = network(torch.zeros(1, 3, *size))
    assert found.shape == (1, 48, -(-size[0] // stride), -(-size[1] // stride))


def test_affinities_of_an_image_are_between_0_and_1():
    image = np.random.default_rng(0).integers(0, 256, (17, 33, 3)).astype(np.uint8)
    image.flags.writeable = False  # as a decoded picture is
    network = AffinityNet(SMALL).eval()
    found = image_affinities(network, image)
    assert [each.shape for each in found] == [
        (9 - down, 17 - abs(right)) for down, right in pair_offsets(3)
    ]
    assert all((each > 0).all() and (each <= 1).all() for each in found)
    dot = image_affinities(network, image[:1, :1])
    assert sum(each.size for each in dot) == 0


def test_images_become_colours_around_zero():
    image = np.uint8([[[[0, 255, 51]]]])
    np.testing.assert_allclose(as_network_input(image).flatten().numpy(), [-1, 1, -0.6], atol=1e-6)


def test_a_saved_network_comes_back(folder):
    network, record = load_affinity(folder, "cpu")
    assert record.classes == ("star", "cat")
    assert record.trained == {"seed": 0}
    assert record.network == SMALL == network.config
    assert not network.training
    saved = load_file(folder / "model.safetensors")
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, saved[name])
    assert weights_identity(str(folder)).startswith("sha256:")


def test_a_folder_without_a_network_is_refused(tmp_path):
    for folder in (tmp_path / "missing", tmp_path):
        with pytest.raises(InputError, match="holds no network of affinities"):
            load_affinity(folder)


def test_a_folder_of_another_network_is_refused(folder):
    (folder / "config.json").write_text('{"model_type": "sam"}')
    with pytest.raises(InputError, match="of type 'sam', expected 'magicseg-affinity'"):
        read_affinity_record(folder)
    (folder / "config.json").write_text("[1]")
    with pytest.raises(InputError, match="of type None"):
        read_affinity_record(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        read_affinity_record(folder)


@pytest.mark.parametrize("kept", [0, 100, -1, None])
def test_weights_that_are_not_whole_are_refused(folder, kept):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.unlink()
    if kept is not None:
        path.write_bytes(data[:kept])
    with pytest.raises(InputError, match="bytes of the digest"):
        load_affinity(folder)
    if kept:
        vouch_for(folder)
        with pytest.raises(InputError, match="does not hold the network"):
            load_affinity(folder)


def test_weights_of_another_geometry_are_refused(folder):
    record = json.loads((folder / "config.json").read_bytes())
    record["network"]["widths"] = [16, 16, 32]
    (folder / "config.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="does not hold the network"):
        load_affinity(folder)


def test_weights_that_are_not_finite_are_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["join.weight"][0, 0] = float("nan")
    (folder / "model.safetensors").write_bytes(save(tensors))
    vouch_for(folder)
    with pytest.raises(InputError, match=r"not finite, join\.weight"):
        load_affinity(folder)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("stride", 6, "stride is 6, expected a power of 2"),
        ("widths", [16, 16, 20], "expected multiples of 8 from 16 on"),
        ("embeddings", [8, 16, 16], "expected multiples of 8 from 16 on"),
        ("radius", 1, "radius"),
    ],
)
def test_a_geometry_that_cannot_be_built_is_refused(field, value, message):
    with pytest.raises(InputError, match=message):
        validate(AffinityNetConfig, {field: value}, "network")


def test_the_default_network_is_small():
    count = sum(each.numel() for each in AffinityNet(AffinityNetConfig()).parameters())
    assert count < 2_000_000
    assert all(not isinstance(each, nn.BatchNorm2d) for each in AffinityNet(SMALL).modules())
