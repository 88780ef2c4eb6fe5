"""A detector of your own: anything with a method detect meets Detector.

    python examples/own_detector.py runs/demo/dataset

This one takes for the object whatever differs most from the picture's rim. It looks at the pictures
of a dataset again, and the stage's plain function judges what it found.
"""

import sys
from collections import Counter
from collections.abc import Sequence

import numpy as np

from models.protocols import Detector, FoundBoxes
from storage.codecs import decode_image
from storage.records import Rejected
from storage.shards import iterate
from storage.store import Store
from storage.vocabulary import load_vocabulary
from tasks.detections import detect_objects
from tasks.pairs import PaintedSample
from tasks.rules import DetectionRules


class RimDetector:
    """Boxes what is unlike the rim, and gives the box to the first phrase."""

    def detect(
        self, images: Sequence[np.ndarray], phrases: Sequence[tuple[str, ...]]
    ) -> list[FoundBoxes]:
        """Find each image's own phrases in it."""
        return [self._find(image, len(own)) for image, own in zip(images, phrases, strict=True)]

    def _find(self, image: np.ndarray, asked: int) -> FoundBoxes:
        rim = np.median(np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]), axis=0)
        unlike = np.abs(image - rim).max(axis=2) / 255
        rows, columns = np.nonzero(unlike > 0.4)
        best = np.array([unlike.max(), *np.zeros(asked - 1)], np.float32)
        if not rows.size:
            return FoundBoxes(np.zeros((0, 4), np.float32), best[:0], np.zeros(0, np.int64), best)
        corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return FoundBoxes(np.array([corners], np.float32), best[:1], np.zeros(1, np.int64), best)


def main(root: str) -> None:
    """Count what becomes of the dataset's pictures with this detector."""
    store = Store.open(root)
    detector: Detector = RimDetector()
    samples = [each for shard in store.shards() if shard.path for each in iterate(shard.path)]
    pairs = [
        PaintedSample(s.key, decode_image(s.image_bytes), decode_image(s.counterfactual_bytes))
        for s in samples
    ]
    classes = {sample.key: sample.class_ids for sample in samples}
    vocabulary = load_vocabulary(store.spec["vocabulary"])
    rules = DetectionRules(require="any", counterfactual="record")
    found = detect_objects(pairs, classes, vocabulary, detector, rules)
    print(Counter(r.reason.value if isinstance(r, Rejected) else "passed" for r in found))


if __name__ == "__main__":
    main(*sys.argv[1:])
