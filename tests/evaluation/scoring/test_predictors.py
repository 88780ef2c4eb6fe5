"""Windows, chunks, and background rules."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from evaluation.scoring.background import ScoreMap, apply_background, confidence
from evaluation.scoring.config import Background, InferenceConfig, Overlap
from evaluation.scoring.metrics import Confusion, ThresholdSweep
from evaluation.scoring.predictors import StudentPredictor, TextRows
from models.student.config import StudentConfig
from models.student.zegclip import ZegClip
from storage.errors import InputError


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


def predictor_of(
    student: LinearStudent, owners: tuple[int, ...] | None = None, **options: object
) -> StudentPredictor:
    config = InferenceConfig.model_validate(options)
    rows = TextRows.one_each(student.text) if owners is None else TextRows(student.text, owners)
    return StudentPredictor(student, rows, config)


def predict(student: LinearStudent, image: np.ndarray, **options: object) -> ScoreMap:
    return predictor_of(student, None, **options).predict(image)


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


@pytest.mark.parametrize("rule", [Background.RAW, Background.SOFTMAX, Background.GROUPVIT])
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


def test_logits_are_averaged_before_they_become_probabilities() -> None:
    student, image = LinearStudent(5), picture(40, 27)
    options = {"window": 32, "stride": 20, "short_side": 32, "softmax_scale": 3.0}
    found = predict(student, image, background="softmax", overlap="logits", **options)
    shown = F.interpolate(as_batch(image), (47, 32), mode="bilinear", antialias=True)
    total, count = torch.zeros(5, 47, 32), torch.zeros(47, 32)
    for row in (0, 15):
        total[:, row : row + 32] += upsampled(student, shown[:, :, row : row + 32])[0]
        count[row : row + 32] += 1
    logits = F.interpolate((total / count)[None], (40, 27), mode="bilinear")[0]
    expected = (3 * logits).softmax(dim=0)
    np.testing.assert_allclose(found.best, expected.amax(dim=0).numpy(), rtol=1e-5)
    np.testing.assert_array_equal(found.index, expected.argmax(dim=0).numpy())
    averaged = predict(student, image, background="softmax", **options)
    assert not np.allclose(found.best, averaged.best, rtol=1e-3)


@pytest.mark.parametrize("chunk", [1, 3, 9])
def test_a_class_with_several_rows_takes_the_best_and_a_background_word_takes_its_pixels(
    chunk: int,
) -> None:
    student, image = LinearStudent(6), picture(16, 16)
    owners = (-1, -1, 0, 0, 2, 3)
    options = {"window": None, "short_side": 16, "background": "words", "softmax_scale": 2.0}
    found = predictor_of(student, owners, class_chunk=chunk, **options).predict(image)
    rows = (2 * upsampled(student, as_batch(image))).softmax(dim=1)[0]
    background, first = rows[:2].amax(dim=0), rows[2:4].amax(dim=0)
    expected = torch.stack([background, first, rows[4], rows[5]])
    np.testing.assert_allclose(found.best, expected.amax(dim=0).numpy(), rtol=1e-5)
    index = np.array([-1, 0, 2, 3])[expected.argmax(dim=0).numpy()]
    np.testing.assert_array_equal(found.index, index)
    assert set(np.unique(found.index)) >= {-1, 2}
    labels = apply_background(found, Background.WORDS, 0.4, background=True)
    expected_labels = np.where(found.best >= np.float32(0.4), index + 1, 0)
    np.testing.assert_array_equal(labels, expected_labels)
    assert (labels == 0).sum() > (index == -1).sum() > 0


@pytest.mark.parametrize("chunk", [2, 9])
def test_the_groupvit_rule_multiplies_two_probabilities_of_the_five_nearest(chunk: int) -> None:
    student, image = LinearStudent(9), picture(16, 16)
    options = {"window": None, "short_side": 16, "background": "groupvit", "softmax_scale": 2.0}
    found = predict(student, image, class_chunk=chunk, **options)
    shown = student.normalise(as_batch(image))
    logits = 2 * upsampled(student, as_batch(image))[0]
    near = (student.text @ shown.mean(dim=(2, 3))[0]).topk(5).indices
    expected = torch.zeros_like(logits)
    expected[near] = logits[near].softmax(dim=0) * logits.softmax(dim=0)[near]
    np.testing.assert_allclose(found.best, expected.amax(dim=0).numpy(), rtol=1e-5)
    np.testing.assert_array_equal(found.index, expected.argmax(dim=0).numpy())


def test_the_groupvit_rule_leaves_the_best_pixel_of_an_image_in_the_foreground() -> None:
    scores = ScoreMap(np.array([[0.2, 0.4, 0.4, 0.1]], np.float32), np.array([[3, 1, 0, 2]], "i4"))
    labels = apply_background(scores, Background.GROUPVIT, 0.95, background=True)
    assert labels.tolist() == [[0, 2, 1, 0]]
    labels = apply_background(scores, Background.GROUPVIT, 0.15, background=True)
    assert labels.tolist() == [[4, 2, 1, 0]]


def test_the_groupvit_rule_cannot_average_logits() -> None:
    with pytest.raises(ValidationError, match="background groupvit came with overlap logits"):
        InferenceConfig(background=Background.GROUPVIT, overlap=Overlap.LOGITS)


@pytest.mark.parametrize("rule", [Background.RAW, Background.SOFTMAX])
def test_candidates_are_scored_as_if_there_were_no_other_class(rule: Background) -> None:
    student, image = LinearStudent(9), picture(24, 16)
    options = {"window": 16, "stride": 8, "short_side": 16, "background": rule}
    found = predictor_of(student, **options).predict(image, (7, 2, 4))
    alone = LinearStudent(9)
    alone.text = student.text[[2, 4, 7]]
    expected = predict(alone, image, **options)
    np.testing.assert_array_equal(found.index, np.array([2, 4, 7])[expected.index])
    np.testing.assert_array_equal(found.best, expected.best)


def test_without_a_candidate_all_is_background() -> None:
    found = predictor_of(LinearStudent(3), window=None, short_side=16).predict(picture(16, 16), ())
    assert (found.index == -1).all()
    for rule in Background:
        assert (apply_background(found, rule, 0.0, background=True) == 0).all()
        assert (confidence(found, rule) < 0).all()


@pytest.mark.parametrize("rule", [each for each in Background if each is not Background.NONE])
def test_the_curve_has_the_score_at_each_threshold(rule: Background) -> None:
    rng = np.random.default_rng(1)
    index = rng.integers(-1, 4, (9, 9)).astype(np.int32)
    scores = ScoreMap(rng.choice(np.array([0.1, 0.3, 0.5, 0.7], np.float32), (9, 9)), index)
    truth = rng.integers(0, 5, (9, 9)).astype(np.uint16)
    thresholds = (0.1, 0.3, 0.5, 0.9)
    sweep = ThresholdSweep(5, thresholds, strict=rule is Background.CONSTANT)
    sweep.update(truth, confidence(scores, rule), scores.index + 1)
    for threshold, summary in zip(thresholds, sweep.summaries(), strict=True):
        confusion = Confusion(5)
        confusion.update(truth, apply_background(scores, rule, threshold, background=True))
        assert summary.miou == confusion.summary().miou
        assert summary.pixel_accuracy == confusion.summary().pixel_accuracy


@pytest.mark.parametrize("candidates", [None, (1, 3, 6)])
@pytest.mark.parametrize("rule", ["raw", "softmax", "words", "groupvit"])
def test_the_scores_of_the_classes_have_the_best_score_as_their_maximum(
    rule: str, candidates: tuple[int, ...] | None
) -> None:
    student, image = LinearStudent(9), picture(40, 27)
    owners = (-1, 0, 1, 1, 1, 3, 4, 5, 6) if rule == "words" else None
    options = {"window": 32, "stride": 20, "short_side": 32, "background": rule}
    predictor = predictor_of(student, owners, class_chunk=2, **options)
    chunks = list(predictor.class_scores(image, candidates))
    ids = [class_id for chunk in chunks for class_id in chunk.class_ids]
    expected = candidates or tuple(sorted(set(owners or range(9)) - {-1}))
    assert tuple(ids) == expected
    maps = torch.cat([chunk.scores for chunk in chunks])
    assert maps.shape == (len(ids), 40, 27)
    assert 0 <= float(maps.min()) <= float(maps.max()) <= 1
    found = predictor.predict(image, candidates)
    foreground = found.index >= 0
    best = maps.amax(dim=0).numpy()
    np.testing.assert_array_equal(best[foreground], found.best[foreground])
    assert (best[~foreground] <= found.best[~foreground]).all()
    assert all(len(chunk.class_ids) <= 2 for chunk in chunks)


@pytest.mark.parametrize("rule", ["raw", "softmax", "words", "groupvit"])
def test_who_watches_is_told_every_class_once_and_changes_nothing(rule: str) -> None:
    student, image = LinearStudent(9), picture(40, 27)
    owners = (-1, 0, 1, 1, 1, 3, 4, 5, 6) if rule == "words" else None
    options = {"window": 32, "stride": 20, "short_side": 32, "background": rule}
    predictor = predictor_of(student, owners, class_chunk=2, **options)
    told: dict[int, torch.Tensor] = {}
    found = predictor.predict(image, watch=lambda owner, scores: told.update({owner: scores}))
    expected = predictor.predict(image)
    np.testing.assert_array_equal(found.index, expected.index)
    np.testing.assert_array_equal(found.best, expected.best)
    for chunk in predictor.class_scores(image):
        for class_id, scores in zip(chunk.class_ids, chunk.scores, strict=True):
            torch.testing.assert_close(told.pop(class_id), scores, rtol=0, atol=0)
    assert not told


def test_an_image_that_windows_would_blow_up_is_refused() -> None:
    thin = np.zeros((1, 200_000, 3), np.uint8)
    with pytest.raises(InputError, match="200000 x 1 pixels would be shown at 102400000 x 512"):
        predict(LinearStudent(2), thin, window=512)
    assert predict(LinearStudent(2), thin, window=None, long_side=64).index.shape == (1, 200_000)


def test_rows_that_do_not_fit_their_owners_are_refused() -> None:
    with pytest.raises(ValueError, match="3 rows came with 2 owners"):
        TextRows(torch.zeros(3, 4), (0, 1))
    with pytest.raises(ValueError, match="owners must ascend"):
        TextRows(torch.zeros(3, 4), (0, 2, 1))


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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("rule", list(Background))
def test_logits_that_are_not_finite_are_no_answer(rule: Background, value: float) -> None:
    """One class of six is enough, whether or not it would have won anywhere."""
    student = LinearStudent(6)
    student.text[4, 1] = value
    options = {"window": None, "short_side": 16, "background": rule, "class_chunk": 2}
    predictor = predictor_of(student, None, **options)
    with pytest.raises(InputError, match="the network's logits for an image are not finite"):
        predictor.predict(picture(16, 16))
    with pytest.raises(InputError, match="not finite"):
        list(predictor.class_scores(picture(16, 16)))
    # Without the class there is nothing wrong.
    if rule is not Background.GROUPVIT:
        assert np.isfinite(predictor.predict(picture(16, 16), (0, 1, 2, 3, 5)).best).all()
