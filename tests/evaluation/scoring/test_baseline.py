"""The baseline of a detector and a segmenter."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from evaluation.scoring.baseline import DetectedSegments
from models.labellers import Grounded
from models.labelling.detectors import GroundingDino
from models.labelling.segmenters import Sam
from models.miniature.world import masks, render, sample_scene
from models.profiles import load_profile
from models.protocols import CutMasks, FoundBoxes
from storage.class_sets import load_benchmark


class OneBoxPerPhrase:
    """Finds the phrases it was given scores for, all of them in the left half."""

    def __init__(self, found: Sequence[tuple[int, float]]) -> None:
        self.found = found

    def detect(
        self, images: Sequence[np.ndarray], phrases: Sequence[tuple[str, ...]]
    ) -> list[FoundBoxes]:
        boxes = np.tile(np.array([[0, 0, 4, 8]], np.float32), (len(self.found), 1))
        scores = np.array([score for _, score in self.found], np.float32)
        indices = np.array([phrase for phrase, _ in self.found], dtype=np.int64)
        return [FoundBoxes(boxes, scores, indices, np.zeros(len(phrases[0]), np.float32))]


class BoxFiller:
    """Cuts the box itself."""

    def segment(self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> list[CutMasks]:
        masks = np.zeros((len(boxes[0]), *images[0].shape[:2]), dtype=bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes[0].astype(int), strict=True):
            mask[top:bottom, left:right] = True
        return [CutMasks(masks, np.ones(len(masks), np.float32))]


@pytest.mark.parametrize(
    ("found", "winner", "score"),
    [
        ([(2, 0.4), (0, 0.9)], 0, 0.9),
        ([(1, 0.7), (2, 0.7)], 1, 0.7),
        ([(2, 0.7), (1, 0.7)], 1, 0.7),
    ],
)
def test_the_better_box_wins_where_masks_overlap(
    found: list[tuple[int, float]], winner: int, score: float
) -> None:
    baseline = DetectedSegments(
        Grounded(OneBoxPerPhrase(found), BoxFiller()), ("cat", "dog", "bus")
    )
    scores = baseline.predict(np.zeros((8, 8, 3), np.uint8))
    assert (scores.index[:, :4] == winner).all()
    assert scores.best[:, :4] == pytest.approx(score)
    assert (scores.best[:, 4:] == 0).all()


class Echo:
    """Finds every phrase it is asked for in the columns that its own list gives, and notes both."""

    def __init__(self, columns: dict[str, tuple[int, int, float]]) -> None:
        self.columns = columns
        self.asked: list[tuple[str, ...]] = []

    def detect(
        self, images: Sequence[np.ndarray], phrases: Sequence[tuple[str, ...]]
    ) -> list[FoundBoxes]:
        [own] = phrases
        self.asked.append(own)
        known = [(i, self.columns[name]) for i, name in enumerate(own) if name in self.columns]
        boxes = [[left, 0, right, 8] for _, (left, right, _) in known]
        return [
            FoundBoxes(
                np.array(boxes, np.float32).reshape(-1, 4),
                np.array([score for _, (_, _, score) in known], np.float32),
                np.array([i for i, _ in known], dtype=np.int64),
                np.zeros(len(own), np.float32),
            )
        ]


def test_the_baseline_asks_for_the_candidates_and_answers_in_places_of_the_whole_set() -> None:
    detector = Echo({"dog": (0, 4, 0.5), "bus": (2, 8, 0.8), "cat": (0, 8, 0.9)})
    baseline = DetectedSegments(Grounded(detector, BoxFiller()), ("cat", "dog", "owl", "bus"))
    image = np.zeros((8, 8, 3), np.uint8)
    found = baseline.predict(image, (3, 1, 2))
    assert detector.asked == [("dog", "owl", "bus")]
    assert (found.index[:, :2] == 1).all()
    assert (found.index[:, 2:] == 3).all()
    [scores] = baseline.class_scores(image, (1, 2, 3))
    assert scores.class_ids == (1, 2, 3)
    expected = torch.zeros(3, 8, 8)
    expected[0, :, :4], expected[2, :, 2:] = 0.5, 0.8
    torch.testing.assert_close(scores.scores, expected)
    nothing = baseline.predict(image, ())
    assert (nothing.index == -1).all()
    assert list(baseline.class_scores(image, ())) == []


def test_the_baseline_scores_more_classes_than_a_chunk() -> None:
    names = tuple(f"thing {i}" for i in range(21))
    detector = Echo({"thing 3": (0, 4, 0.5), "thing 20": (2, 8, 0.8)})
    baseline = DetectedSegments(Grounded(detector, BoxFiller()), names)
    chunks = list(baseline.class_scores(np.zeros((8, 8, 3), np.uint8)))
    assert [i for chunk in chunks for i in chunk.class_ids] == list(range(21))
    maps = torch.cat([chunk.scores for chunk in chunks])
    assert maps.amax(dim=(1, 2)).nonzero().flatten().tolist() == [3, 20]
    assert float(maps[20, 0, 2]) == pytest.approx(0.8)


def test_the_baseline_finds_nothing_where_the_detector_finds_nothing() -> None:
    baseline = DetectedSegments(Grounded(OneBoxPerPhrase([]), BoxFiller()), ("cat",))
    assert (baseline.predict(np.zeros((8, 8, 3), np.uint8)).best == 0).all()


def test_a_class_set_beyond_one_caption_of_the_detector_is_scored() -> None:
    profile = load_profile("miniature")
    names = [own[0] for own in load_benchmark("miniature").phrases]
    others = [own[0] for own in load_benchmark("lvis").phrases if own[0] not in names][:60]
    phrases = (*others[:30], *names, *others[30:])
    baseline = DetectedSegments(
        Grounded(GroundingDino(profile.labeller.detector), Sam(profile.labeller.segmenter)), phrases
    )
    scene = sample_scene(np.random.default_rng(4))
    truth, wanted = masks(scene)[0], 30 + scene.things[0].class_id
    for candidates in (None, (3, wanted, 70)):
        found = baseline.predict(render(scene), candidates)
        hit = (found.index == wanted) & (found.best > 0)
        assert (hit & truth).sum() > 0.8 * (hit | truth).sum()
