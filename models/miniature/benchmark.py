"""The procedural benchmark: drawn scenes with exact masks, in the layout of PASCAL VOC.

The split `test` shows every class on a background on which `train` and `val` never show it, so a
student that learned the background instead of the object is found out. Some scenes hold no object
at all: there, every labelled pixel is a mistake.

`python -m models.miniature.benchmark --out FOLDER` writes it.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import App, Parameter
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field

from models.miniature.world import BACKGROUNDS, CLASSES, Scene, masks, render, sample_scene
from storage.errors import EngineError, InputError
from storage.label_colours import voc_colours

SPLITS = ("train", "val", "test")
CONFIG_FILE = "benchmark.json"

_JPEG_QUALITY = 95


class DrawnBenchmarkConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What the drawn benchmark holds; equal configurations give equal files."""

    seed: int = Field(default=0, ge=0)
    """Seed of every random choice."""
    num_train: int = Field(default=140, ge=0)
    """Images of the split `train`."""
    num_val: int = Field(default=140, ge=0)
    """Images of the split `val`."""
    num_test: int = Field(default=140, ge=0)
    """Images of the split `test`."""
    two_share: float = Field(default=0.3, ge=0, le=1)
    """Share of scenes with two objects of different classes."""
    empty_share: float = Field(default=0.1, ge=0, le=1)
    """Share of scenes without an object."""
    hard: float = Field(default=0.5, ge=0, le=1)
    """0: large objects near the centre, no clutter; 1: any size, anywhere, with clutter."""

    def num_images(self, split: str) -> int:
        """The number of images of a split."""
        return {"train": self.num_train, "val": self.num_val, "test": self.num_test}[split]


def unseen_combinations(seed: int) -> frozenset[tuple[int, str]]:
    """The (class id, background) pairs kept for the split `test`: one background for each class."""
    order = np.random.default_rng((seed, len(SPLITS))).permutation(len(BACKGROUNDS))
    places = [BACKGROUNDS[i] for i in order]
    return frozenset((c, places[c % len(places)]) for c in range(len(CLASSES)))


def scenes(config: DrawnBenchmarkConfig, split: str) -> Iterator[tuple[str, Scene]]:
    """Yield the image names and scenes of a split, in order; each is drawn from its own seed.

    The classes take turns as the first object.
    """
    unseen = unseen_combinations(config.seed)
    turn = 0
    for index in range(config.num_images(split)):
        rng = np.random.default_rng((config.seed, SPLITS.index(split), index))
        draw = rng.random()
        if draw < config.empty_share:
            scene = sample_scene(rng, num_things=0, hard=config.hard)
        else:
            two = draw < config.empty_share + config.two_share
            scene = _scene_of(rng, turn % len(CLASSES), 1 + two, (config.hard, split, unseen))
            turn += 1
        yield f"{split}_{index:06d}", scene


def _scene_of(
    rng: np.random.Generator,
    first: int,
    num_things: int,
    where: tuple[float, str, frozenset[tuple[int, str]]],
) -> Scene:
    """A scene that shows the class `first`, on a background that its split may show."""
    hard, split, unseen = where
    if split == "test":
        # Among the classes that are kept for the same background, so that both are unseen on it.
        place = next(background for c, background in sorted(unseen) if c == first)
        partners = [c for c, background in sorted(unseen) if background == place and c != first]
        exclude: frozenset[tuple[int, str]] = frozenset()
    else:
        place, partners, exclude = None, [c for c in range(len(CLASSES)) if c != first], unseen
    if num_things == 1:
        chosen = [first]
        return sample_scene(rng, class_ids=chosen, background=place, exclude=exclude, hard=hard)
    if place is None:
        allowed = [b for b in BACKGROUNDS if (first, b) not in unseen]
        place = allowed[int(rng.integers(len(allowed)))]
        partners = [c for c in partners if (c, place) not in unseen]
    chosen = [first, partners[int(rng.integers(len(partners)))]]
    return sample_scene(rng, num_things=2, class_ids=chosen, background=place, hard=hard)


def draw_labels(scene: Scene) -> NDArray[np.uint8]:
    """The class of each pixel: 0 is background, class id + 1 otherwise; shape (64, 64)."""
    found = masks(scene)
    labels = np.zeros(found.shape[1:], dtype=np.uint8)
    for thing, mask in zip(scene.things, found, strict=True):
        labels[mask] = thing.class_id + 1
    return labels


def voc_palette() -> list[int]:
    """The colour table of PASCAL VOC: 256 times red, green and blue."""
    return voc_colours().ravel().tolist()


def write_benchmark(config: DrawnBenchmarkConfig, root: Path) -> Path:
    """Write the benchmark, or leave it alone if the same one is there.

    The folder appears complete or not at all: `JPEGImages/*.jpg`, `SegmentationClass/*.png`
    (palette-indexed), `ImageSets/Segmentation/{train,val,test}.txt`, `classes.txt` (line number
    minus 1 is the label) and `benchmark.json` (the configuration).

    Args:
        config: What to draw.
        root: The folder; its parents are made.

    Returns:
        The folder.

    Raises:
        InputError: If the folder holds something else.
    """
    record = json.dumps(config.model_dump(), indent=2, sort_keys=True) + "\n"
    if root.exists():
        _check_same(root, record)
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        for split in SPLITS:
            _write_split(config, split, temporary)
        names = "\n".join(("background", *CLASSES))
        (temporary / "classes.txt").write_text(names + "\n", encoding="utf-8")
        (temporary / CONFIG_FILE).write_text(record, encoding="utf-8")
        temporary.chmod(0o755)
        _publish(temporary, root, record)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return root


def _write_split(config: DrawnBenchmarkConfig, split: str, root: Path) -> None:
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    names = []
    for name, scene in scenes(config, split):
        image = Image.fromarray(render(scene))
        image.save(root / "JPEGImages" / f"{name}.jpg", quality=_JPEG_QUALITY, subsampling=0)
        labels = Image.fromarray(draw_labels(scene))
        labels.putpalette(voc_palette())
        labels.save(root / "SegmentationClass" / f"{name}.png")
        names.append(name)
    listing = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    listing.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def _publish(temporary: Path, root: Path, record: str) -> None:
    try:
        os.rename(temporary, root)  # noqa: PTH104 - must fail on a folder that is not empty
    except OSError:
        # Another process finished first.
        _check_same(root, record)


def _check_same(root: Path, record: str) -> None:
    config = root / CONFIG_FILE
    found = config.read_text(encoding="utf-8") if config.is_file() else "no benchmark.json"
    if found != record:
        message = (
            f"{root} holds another benchmark ({' '.join(found.split())}), wanted "
            f"{' '.join(record.split())}: name another folder or remove this one"
        )
        raise InputError(message)


_DEFAULTS = DrawnBenchmarkConfig()

app = App(name="python -m models.miniature.benchmark", help=__doc__)


@app.default
def main(
    *, out: Path, config: Annotated[DrawnBenchmarkConfig, Parameter(name="*")] = _DEFAULTS
) -> None:
    """Write the drawn benchmark in the layout of PASCAL VOC and print its folder.

    Args:
        out: Folder to write.
        config: What to draw.

    Raises:
        InputError: If the folder holds something else.
    """
    print(write_benchmark(config, out))  # noqa: T201


if __name__ == "__main__":
    try:
        app()
    except EngineError as error:
        message = f"error: {error}"
        raise SystemExit(message) from error
