"""The place where a picture is dropped; it takes what was uploaded, and nothing else.

A mounted Gradio (6.31) does not check what a request names as its file: it would read any file of
this machine, and fetch any address.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

import gradio
from gradio.exceptions import InvalidPathError

Taking = Callable[[str | Path | None], Awaitable[str | None]]


def picture_place(**how: object) -> gradio.File:
    """A part of the page that takes uploaded files alone.

    Args:
        how: As `gradio.File` takes it.
    """
    place = gradio.File(**how)  # pyright: ignore[reportArgumentType]
    # On the part itself: Gradio writes a file beside every module that has a class of its parts.
    name = "async_move_resource_to_block_cache"
    setattr(place, name, uploads_alone(getattr(place, name), Path(place.GRADIO_CACHE)))
    return place


def uploads_alone(take: Taking, folder: Path) -> Taking:
    """A function that takes files of a folder alone.

    Args:
        take: What it does with them.
        folder: Where uploads are.
    """

    async def checked(place: str | Path | None) -> str | None:
        if place is not None and not Path(place).resolve().is_relative_to(folder.resolve()):
            message = "what is named as the picture was not uploaded"
            raise InvalidPathError(message)
        return await take(place)

    return checked
