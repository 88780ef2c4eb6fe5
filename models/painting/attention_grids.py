"""Where a U-Net attends, by what its configuration says; nothing here needs torch."""

from collections.abc import Mapping
from typing import Any

from models.attention_maps import MapsWanted
from storage.errors import InputError


def attention_grids(latent: tuple[int, int]) -> dict[int, tuple[int, int]]:
    """Rows and columns of the cells by resolution; each level halves them, rounding up.

    Args:
        latent: Rows and columns of the latents.
    """
    grids: dict[int, tuple[int, int]] = {}
    rows, columns = latent
    while True:
        grids[min(rows, columns)] = rows, columns
        if min(rows, columns) == 1:
            return grids
        rows, columns = -(-rows // 2), -(-columns // 2)


def attention_resolutions(config: Mapping[str, Any], latent: tuple[int, int]) -> set[int]:
    """At which resolutions a U-Net attends to words and cells, by what its blocks are called.

    Args:
        config: Of the network.
        latent: Rows and columns of the latents.
    """
    down, up = list(config["down_block_types"]), list(config["up_block_types"])
    levels = {level for level, each in enumerate(down) if "CrossAttn" in each}
    levels |= {len(up) - 1 - level for level, each in enumerate(up) if "CrossAttn" in each}
    if "CrossAttn" in (config.get("mid_block_type", "UNetMidBlock2DCrossAttn") or ""):
        levels.add(len(down) - 1)
    names = list(attention_grids(latent))
    return {names[level] for level in levels if level < len(names)}


def require_unet(pipeline: str, network: str) -> None:
    """Refuse a pipeline whose network attends to words and cells in one.

    Args:
        pipeline: Its class.
        network: The part that takes noise away.

    Raises:
        InputError: If that is no U-Net.
    """
    if network != "unet":
        message = (
            f"painter is a {pipeline}, whose network has no cross-attention to record, expected "
            "one with a U-Net, such as Stable Diffusion 1.x, 2.x or XL; choose such a painter, or "
            "a labeller that looks at pictures, such as `grounded`"
        )
        raise InputError(message)


def require_resolutions(
    pipeline: str, config: Mapping[str, Any], latent: tuple[int, int], wanted: MapsWanted
) -> None:
    """Refuse a U-Net without attention at the resolutions that are to be recorded.

    Args:
        pipeline: Class of its pipeline.
        config: Of the network.
        latent: Rows and columns of the latents.
        wanted: What is to be recorded.

    Raises:
        InputError: If one is missing; says which there are.
    """
    there = attention_resolutions(config, latent)
    asked = {*wanted.cross} | ({wanted.cells} if wanted.cells is not None else set())
    if not asked <= there:
        message = (
            f"painter is a {pipeline} with attention at the resolutions "
            f"{', '.join(map(str, sorted(there)))} for latents of {latent[0]} x {latent[1]}; the "
            f"labeller reads {', '.join(map(str, sorted(asked)))}; set its `cross_resolutions` "
            "and `cell_resolution` to some that are there"
        )
        raise InputError(message)
