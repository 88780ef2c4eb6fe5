"""A network of affinities, in its folder.

AffinityNet (Ahn and Kwak, CVPR 2018): a cell of the image's grid has an embedding, and two cells
that are near each other have one label with the probability ``exp(-mean |f_i - f_j|)``.

    model.safetensors   the trained network
    config.json         what it is made of and trained on, and the digest of the weights
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from models.devices import pick_device
from models.finiteness import find_not_finite
from models.folders import NETWORK_CONFIG
from models.labelling.attention.affinity_config import (
    AGAIN,
    AffinityNetConfig,
    AffinityRecord,
    read_affinity_record,
)
from storage.errors import InputError
from storage.files import write_whole
from storage.paths import local_path

_WEIGHTS_FILE = "model.safetensors"
_GROUP = 8
_GAIN = 4.0  # of the last layer, so that embeddings differ from the first update on


class AffinityNet(nn.Module):
    """Embeds the cells of an image's grid.

    Args:
        config: Geometry.
    """

    def __init__(self, config: AffinityNetConfig) -> None:
        super().__init__()
        self.config = config
        first, second, third = config.widths
        halvings = config.stride.bit_length() - 1
        stem = [_Layer(3, first, stride=2 if halvings else 1)]
        stem += [_Layer(first, first, stride=2) for _ in range(halvings - 1)]
        self.stem = nn.Sequential(*stem)
        self.stages = nn.ModuleList(
            [_Stage(first, first, 1), _Stage(first, second, 2), _Stage(second, third, 4)]
        )
        self.narrow = nn.ModuleList(
            [
                nn.Conv2d(width, own, 1, bias=False)
                for width, own in zip(config.widths, config.embeddings, strict=True)
            ]
        )
        whole = sum(config.embeddings)
        self.join = nn.Conv2d(whole, whole, 1, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.xavier_uniform_(self.join.weight, gain=_GAIN)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch features rows columns"]:
        """Embed images.

        Args:
            images: Colours in [-1, 1].

        Returns:
            Embeddings; there are ``ceil(height / stride)`` rows.
        """
        found = self.stem(images)
        parts = []
        for stage, narrow in zip(self.stages, self.narrow, strict=True):
            found = stage(found)
            parts.append(F.elu(narrow(found)))
        return F.elu(self.join(torch.cat(parts, dim=1)))


class _Layer(nn.Sequential):
    """A convolution with its normalisation, which needs no statistics of a batch."""

    def __init__(self, before: int, after: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(
            nn.Conv2d(before, after, 3, stride, dilation, dilation, bias=False),
            nn.GroupNorm(_GROUP, after),
            nn.ReLU(),
        )


class _Stage(nn.Module):
    """Two layers beside a shortcut."""

    def __init__(self, before: int, after: int, dilation: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _Layer(before, after, dilation=dilation), _Layer(after, after, dilation=dilation)
        )
        self.shortcut = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, values: Tensor) -> Tensor:
        return self.shortcut(values) + self.layers(values)


def pair_offsets(radius: int) -> list[tuple[int, int]]:
    """Rows and columns from a cell to the others that it is compared with.

    They are those of the half plane after the cell, in reading order, that are nearer than the
    radius: each pair of cells is met once.
    """
    reach = range(1 - radius, radius)
    return [
        (down, right)
        for down in range(radius)
        for right in reach
        if (down, right) > (0, 0) and down**2 + right**2 < radius**2
    ]


def paired(values: Tensor, offset: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The values of all cells that have a partner at an offset, and those of the partners.

    Args:
        values: The last two dimensions are rows and columns.
        offset: Rows down (0 or more) and columns to the right.
    """
    rows, columns = values.shape[-2:]
    down, right = offset
    own = (slice(0, max(0, rows - down)), slice(max(0, -right), max(0, columns - max(0, right))))
    other = (slice(down, rows), slice(max(0, right), max(0, columns + min(0, right))))
    return values[..., *own], values[..., *other]


def pair_affinity(
    features: Float[Tensor, "batch features rows columns"], offset: tuple[int, int]
) -> Float[Tensor, "batch _ _"]:
    """Affinities of all pairs at an offset, in (0, 1]; see `paired`."""
    own, other = paired(features, offset)
    return torch.exp(-(own - other).abs().mean(dim=1))


def as_network_input(
    images: UInt8[np.ndarray, "batch height width 3"],
) -> Float32[Tensor, "batch 3 height width"]:
    """Turn RGB images into what the network takes: colours in [-1, 1]."""
    return torch.tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0


@torch.inference_mode()
def image_affinities(
    network: AffinityNet, image: UInt8[np.ndarray, "height width 3"]
) -> list[Float32[np.ndarray, "_ _"]]:
    """Affinities of the cells of one image.

    Args:
        network: Trained; it computes where its weights are.
        image: RGB.

    Returns:
        For each of the network's `pair_offsets` the affinities of all pairs of cells that far
        apart, in the order of the first cell.
    """
    device = next(network.parameters()).device
    features = network(as_network_input(image[None]).to(device))
    offsets = pair_offsets(network.config.radius)
    return [pair_affinity(features, offset)[0].cpu().numpy() for offset in offsets]


def save_affinity(
    folder: Path, network: AffinityNet, classes: tuple[str, ...], trained: Mapping[str, Any]
) -> AffinityRecord:
    """Write a trained network; the record is written last and vouches for the weights.

    Args:
        folder: Made if missing.
        network: What is written.
        classes: Names of the classes that it was trained for.
        trained: What the weights depend on, JSON types.

    Raises:
        OSError: If the files cannot be written.
    """
    tensors = {
        name: each.detach().cpu().contiguous() for name, each in network.state_dict().items()
    }
    weights = save(tensors)
    record = AffinityRecord(
        network=network.config,
        classes=classes,
        trained=dict(trained),
        weights_sha256=hashlib.sha256(weights).hexdigest(),
    )
    write_whole(folder / _WEIGHTS_FILE, weights)
    write_whole(folder / NETWORK_CONFIG, record.model_dump_json(indent=1).encode())
    return record


def load_affinity(folder: str | Path, device: str = "auto") -> tuple[AffinityNet, AffinityRecord]:
    """Build a trained network, in evaluation mode.

    Args:
        folder: As `save_affinity` writes it.
        device: Where it will compute.

    Returns:
        The network and what it is.

    Raises:
        InputError: If the folder holds none, its weights are damaged, not finite or not those of
            its record, or the device is not there.
    """
    record = read_affinity_record(folder)
    path = local_path(folder, "the affinities") / _WEIGHTS_FILE
    data = path.read_bytes() if path.is_file() else b""
    found = hashlib.sha256(data).hexdigest()
    if found != record.weights_sha256:
        message = (
            f"{path} has {len(data)} bytes of the digest {found}, expected "
            f"{record.weights_sha256}; {AGAIN}"
        )
        raise InputError(message)
    network = AffinityNet(record.network)
    try:
        tensors = load(data)
        network.load_state_dict(tensors)
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        message = f"{path} does not hold the network of its {NETWORK_CONFIG} ({reason}); {AGAIN}"
        raise InputError(message) from error
    wrong = find_not_finite(tensors)
    if wrong is not None:
        message = f"{path} holds a tensor that is not finite, {wrong}; {AGAIN}"
        raise InputError(message)
    return network.to(pick_device(device)).eval(), record
