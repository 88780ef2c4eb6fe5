"""Released ZegCLIP checkpoints: files of the authors' training code as students."""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.finiteness import find_not_finite
from models.student.clip import load_clip
from models.student.config import StudentConfig
from models.student.upstream import entry, unwrapped
from models.student.zegclip import ZegClip
from storage.errors import InputError


def load_released(path: str | Path, config: StudentConfig) -> ZegClip:
    """Build the student of a released checkpoint, in evaluation mode.

    Args:
        path: A file that `torch.save` wrote: tensors by name, or a mapping with those under
            `state_dict`, as mmsegmentation's runner has it.
        config: Names the CLIP that it stands on, which gives the heads of the image tower, and has
            the heads of the decoder. Sizes are read from the tensors.

    Raises:
        InputError: If the file cannot be read without running code, is no such checkpoint, stands
            on another CLIP, or holds values that are not finite.
    """
    state = unwrapped(_read(Path(path)))
    if (wrong := find_not_finite(state)) is not None:
        message = f"{path} holds a tensor that is not finite, {wrong}: take another checkpoint"
        raise InputError(message)
    clip: Any = load_clip(config.clip, config.revision).config
    _refuse_other_tower(path, state, config.clip, clip)
    patch_size = clip.vision_config.patch_size
    side = math.isqrt(len(entry(state, "backbone.positional_embedding")) - 1)
    return ZegClip.from_upstream(
        state,
        image_size=side * patch_size,
        patch_size=patch_size,
        vision_heads=clip.vision_config.num_attention_heads,
        decoder_heads=config.decoder_heads,
    )


def released_digest(path: str | Path) -> str:
    """SHA-256 of a checkpoint's file, which stands for its weights.

    Raises:
        InputError: If it cannot be read.
    """
    if not Path(path).is_file():
        message = f"{path} is no file, expected a released checkpoint; give another path"
        raise InputError(message)
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever a strange file leads it to
        message = (
            f"{path} cannot be read as tensors ({' '.join(str(error).split())[:200]}); if you "
            "trust where it comes from, save its 'state_dict' alone with torch.save"
        )
        raise InputError(message) from error
    state = found.get("state_dict", found) if isinstance(found, Mapping) else {}
    if not state or not all(isinstance(each, Tensor) for each in state.values()):
        message = f"{path} holds no tensors by name, expected a released ZegCLIP checkpoint"
        raise InputError(message)
    return dict(state)


def _refuse_other_tower(
    path: str | Path, state: Mapping[str, Tensor], name: str, clip: Any
) -> None:
    """Refuse a checkpoint whose image tower does not belong to the CLIP that reads the words."""
    patches = tuple(entry(state, "backbone.conv1.weight").shape)
    projection = tuple(entry(state, "backbone.proj").shape)
    vision = clip.vision_config
    expected_patches = (vision.hidden_size, 3, vision.patch_size, vision.patch_size)
    expected = (expected_patches, (vision.hidden_size, clip.projection_dim))
    if (patches, projection) != expected:
        message = (
            f"{path} has patches of {patches} and a projection of {projection}, but CLIP {name} "
            f"has {expected[0]} and {expected[1]}: name the profile whose student stands on the "
            "same CLIP, such as sd15 for ViT-B/16"
        )
        raise InputError(message)
