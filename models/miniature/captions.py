"""What a drawn scene is called, and what its object-free twin is called.

The words come from the template file `models/data/templates/miniature.yaml`, which the template
writer also draws from, so that the painter is asked for what it was trained on. Training knows two
more templates that name no place: they show what a thing is wherever it stands, but a pair painted
from them has two backgrounds.
"""

import re
from collections.abc import Mapping
from functools import cache

import numpy as np

from models.miniature.world import BACKGROUNDS, CLASSES, Scene
from models.writing.mentions import NOTHING, Span
from models.writing.templates import TemplateSet, load_templates

_BARE = ("{a} {colour1} {class1}", "a photo of {a} {class1}")
_SLOT = re.compile(r"(\{[a-z]+\d?\})")


@cache
def _grammar() -> TemplateSet:
    return load_templates("miniature")


def places() -> dict[str, str]:
    """The phrase of each background."""
    return dict(zip(BACKGROUNDS, _grammar().slots["place"], strict=True))


def caption_words() -> list[str]:
    """All words that a caption can hold, sorted; plural class names included."""
    grammar = _grammar()
    words = {word for text in (*grammar.one, *grammar.two) for word in _SLOT.sub(" ", text).split()}
    words.update(word for values in grammar.slots.values() for v in values for word in v.split())
    return sorted(words | {"a", "an", NOTHING} | set(CLASSES) | {plural(c) for c in CLASSES})


def plural(name: str) -> str:
    """The plural of a class of the world."""
    if name == "fish":
        return name
    return name + ("es" if name.endswith(("s", "x", "sh", "ch")) else "s")


def caption(
    scene: Scene, rng: np.random.Generator, *, bare: bool = True
) -> tuple[str, str, tuple[Span, ...]]:
    """Describe a scene with one or two things.

    Args:
        scene: The scene; its order of things is the order in the text.
        rng: Chooses the template.
        bare: Allow captions of one thing without a place.

    Returns:
        The text, the text of the object-free twin (each class word is "nothing", articles made
        right), and for each thing the (start, end) characters of its class word in the text.

    Raises:
        ValueError: If the scene has no thing or more than two.
    """
    grammar = _grammar()
    kinds = {1: grammar.one + (_BARE if bare else ()), 2: grammar.two}
    if len(scene.things) not in kinds:
        message = f"a scene of {len(scene.things)} things has no caption, expected 1 or 2"
        raise ValueError(message)
    templates = kinds[len(scene.things)]
    template = templates[int(rng.integers(len(templates)))]
    text, spans = fill(template, _values(scene))
    return text, fill(template, _values(scene, nothing=frozenset((0, 1))))[0], spans


def fill(template: str, values: Mapping[str, str]) -> tuple[str, tuple[Span, ...]]:
    """Fill a template.

    Args:
        template: Text with placeholders in braces.
        values: What stands for each placeholder except `{a}`, which becomes a or an by the word
            after it.

    Returns:
        The text and the character spans of `class1` and `class2`, where the template has them.
    """
    text, spans = "", {}
    for piece in _SLOT.split(template):
        name = piece[1:-1] if piece.startswith("{") else ""
        word = piece if not name or name == "a" else values[name]
        if name.startswith("class"):
            spans[name] = (len(text), len(text) + len(word))
        text += word
    # An article is filled last, because it depends on what follows; spans move with it.
    while (at := text.find("{a}")) >= 0:
        article = "an" if text[at + 3 :].lstrip()[:1] in tuple("aeiou") else "a"
        text = text[:at] + article + text[at + 3 :]
        shift = len(article) - 3
        spans = {k: (s + shift, e + shift) if s > at else (s, e) for k, (s, e) in spans.items()}
    return text, tuple(spans[name] for name in sorted(spans))


def _values(scene: Scene, nothing: frozenset[int] = frozenset()) -> dict[str, str]:
    values = {"place": places()[scene.background]}
    for index, thing in enumerate(scene.things):
        values[f"colour{index + 1}"] = thing.colour
        values[f"size{index + 1}"] = thing.size
        values[f"class{index + 1}"] = NOTHING if index in nothing else CLASSES[thing.class_id]
    return values
