"""How far a labeller's masks agree with the exact ones of drawn scenes.

The drawn world knows every mask. A labeller that looks at pictures is given the drawn pictures; one
that reads its painter's attention is given where the painter looks when it is shown them, noised,
step after step with their captions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from models.labellers import build_labeller, finding_part, maps_wanted
from models.miniature.captions import caption
from models.miniature.world import CLASSES, masks, render, sample_scene
from models.painting.painters import SeenPair
from models.profiles import Profile
from models.protocols import AttendedClass, FoundObjects, PairRequest, RecordedScene
from models.registry import build
from storage.identity import derive_seed

_HARD = 0.35
_TWO_EVERY = 4
"""Of this many scenes one has two things."""


@dataclass(frozen=True, eq=False)
class ComparedScene:
    """A scene of the drawn world.

    Attributes:
        image: RGB.
        counterfactual: The same scene without things.
        request: Their texts, and the classes.
        exact: The mask of each class.
    """

    image: UInt8[np.ndarray, "height width 3"]
    counterfactual: UInt8[np.ndarray, "height width 3"]
    request: PairRequest
    exact: tuple[Bool[np.ndarray, "height width"], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Its classes."""
        return tuple(each.name for each in self.request.attended)


@dataclass(frozen=True)
class DrawnAgreement:
    """Mean IoU with the exact masks.

    Attributes:
        one: Over the classes of scenes with one thing, in [0, 1].
        two: Over those of scenes with two; None if there are none.
    """

    one: float
    two: float | None


def draw_scenes(count: int, seed: int) -> list[ComparedScene]:
    """Draw scenes of one or two things; equal arguments give equal scenes."""
    return [_drawn(seed, index) for index in range(count)]


def agree_on_scenes(profile: Profile, scenes: Sequence[ComparedScene]) -> DrawnAgreement:
    """Label drawn scenes with a profile's labeller, and compare.

    A class that the labeller does not find has an empty mask.

    Args:
        profile: Painter and labeller.
        scenes: At least one.

    Raises:
        InputError: If weights are missing, or the painter has no attention that the labeller reads.
    """
    found = _labelling(profile)(scenes)
    overlaps: dict[int, list[float]] = {1: [], 2: []}
    for scene, own in zip(scenes, found, strict=True):
        for position, exact in enumerate(scene.exact):
            cut = [own.cuts.masks[at] for at in np.flatnonzero(own.boxes.phrases == position)]
            mask = np.any([np.zeros_like(exact), *cut], axis=0)
            overlaps[min(len(scene.exact), 2)].append(mask_iou(mask, exact))
    two = float(np.mean(overlaps[2])) if overlaps[2] else None
    return DrawnAgreement(float(np.mean(overlaps[1])), two)


def mask_iou(
    first: Bool[np.ndarray, "height width"], second: Bool[np.ndarray, "height width"]
) -> float:
    """IoU of two masks; 1 if both are empty."""
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0


def _labelling(profile: Profile) -> Callable[[Sequence[ComparedScene]], list[FoundObjects]]:
    labeller, wanted = profile.labeller, maps_wanted(profile.labeller)
    if wanted is None:
        model = build_labeller(labeller)
        return lambda scenes: model.label(
            [each.image for each in scenes], [each.names for each in scenes]
        )
    painter, reader = build(profile.painter), build(labeller)

    def look(scenes: Sequence[ComparedScene]) -> list[FoundObjects]:
        seen = [SeenPair(each.request, each.image, each.counterfactual) for each in scenes]
        maps = painter.look_at(seen, wanted)
        present = _present(labeller, scenes)
        return reader.label_scenes(
            [
                RecordedScene(scene.image, own, scene.names, present.get(index))
                for index, (scene, own) in enumerate(zip(scenes, maps, strict=True))
            ]
        )

    return look


def _present(labeller: Any, scenes: Sequence[ComparedScene]) -> Mapping[int, frozenset[int]]:
    """What a labeller's own detector finds; nothing where the labeller judges itself."""
    finder = finding_part(labeller)
    if finder is labeller:
        return {}
    found = build(finder).detect([each.image for each in scenes], [each.names for each in scenes])
    return {index: frozenset(each.phrases.tolist()) for index, each in enumerate(found)}


def _drawn(seed: int, index: int) -> ComparedScene:
    rng = np.random.default_rng(derive_seed("drawn agreement", seed, index))
    things = 1 + (index % _TWO_EVERY == _TWO_EVERY - 1)
    scene = sample_scene(rng, num_things=things, hard=_HARD)
    text, twin, spans = caption(scene, rng)
    ids = [thing.class_id for thing in scene.things]
    attended = tuple(
        AttendedClass(
            CLASSES[class_id],
            tuple(span for span, own in zip(spans, ids, strict=True) if own == class_id),
        )
        for class_id in dict.fromkeys(ids)
    )
    cut = masks(scene)
    exact = tuple(
        np.any([mask for mask, own in zip(cut, ids, strict=True) if own == class_id], axis=0)
        for class_id in dict.fromkeys(ids)
    )
    request = PairRequest(text, twin, index, attended)
    return ComparedScene(render(scene), render(scene, things=False), request, exact)
