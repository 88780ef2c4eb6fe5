"""Labellers that read masks from where a painter looked."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32

from models.attention_maps import TokenMaps
from models.labelling.attention.affinity import AffinityNet, image_affinities, load_affinity
from models.labelling.attention.aggregation import diffumask_map, refined_map
from models.labelling.attention.config import (
    AttentionConfig,
    DatasetDiffusionConfig,
    DiffuMaskConfig,
)
from models.labelling.attention.dense_crf import MASK_CRF
from models.labelling.attention.final_threshold import choose_mask
from models.labelling.attention.random_walk import WalkSettings, random_walk
from models.labelling.attention.refinement import Refiner, field_of
from models.labelling.attention.thresholds import seed_constants, seed_levels
from models.masks import mask_box
from models.protocols import CutMasks, FoundBoxes, FoundObjects, RecordedScene

_MARGIN = 0.05
"""How far a threshold is moved to see how much of a mask depends on it."""
_HALF = 0.5


@dataclass(frozen=True, eq=False)
class ClassMasks:
    """What a labeller makes of one picture.

    Attributes:
        maps: For each class that is there, by its position: how sure each pixel is to be it.
        masks: Its pixels; those of two classes may overlap.
        thresholds: Where its map was cut.
        uncertain: Pixels that are neither a class nor background; None if all are decided.
    """

    maps: Mapping[int, Float32[np.ndarray, "height width"]]
    masks: Mapping[int, Bool[np.ndarray, "height width"]]
    thresholds: Mapping[int, float]
    uncertain: Bool[np.ndarray, "height width"] | None


class _AttentionLabeller(ABC):
    """What labellers have in common that read a painter's attention.

    Args:
        config: Its settings.
        refined: Whether its masks are to be refined.
    """

    def __init__(self, config: AttentionConfig, *, refined: bool = True) -> None:
        self._least = config.min_presence
        self._refiner = Refiner(config.refine if refined else "none")

    def label_scenes(self, scenes: Sequence[RecordedScene]) -> list[FoundObjects]:
        """Find each scene's own classes in its image.

        Args:
            scenes: Images with maps. Where a scene says which of its classes are present, each
                of those has a mask, which may be empty; otherwise those are found that the
                painter looked for, and that have a mask.

        Returns:
            For each scene one box and one mask a class that was found. Scores are those of its
            presence, and what stands for the predicted IoU is how much of the mask does not
            depend on the threshold: the IoU of two masks that are cut a little above and below.
        """
        return [self._label(scene) for scene in scenes]

    def find_in_twins(self, scenes: Sequence[RecordedScene]) -> list[FoundBoxes]:
        """Find each scene's own classes in its counterfactual, by what its painter looked for."""
        return [self._find_in_twin(scene) for scene in scenes]

    @abstractmethod
    def _cut(self, scene: RecordedScene, present: Sequence[int]) -> ClassMasks:
        """Cut the classes that are there."""

    def _label(self, scene: RecordedScene) -> FoundObjects:
        scores = _presence(scene.maps.prompt, len(scene.names))
        if scene.present is None:
            present = [index for index, score in enumerate(scores) if score >= self._required]
        else:
            present = sorted(scene.present)
        cut = self._refined(scene, self._cut(scene, present))
        kept = [index for index in present if scene.present is not None or cut.masks[index].any()]
        height, width = scene.image.shape[:2]
        masks = np.zeros((len(kept), height, width), np.bool_)
        for place, index in enumerate(kept):
            masks[place] = cut.masks[index]
        ious = [_stability(cut.maps[index], cut.thresholds[index]) for index in kept]
        boxes = FoundBoxes(
            xyxy=np.array([mask_box(mask) for mask in masks], np.float32).reshape(-1, 4),
            scores=scores[kept],
            phrases=np.array(kept, np.int64),
            best_scores=scores,
        )
        return FoundObjects(boxes, CutMasks(masks, np.array(ious, np.float32)), cut.uncertain)

    def _refined(self, scene: RecordedScene, cut: ClassMasks) -> ClassMasks:
        """Masks at the edges of the image; what they cover is not uncertain any more."""
        order = list(cut.masks)
        if not order:
            return cut
        fitted = self._refiner.refined(scene.image, np.stack([cut.masks[each] for each in order]))
        masks = _apart(cut.maps, dict(zip(order, fitted, strict=True)))
        uncertain = cut.uncertain
        if uncertain is not None:
            uncertain = uncertain & ~np.any(list(masks.values()), axis=0)
        return replace(cut, masks=masks, uncertain=uncertain)

    def _find_in_twin(self, scene: RecordedScene) -> FoundBoxes:
        tokens = scene.maps.twin_prompt
        scores = _presence(tokens, len(scene.names))
        found = [index for index, score in enumerate(scores) if score >= self._required]
        size = scene.image.shape[:2]
        boxes = [
            mask_box(_stretched(tokens, index, size) > _HALF)
            for index in found
            if tokens is not None
        ]
        return FoundBoxes(
            xyxy=np.array(boxes, np.float32).reshape(-1, 4),
            scores=scores[found],
            phrases=np.array(found, np.int64),
            best_scores=scores,
        )

    @property
    def _required(self) -> float:
        if self._least is None:
            message = "a labeller whose detector says what is there was asked to judge itself"
            raise TypeError(message)
        return self._least


class DiffuMask(_AttentionLabeller):
    """Class maps from the words of the text, each cut at a threshold of its own (DiffuMask, 3.1).

    Where the masks of two classes overlap, the class with the higher map has the pixel.

    Args:
        config: Its settings.
    """

    def __init__(self, config: DiffuMaskConfig) -> None:
        super().__init__(config, refined=config.affinity is None)
        self._config = config
        self._affinities: AffinityNet | None = None
        if config.affinity is not None:
            self._affinities, _ = load_affinity(config.affinity, config.device)

    def _cut(self, scene: RecordedScene, present: Sequence[int]) -> ClassMasks:
        size = scene.image.shape[:2]
        tokens = _tokens(scene.maps.mentions)
        maps = {
            index: diffumask_map(tokens.of_class(index), self._weights(scene.names[index]), size)
            for index in present
        }
        if self._affinities is not None:
            return self._walked(self._affinities, scene, maps)
        thresholds = {index: self._threshold(maps[index], scene.names[index]) for index in present}
        masks = {index: maps[index] > thresholds[index] for index in present}
        return ClassMasks(maps, masks, thresholds, None)

    def _walked(
        self,
        network: AffinityNet,
        scene: RecordedScene,
        maps: Mapping[int, Float32[np.ndarray, "height width"]],
    ) -> ClassMasks:
        """Masks at the threshold that agrees best with a walk along affinities (section 3.3)."""
        config = self._config
        settings = WalkSettings(
            power=config.walk_power,
            doublings=config.walk_doublings,
            background=config.walk_background,
        )
        order = list(maps)
        stacked = np.array([maps[index] for index in order], np.float32)
        walked = random_walk(
            image_affinities(network, scene.image),
            stacked.reshape(-1, *scene.image.shape[:2]),
            network.config.stride,
            network.config.radius,
            settings,
        ).argmax(axis=0)
        field = field_of(scene.image, MASK_CRF)
        masks, thresholds = {}, {}
        for place, index in enumerate(order):
            chosen = choose_mask(maps[index], walked == place + 1, field)
            masks[index] = np.zeros_like(walked, np.bool_) if chosen is None else chosen.mask
            thresholds[index] = 1.0 if chosen is None else chosen.threshold
        return ClassMasks(maps, masks, thresholds, None)

    def _weights(self, name: str) -> Mapping[int, float]:
        """The weights of resolutions; classes with resolutions of their own have those."""
        given, own = self._config.cross_resolutions, seed_constants(name).resolutions
        if own == seed_constants("default").resolutions or not {*own} <= given.keys():
            return given
        return dict.fromkeys(own, 1.0)

    def _threshold(self, found: Float32[np.ndarray, "height width"], name: str) -> float:
        if self._config.threshold != "adaptive":
            return self._config.threshold
        levels = seed_levels(found, seed_constants(name))
        return (levels.strict + levels.generous) / 2


class DatasetDiffusion(_AttentionLabeller):
    """Class maps passed on from cell to cell, cut at two thresholds (Dataset Diffusion, 3.2, 3.3).

    Args:
        config: Its settings.
    """

    def __init__(self, config: DatasetDiffusionConfig) -> None:
        super().__init__(config)
        self._config = config

    def _cut(self, scene: RecordedScene, present: Sequence[int]) -> ClassMasks:
        config, size, maps = self._config, scene.image.shape[:2], scene.maps
        tokens = _tokens(maps.prompt if config.words == "class-prompt" else maps.mentions)
        grid = None if maps.cells is None else maps.grid
        found = {
            index: refined_map(
                tokens.of_class(index)[config.cross_resolution],
                maps.cells,
                grid,
                config.power,
                size,
            )
            for index in present
        }
        best = np.max([*found.values(), np.zeros(size, np.float32)], axis=0)
        masks = {index: each >= config.foreground for index, each in found.items()}
        uncertain = (best >= config.uncertain) & (best < config.foreground)
        thresholds = dict.fromkeys(present, config.foreground)
        return ClassMasks(found, masks, thresholds, uncertain)


def _tokens(maps: TokenMaps | None) -> TokenMaps:
    if maps is None:
        message = "maps of words were not recorded, which the labeller's `wanted` asks for"
        raise TypeError(message)
    return maps


def _presence(maps: TokenMaps | None, classes: int) -> Float32[np.ndarray, " classes"]:
    """How strongly some cell attends to each class's name at every resolution, as a probability."""
    scores = np.zeros(classes, np.float32)
    if maps is None:  # a detector says it
        return np.ones(classes, np.float32)
    for index in range(classes):
        own = [each.mean(axis=0).max() for each in maps.of_class(index).values() if len(each)]
        scores[index] = min([*own, 1.0]) if own else 0.0
    return scores


def _stretched(
    maps: TokenMaps, index: int, size: tuple[int, int]
) -> Float32[np.ndarray, "height width"]:
    own = maps.of_class(index)
    return diffumask_map(own, dict.fromkeys(own, 1.0), size)


def _apart(
    maps: Mapping[int, Float32[np.ndarray, "height width"]],
    masks: Mapping[int, Bool[np.ndarray, "height width"]],
) -> dict[int, Bool[np.ndarray, "height width"]]:
    """Masks that do not overlap: the highest map has the pixel, of equal ones the first."""
    apart: dict[int, Bool[np.ndarray, "height width"]] = {}
    for index, mask in masks.items():
        others = [
            masks[other] & ((maps[other] > maps[index]) | (_before(other, index, maps)))
            for other in masks
            if other != index
        ]
        apart[index] = mask & ~np.any([np.zeros_like(mask), *others], axis=0)
    return apart


def _before(
    other: int, index: int, maps: Mapping[int, Float32[np.ndarray, "height width"]]
) -> Bool[np.ndarray, "height width"]:
    return (maps[other] == maps[index]) & (other < index)


def _stability(found: Float32[np.ndarray, "height width"], threshold: float) -> float:
    loose = int((found > threshold - _MARGIN).sum())
    return int((found > threshold + _MARGIN).sum()) / loose if loose else 0.0
