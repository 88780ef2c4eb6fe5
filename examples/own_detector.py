"""A detector of your own: anything with a method detect meets Detector.

    python examples/own_detector.py runs/demo/dataset

This one boxes what differs from the upper rim; the stage's plain function judges what it finds.
"""

import sys
from collections import Counter
from collections.abc import Sequence

import numpy as np

from models.protocols import FoundBoxes
from storage.codecs import decode_image
from storage.current_samples import CurrentSamples
from storage.records import Rejected
from storage.store import Store
from storage.vocabulary import load_vocabulary
from tasks.detections import detect_objects
from tasks.pairs import PaintedSample
from tasks.rules import DetectionRules


class RimDetector:
    """Boxes what is unlike the upper rim, and gives the box to the first phrase."""

    def detect(
        self, images: Sequence[np.ndarray], phrases: Sequence[tuple[str, ...]]
    ) -> list[FoundBoxes]:
        """Find each image's own phrases in it."""
        return [self._find(image, len(own)) for image, own in zip(images, phrases, strict=True)]

    def _find(self, image: np.ndarray, asked: int) -> FoundBoxes:
        unlike = np.abs(image - np.median(image[0], axis=0)).max(axis=2) / 255
        y, x = np.nonzero(unlike >= unlike.max() / 2)
        best = np.array([unlike.max(), *np.zeros(asked - 1)], np.float32)
        corners = np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1]], np.float32)
        return FoundBoxes(corners, best[:1], np.zeros(1, np.int64), best)


def main(root: str) -> None:
    """Count what becomes of the dataset's pictures with this detector."""
    store = Store.open(root)
    samples = list(CurrentSamples(store))
    pictures = [map(decode_image, (s.image_bytes, s.counterfactual_bytes)) for s in samples]
    found = detect_objects(
        [PaintedSample(s.key, *pair) for s, pair in zip(samples, pictures, strict=True)],
        {sample.key: sample.class_ids for sample in samples},
        load_vocabulary(store.vocabulary),
        RimDetector(),
        DetectionRules(require="any"),
    )
    print(Counter(r.reason.value if isinstance(r, Rejected) else "passed" for r in found))


if __name__ == "__main__":
    main(*sys.argv[1:])
