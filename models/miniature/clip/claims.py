"""What a caption claims about a scene, and whether it is true of another one."""

from dataclasses import dataclass

import numpy as np

from models.miniature import captions
from models.miniature.world import CLASSES, Scene

ZERO_SHOT = "a photo of {a} {class1}"
"""The text that stands for a class when CLIP is scored."""

_BARE = (ZERO_SHOT, ZERO_SHOT, "a photo of a {class1}", "this is {a} {class1}", "{a} {class1}",
         "{class1}", "there is {a} {class1} in the scene")  # fmt: skip

_ONE = (
    "{a} {colour1} {class1} {place}",
    "{a} {colour1} {class1} {place}",
    "{a} {colour1} {class1} {place}",
    "{a} {class1} {place}",
    "{a} {size1} {colour1} {class1} {place}",
    "{place} {a} {colour1} {class1}",
    "a photo of {a} {colour1} {class1} {place}",
    "there is {a} {class1} {place}",
    "{a} {colour1} {class1}",
    "a photo of {a} {class1}",
)
_TWO = (
    "{a} {colour1} {class1} and {a} {colour2} {class2} {place}",
    "{a} {colour1} {class1} and {a} {colour2} {class2} {place}",
    "{a} {class1} and {a} {class2} {place}",
    "a photo of {a} {colour1} {class1} and {a} {colour2} {class2} {place}",
    "{place} {a} {colour1} {class1} and {a} {colour2} {class2}",
)
_EMPTY = ("a photo of nothing", "there is nothing in the scene", "background", "nothing",
          "a photo of the background", "nothing {place}")  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """A caption and what it says about things.

    Attributes:
        things: Class id, colour and size of each thing, None where it leaves one open; empty for
            a caption that says that there is nothing.
        text: The caption.
    """

    things: tuple[tuple[int, str | None, str | None], ...]
    text: str

    def holds(self, scene: Scene, *, bare: bool) -> bool:
        """Whether the caption is true of a scene, or, if `bare`, of its object-free twin."""
        if bare or not self.things:
            return bare and not self.things
        return all(
            any(
                thing.class_id == class_id
                and colour in (None, thing.colour)
                and size in (None, thing.size)
                for thing in scene.things
            )
            for class_id, colour, size in self.things
        )


def write_claim(scene: Scene, rng: np.random.Generator, *, bare: bool, short: bool) -> Claim:
    """Write a caption of a scene.

    Args:
        scene: The scene.
        rng: Chooses the caption.
        bare: Describe the object-free twin.
        short: Name a class and nothing else.
    """
    place = captions.places()[scene.background]
    if bare:
        template = _EMPTY[int(rng.integers(len(_EMPTY)))]
        return Claim((), template.replace("{place}", place))
    things = scene.things
    if short or rng.random() < 0.3:
        things = (things[int(rng.integers(len(things)))],)
    templates = _BARE if short else _ONE if len(things) == 1 else _TWO
    template = templates[int(rng.integers(len(templates)))]
    values, told = {"place": place}, []
    for number, thing in enumerate(things, start=1):
        named = {"class": CLASSES[thing.class_id], "colour": thing.colour, "size": thing.size}
        values |= {f"{name}{number}": word for name, word in named.items()}
        colour = thing.colour if f"{{colour{number}}}" in template else None
        size = thing.size if f"{{size{number}}}" in template else None
        told.append((thing.class_id, colour, size))
    return Claim(tuple(told), captions.fill(template, values)[0])
