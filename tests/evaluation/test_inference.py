"""Windows, chunks, background rules, and the detector-segmenter baseline."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from evaluation.inference import (
    Background,
    DetectedSegments,
    InferenceConfig,
    ScoreMap,
    StudentPredictor,
    TextRows,
    apply_background,
)
from models.protocols import CutMasks, FoundBoxes
from models.zegclip import StudentConfig, ZegClip


class LinearStudent:
    """Averages each patch's colour and projects it: a student whose answers can be computed."""

    patch_size = 4

    def __init__(self, num_classes: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.text = 3 * torch.randn(num_classes, 3, generator=generator)
        self.batches: list[tuple[int, ...]] = []

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels / 255.0 - 0.45) / 0.27

    def encode(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.batches.append(tuple(image.shape))
        return F.avg_pool2d(image, self.patch_size), image.mean(dim=(2, 3))

    def scores(self, patches: torch.Tensor, cls: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return torch.einsum("behw,ce->bchw", patches - 0.1 * cls[..., None, None], text)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 5, 5)).astype(np.float32))
    smooth = F.interpolate(coarse, (height, width), mode="bilinear")[0]
    return smooth.permute(1, 2, 0).byte().numpy()


def predict(student: LinearStudent, image: np.ndarray, **options: object) -> ScoreMap:
    config = InferenceConfig.model_validate(options)
    return StudentPredictor(student, TextRows.one_each(student.text), config).predict(image)


def as_batch(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def upsampled(student: LinearStudent, shown: torch.Tensor) -> torch.Tensor:
    low = student.scores(*student.encode(student.normalise(shown)), student.text)
    return F.interpolate(low, shown.shape[2:], mode="bilinear", align_corners=False)


def test_a_whole_image_is_scored_as_the_plain_formula_says() -> None:
    student, image = LinearStudent(7), picture(32, 48)
    found = predict(student, image, window=None, short_side=32)
    expected = upsampled(student, as_batch(image)).sigmoid()[0]
    np.testing.assert_array_equal(found.index, expected.argmax(dim=0).numpy())
    np.testing.assert_allclose(found.best, expected.amax(dim=0).numpy(), rtol=1e-6)


def test_overlapping_windows_are_averaged_and_resized_to_the_original() -> None:
    student, image = LinearStudent(5), picture(40, 27)
    found = predict(student, image, window=32, stride=20, short_side=32)
    shown = F.interpolate(as_batch(image), (47, 32), mode="bilinear", antialias=True)
    total, count = torch.zeros(5, 47, 32), torch.zeros(47, 32)
    for row in (0, 15):
        total[:, row : row + 32] += upsampled(student, shown[:, :, row : row + 32]).sigmoid()[0]
        count[row : row + 32] += 1
    expected = F.interpolate((total / count)[None], (40, 27), mode="bilinear")[0]
    np.testing.assert_allclose(found.best, expected.amax(dim=0).numpy(), rtol=1e-5)
    np.testing.assert_array_equal(found.index, expected.argmax(dim=0).numpy())


@pytest.mark.parametrize("rule", [Background.RAW, Background.SOFTMAX])
def test_chunks_of_classes_change_nothing(rule: Background) -> None:
    student, image = LinearStudent(50), picture(60, 40)
    options = {"window": 32, "stride": 16, "short_side": 40, "background": rule}
    whole = predict(student, image, class_chunk=50, **options)
    for chunk in (1, 7, 49):
        chunked = predict(student, image, class_chunk=chunk, **options)
        np.testing.assert_allclose(chunked.best, whole.best, rtol=1e-5)
        np.testing.assert_array_equal(chunked.index, whole.index)


@pytest.mark.parametrize("chunk", [1, 2, 6])
def test_the_lowest_of_equal_classes_wins(chunk: int) -> None:
    student = LinearStudent(6)
    student.text = student.text[:2].repeat(3, 1)
    found = predict(student, picture(16, 16), window=None, short_side=16, class_chunk=chunk)
    assert set(np.unique(found.index)) == {0, 1}


def test_the_softmax_rule_gives_probabilities_among_all_classes() -> None:
    student, image = LinearStudent(9), picture(16, 16)
    found = predict(
        student, image, window=None, short_side=16, background="softmax", softmax_scale=2.5
    )
    expected = (2.5 * upsampled(student, as_batch(image))).softmax(dim=1)[0].amax(dim=0)
    np.testing.assert_allclose(found.best, expected.numpy(), rtol=1e-5)


def test_no_batch_holds_more_windows_than_asked_for() -> None:
    student = LinearStudent(3)
    predict(student, picture(64, 64), window=16, stride=16, short_side=64, batch_size=5)
    assert [shape[0] for shape in student.batches] == [5, 5, 5, 1]
    assert {shape[1:] for shape in student.batches} == {(3, 16, 16)}


@pytest.mark.parametrize("size", [(32, 32), (100, 33), (33, 100), (7, 200), (200, 7)])
def test_any_shape_of_image_gives_a_map_of_its_own_size(size: tuple[int, int]) -> None:
    for window in (None, 32):
        found = predict(LinearStudent(4), picture(*size), window=window, stride=20, short_side=32)
        assert found.best.shape == found.index.shape == size
        assert np.isfinite(found.best).all()


def test_a_stride_that_leaves_gaps_is_refused() -> None:
    with pytest.raises(ValidationError, match="stride 65 is larger than window 64"):
        InferenceConfig(window=64, stride=65)


def test_the_background_rules_at_their_threshold() -> None:
    scores = ScoreMap(
        np.array([[0.2, 0.5, 0.8]], np.float32), np.array([[3, 1, 0]], dtype=np.int32)
    )
    for rule, expected in (
        (Background.RAW, [0, 2, 1]),
        (Background.SOFTMAX, [0, 2, 1]),
        (Background.CONSTANT, [0, 0, 1]),
        (Background.NONE, [4, 2, 1]),
    ):
        labels = apply_background(scores, rule, 0.5, background=True)
        assert labels.tolist() == [expected]
    labels = apply_background(scores, Background.RAW, 0.5, background=False)
    assert labels.tolist() == [[3, 1, 0]]


def test_the_real_student_is_scored_as_its_forward_pass_says() -> None:
    torch.manual_seed(0)
    tower = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=64,
        patch_size=16,
        projection_dim=24,
    )
    config = StudentConfig(clip="made here", image_size=64, decoder_heads=2)
    student = ZegClip(CLIPVisionModelWithProjection(tower), config).eval()
    text = F.normalize(torch.randn(5, 24), dim=-1)
    image = picture(64, 96)
    options = InferenceConfig(short_side=64, window=None, class_chunk=2)
    found = StudentPredictor(student, TextRows.one_each(text), options).predict(image)
    with torch.no_grad():
        expected = student(student.normalise(as_batch(image)), text).sigmoid()[0]
    np.testing.assert_allclose(found.best, expected.amax(dim=0).numpy(), rtol=1e-5)
    np.testing.assert_array_equal(found.index, expected.argmax(dim=0).numpy())


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
    baseline = DetectedSegments(OneBoxPerPhrase(found), BoxFiller(), ("cat", "dog", "bus"))
    scores = baseline.predict(np.zeros((8, 8, 3), np.uint8))
    assert (scores.index[:, :4] == winner).all()
    assert scores.best[:, :4] == pytest.approx(score)
    assert (scores.best[:, 4:] == 0).all()


def test_the_baseline_finds_nothing_where_the_detector_finds_nothing() -> None:
    baseline = DetectedSegments(OneBoxPerPhrase([]), BoxFiller(), ("cat",))
    assert (baseline.predict(np.zeros((8, 8, 3), np.uint8)).best == 0).all()
