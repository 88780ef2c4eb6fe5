import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fakes import UNSAFE_WORD, FakeDetector, FakeInpainter, FakePainter
from models.protocols import ImageRequest, PaintedImage
from storage.codecs import encode_rle
from storage.records import Instance, MaskSample, Reason, Stage
from storage.vocabulary import load_vocabulary
from tasks.checks import check_twins
from tasks.regions import blend, soft_region
from tasks.rules import DetectionRules, PairRules, TwinRules
from tasks.twins import PaintedScene, Twin, paint_over

VOCABULARY = load_vocabulary("miniature")
CLASSES = {"k": (0,)}
RULES = TwinRules(way="inpaint", grow=0.1, feather=0.05)


def objects_at(*places, size=32):
    mask = np.zeros((size, size), np.bool_)
    for rows, columns in places:
        mask[rows, columns] = True
    return mask


def scene_of(mask, text="nothing here", seed=5):
    name = VOCABULARY[0].name
    [painted] = FakePainter(VOCABULARY).paint_images([ImageRequest(f"a {name}", seed)])
    instance = Instance(
        class_id=0,
        score=0.9,
        predicted_iou=0.9,
        xyxy=(0, 0, 32, 32),
        area=int(mask.sum()),
        rle=encode_rle(mask),
    )
    masks = MaskSample(key="k", width=32, height=32, instances=(instance,))
    return PaintedScene("k", painted.image, masks, text, seed)


def whole_object():
    scene = scene_of(objects_at((slice(0, 1), slice(0, 1))))
    return scene.image.max(axis=2) != scene.image.min(axis=2)


class Flat:
    """Paints one grey level."""

    def __init__(self, level=200, **flags):
        self.level, self.flags = level, {"unsafe": False, **flags}

    def inpaint(self, requests):
        return [
            PaintedImage(np.full_like(request.image, self.level), **self.flags)
            for request in requests
        ]


@given(
    grow=st.integers(0, 12),
    data=st.data(),
    top=st.integers(0, 30),
    left=st.integers(0, 30),
)
def test_a_region_covers_its_object_fades_at_its_edge_and_ends(grow, data, top, left):
    feather = data.draw(st.integers(0, grow))
    mask = objects_at((slice(top, top + 2), slice(left, left + 2)))
    weights = soft_region(mask, grow, feather)
    rows, columns = np.nonzero(mask)
    y, x = np.mgrid[:32, :32]
    distance = np.sqrt((y[..., None] - rows) ** 2 + (x[..., None] - columns) ** 2).min(axis=2)
    assert (weights[mask] == 1).all()
    assert (weights[distance <= grow - feather] == 1).all()
    assert (weights[distance <= grow] > 0).all()
    assert (weights[distance >= grow + 1] == 0).all()


@given(st.integers(0, 2**32 - 1))
def test_where_nothing_is_laid_over_an_image_keeps_every_bit(seed):
    rng = np.random.default_rng(seed)
    image, painted = rng.integers(0, 256, (2, 9, 7, 3), dtype=np.uint8)
    weights = rng.choice(np.float32([0, 0.3, 1]), (9, 7))
    laid = blend(image, painted, weights)
    assert np.array_equal(laid[weights == 0], image[weights == 0])
    assert np.array_equal(laid[weights == 1], painted[weights == 1])


def test_outside_the_region_a_twin_is_the_image_and_nothing_is_left_of_the_object():
    mask = whole_object()
    scene = scene_of(mask)
    [twin] = paint_over([scene], FakeInpainter(), RULES, PairRules())
    weights = soft_region(mask, 3, 2)
    assert np.array_equal(twin.picture[weights == 0], scene.image[weights == 0])
    assert (twin.picture[mask].max(axis=1) == twin.picture[mask].min(axis=1)).all(), "grey"
    [found] = FakeDetector().detect([twin.picture], [(VOCABULARY[0].detector_phrase,)])
    assert not len(found.phrases)


def test_the_inpainter_is_told_the_region_the_text_and_the_seed():
    told = []

    class Listening(Flat):
        def inpaint(self, requests):
            told.extend(requests)
            return super().inpaint(requests)

    scene = scene_of(objects_at((slice(10, 12), slice(10, 12))))
    paint_over([scene], Listening(), RULES, PairRules())
    [request] = told
    assert (request.text, request.seed) == ("nothing here", 5)
    assert np.array_equal(request.image, scene.image)
    assert request.region.sum() > 4


@pytest.mark.parametrize(
    ("painter", "reason"),
    [
        (Flat(finite=False), Reason.NOT_FINITE),
        (Flat(unsafe=True), Reason.UNSAFE),
        (Flat(), Reason.BLANK_IMAGE),
    ],
)
def test_a_twin_has_to_pass_what_other_pictures_have_to(painter, reason):
    everything = objects_at((slice(0, 32), slice(0, 32)))
    [lost] = paint_over([scene_of(everything)], painter, RULES, PairRules())
    assert (lost.stage, lost.reason) == (Stage.TWINS, reason)
    if reason is Reason.NOT_FINITE:
        assert "the inpainter's dtype" in lost.detail


def test_an_unsafe_word_is_flagged_by_the_fake_too():
    scene = scene_of(whole_object(), text=f"an {UNSAFE_WORD} place")
    [lost] = paint_over([scene], FakeInpainter(), RULES, PairRules())
    assert lost.reason is Reason.UNSAFE


def test_a_soft_edge_that_would_show_the_object_is_refused():
    with pytest.raises(ValidationError, match=r"feather is 0\.1, expected at most grow, which is"):
        TwinRules(grow=0.05, feather=0.1)


def test_a_class_in_a_twin_is_a_reason_or_recorded():
    still = Twin("k", scene_of(whole_object()).image)
    [lost] = check_twins([still], CLASSES, VOCABULARY, FakeDetector(), DetectionRules())
    assert (lost.stage, lost.reason) == (Stage.CHECKS, Reason.CLASS_IN_COUNTERFACTUAL)
    assert VOCABULARY[0].detector_phrase in lost.detail
    rules = DetectionRules(counterfactual="record")
    [kept] = check_twins([still], CLASSES, VOCABULARY, FakeDetector(), rules)
    assert [box.class_id for box in kept.counterfactual_boxes] == [0]


def test_a_twin_without_a_class_passes():
    [twin] = paint_over([scene_of(whole_object())], FakeInpainter(), RULES, PairRules())
    [kept] = check_twins([twin], CLASSES, VOCABULARY, FakeDetector(), DetectionRules())
    assert kept.counterfactual_boxes == ()
