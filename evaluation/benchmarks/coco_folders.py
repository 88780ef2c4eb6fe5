"""The folders of COCO's images and of the label maps made for them, `coco_stuff164k`.

images/<split>2017/<id>.jpg
annotations/<split>2017/<id><ending>
"""

import re
from pathlib import Path

from evaluation.benchmarks.contract import BenchmarkConfig
from evaluation.benchmarks.near_misses import files_hint, root_hint
from storage.errors import InputError


def coco_folder(config: BenchmarkConfig, kind: str, where_to_get: str) -> Path:
    """The folder of a split.

    Args:
        config: Root and split.
        kind: `images` or `annotations`.
        where_to_get: Where to get it, as part of a sentence.

    Raises:
        InputError: If it is missing.
    """
    path = config.root / kind / f"{config.split}2017"
    if not path.is_dir():
        own = f"{kind}/{path.name}"
        hint = files_hint([path]) or root_hint(config.root, (own, f"coco_stuff164k/{own}"))
        message = f"the folder {path} is missing; {hint or where_to_get}"
        raise InputError(message)
    return path


def image_numbers(folder: Path, *endings: str) -> set[str]:
    """The images, by their number, of which the folder holds a file with such an end."""
    name = re.compile(rf"(\d+)(?:{'|'.join(map(re.escape, endings))})")
    return {match[1] for path in folder.iterdir() if (match := name.fullmatch(path.name))}
