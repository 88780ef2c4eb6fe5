"""State dicts of released ZegCLIP checkpoints, renamed to the student's own layout."""

import logging
import re
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import CLIPVisionConfig

from storage.errors import InputError

_log = logging.getLogger(__name__)

_MODULES = {
    "vision.embeddings.class_embedding": "backbone.class_embedding",
    "vision.embeddings.patch_embedding": "backbone.conv1",
    "vision.embeddings.position_embedding.weight": "backbone.positional_embedding",
    "vision.pre_layrnorm": "backbone.ln_pre",
    "vision.post_layernorm": "backbone.ln_post",
    "prompt_projection": "backbone.prompt_proj",
    "prompt_norm": "backbone.prompt_norm",
    "decoder.descriptor": "decode_head.q_proj",
}
_TOWER_MODULES = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_DECODER_MODULES = {
    "attention.query": "multihead_attn.q",
    "attention.key": "multihead_attn.k",
    "attention.value": "multihead_attn.v",
    "attention.output": "multihead_attn.proj",
    "attention_norm": "norm2",
    "expand": "linear1",
    "contract": "linear2",
    "feedforward_norm": "norm3",
}
_WRAPPED = re.compile(r"^(?:(?:module|_orig_mod)\.)+")
_TOWER = "backbone.transformer.resblocks."
_DECODER = "decode_head.decoder_1.layers."
_PROMPTS = ("backbone.prompt_embeddings", "backbone.deep_prompt_embeddings")


def entry(state_dict: Mapping[str, Tensor], name: str) -> Tensor:
    """Return one tensor.

    Raises:
        InputError: If it is not there.
    """
    if name not in state_dict:
        message = (
            f"the state dict has no {name!r}, expected the names of a released ZegCLIP: give the"
            " checkpoint's 'state_dict' entry"
        )
        raise InputError(message)
    return state_dict[name]


def unwrapped(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off what wrappers for training or compiling put before each name."""
    return {_WRAPPED.sub("", name): tensor for name, tensor in state_dict.items()}


def count_layers(state_dict: Mapping[str, Tensor], prefix: str) -> int:
    """Count the numbers that follow a prefix in the names."""
    return len({n.removeprefix(prefix).split(".")[0] for n in state_dict if n.startswith(prefix)})


def tower_config(
    state_dict: Mapping[str, Tensor], *, image_size: int, patch_size: int, heads: int
) -> CLIPVisionConfig:
    """Read the geometry of the image tower from the shapes.

    Raises:
        InputError: If the position table does not belong to the sizes given.
    """
    width, embed = entry(state_dict, "backbone.proj").shape
    rows, expected = len(entry(state_dict, "backbone.positional_embedding")), 1
    expected += (image_size // patch_size) ** 2
    if rows != expected:
        message = (
            f"the position table has {rows} rows, expected {expected} for image_size {image_size}"
            f" and patch_size {patch_size}: give the sizes it was trained with"
        )
        raise InputError(message)
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=len(entry(state_dict, f"{_TOWER}0.mlp.c_fc.weight")),
        num_hidden_layers=count_layers(state_dict, _TOWER),
        num_attention_heads=heads,
        image_size=image_size,
        patch_size=patch_size,
        projection_dim=embed,
        hidden_act="quick_gelu",
    )


def convert(
    state_dict: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """Rename a state dict to the student's layout; entries without an effect are logged by name.

    Without effect are buffers of the losses and what upstream stores but never uses: the decoder's
    self-attention with its norm, and everything of the last layer but queries and keys.

    Args:
        state_dict: Names as the released code saves them.
        shapes: The student's own names and shapes.

    Raises:
        InputError: If a tensor is missing or of another shape.
    """
    depth = count_layers(state_dict, _TOWER)
    modules = _module_names(depth, count_layers(state_dict, _DECODER))
    converted, used = _renamed(state_dict, shapes, modules)
    for i in range(depth):
        for leaf in ("weight", "bias"):
            packed = f"{_TOWER}{i}.attn.in_proj_{leaf}"
            for part, name in zip(entry(state_dict, packed).chunk(3), "qkv", strict=True):
                converted[f"vision.encoder.layers.{i}.self_attn.{name}_proj.{leaf}"] = part
            used.add(packed)
    converted["prompts"] = torch.cat([entry(state_dict, name) for name in _PROMPTS])
    converted["projection.weight"] = entry(state_dict, "backbone.proj").T
    used |= {*_PROMPTS, "backbone.proj"}
    _check_shapes(converted, shapes)
    left = sorted(set(state_dict) - used)
    _log.info("%d entries of the state dict have no effect: %s", len(left), ", ".join(left))
    return {name: tensor.float() for name, tensor in converted.items()}


def _module_names(depth: int, layers: int) -> dict[str, str]:
    """Upstream's name of each of our modules or tensors that has a counterpart."""
    names = dict(_MODULES)
    for i in range(depth):
        ours, theirs = f"vision.encoder.layers.{i}.", f"{_TOWER}{i}."
        names |= {ours + a: theirs + b for a, b in _TOWER_MODULES.items()}
    for i in range(layers - 1):
        ours, theirs = f"decoder.layers.{i}.", f"{_DECODER}{i}."
        names |= {ours + a: theirs + b for a, b in _DECODER_MODULES.items()}
    last = f"{_DECODER}{layers - 1}.multihead_attn"
    return names | {"decoder.scores.query": f"{last}.q", "decoder.scores.key": f"{last}.k"}


def _renamed(
    state_dict: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], modules: Mapping[str, str]
) -> tuple[dict[str, Tensor], set[str]]:
    """Tensors that only change their name, and the upstream names that they had."""
    names: dict[str, str] = {}
    for ours in shapes:
        owner, _, leaf = ours.rpartition(".")
        if ours in modules:
            names[ours] = modules[ours]
        elif owner in modules:
            names[ours] = f"{modules[owner]}.{leaf}"
    return {a: entry(state_dict, b) for a, b in names.items()}, set(names.values())


def _check_shapes(converted: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    for name, shape in shapes.items():
        found = tuple(converted[name].shape) if name in converted else "missing"
        if found != tuple(shape):
            message = (
                f"{name} is {found} in the state dict, expected {tuple(shape)}: give the sizes"
                " and heads that the checkpoint was trained with"
            )
            raise InputError(message)
