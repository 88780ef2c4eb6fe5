"""Find words in every image of a folder, and write a label map and a coloured picture of each.

    python examples/segment_folder.py runs/demo/run IMAGES OUT cat "red boat"

IMAGES is a folder of pictures of any size; OUT is made if it is missing.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from evaluation.segment import Student
from storage.codecs import encode_label_map
from storage.photographs import read_photograph

COLOURS = np.random.default_rng(0).integers(64, 256, (65536, 3), dtype=np.uint8)
COLOURS[0] = 0


def main(run: str, images: str, out: str, *words: str) -> None:
    """Segment all images."""
    segmenter = Student.load(run, profile="miniature")
    target = Path(out)
    target.mkdir(parents=True, exist_ok=True)
    suffixes = {".jpg", ".jpeg", ".png"}
    paths = sorted(p for p in Path(images).iterdir() if p.suffix.lower() in suffixes)
    for path in paths:
        image = read_photograph(path)
        found = segmenter.segment(image, words)
        (target / f"{path.stem}.labels.png").write_bytes(encode_label_map(found.labels))
        picture = (image // 2 + COLOURS[found.labels] // 2).astype(np.uint8)
        Image.fromarray(picture).save(target / f"{path.stem}.seen.png")
        shares = ", ".join(f"{word} {share:.1%}" for word, share in found.shares().items())
        print(f"{path.name}: {shares}")
    print(f"{len(paths)} images")


if __name__ == "__main__":
    main(*sys.argv[1:])
