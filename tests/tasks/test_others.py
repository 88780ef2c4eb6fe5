import dataclasses

import numpy as np
import pytest
from pydantic import ValidationError

from fakes import FakeDetector, FakeLabeller, FakePainter, FakeScout, FakeSegmenter
from models.protocols import CutMasks, FoundBoxes, ImageRequest
from storage.codecs import decode_rle, encode_rle
from storage.records import IGNORE_LABEL, Instance, MaskSample, Others, Reason, Stage
from storage.vocabulary import load_vocabulary
from tasks.other_finder import OtherFinder
from tasks.others import SearchedScene, find_others, lay_others
from tasks.rules import OtherRules

VOCABULARY = load_vocabulary("miniature")
NAMES = [record.name for record in VOCABULARY]
RULES = OtherRules(way="ignore", nearest=2)


def instance_of(class_id, mask, score=0.9):
    return Instance(
        class_id=class_id,
        score=score,
        predicted_iou=0.9,
        xyxy=(0, 0, 32, 32),
        area=int(mask.sum()),
        rle=encode_rle(mask),
    )


def scene_of(own, *hidden, text="", seed=3, key="k"):
    """A painted scene whose first object is known, and what the painter was told."""
    shown = " and ".join(f"a {NAMES[each]}" for each in (own, *hidden))
    [painted] = FakePainter(VOCABULARY).paint_images([ImageRequest(shown, seed)])
    phrase = VOCABULARY[own].detector_phrase
    [found] = FakeDetector().detect([painted.image], [(phrase,)])
    [cut] = FakeSegmenter().segment([painted.image], [found.xyxy])
    masks = MaskSample(key=key, width=32, height=32, instances=(instance_of(own, cut.masks[0]),))
    return SearchedScene(key, painted.image, text, (own,), masks)


def finder(**parts):
    usual = {"detector": FakeDetector(), "segmenter": FakeSegmenter(), "scout": FakeScout()}
    return OtherFinder(VOCABULARY, **(usual | parts))


class Recording(FakeDetector):
    def __init__(self):
        self.asked = []

    def detect(self, images, phrases):
        self.asked += phrases
        return super().detect(images, phrases)


class Saying:
    """A detector that says what it is told: (phrase, score, box) of each image."""

    def __init__(self, *said, finite=True):
        self.said, self.finite = said, finite

    def detect(self, images, phrases):
        found = []
        for own in phrases:
            rows = [(own.index(name), score, box) for name, score, box in self.said if name in own]
            found.append(
                FoundBoxes(
                    np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
                    np.array([row[1] for row in rows], np.float32),
                    np.array([row[0] for row in rows], np.int64),
                    np.zeros(len(own), np.float32),
                    finite=self.finite,
                )
            )
        return found


class Boxes:
    """Cuts whole boxes."""

    def segment(self, images, boxes):
        cuts = []
        for image, own in zip(images, boxes, strict=True):
            masks = np.zeros((len(own), *image.shape[:2]), np.bool_)
            for mask, (left, top, right, bottom) in zip(masks, own.astype(int), strict=True):
                mask[top:bottom, left:right] = True
            cuts.append(CutMasks(masks, np.ones(len(own), np.float32)))
        return cuts


def plain_scene(own_mask, own=0):
    image = np.full((32, 32, 3), 99, np.uint8)
    masks = MaskSample(key="k", width=32, height=32, instances=(instance_of(own, own_mask),))
    return SearchedScene("k", image, "", (own,), masks)


def box_mask(left, top, right, bottom):
    mask = np.zeros((32, 32), np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def test_an_object_that_nobody_asked_for_is_found_with_box_and_mask():
    [found] = find_others([scene_of(0, 6)], finder(), RULES)
    [other] = found.instances
    assert found.class_ids == (6,)
    assert other.score == 0.9
    mask = decode_rle(other.rle, 32, 32)
    rows, columns = np.nonzero(mask)
    assert other.xyxy == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert other.area == mask.sum()
    assert not (mask & scene_of(0, 6).own).any()


def test_where_nothing_is_hidden_nothing_is_found():
    [found] = find_others([scene_of(0)], finder(), RULES)
    assert isinstance(found, Others)
    assert found.instances == ()
    assert len(found.asked) == RULES.nearest


def test_what_is_asked_for_is_what_the_text_names_and_what_the_image_is_most_like():
    detector = Recording()
    scene = scene_of(0, 6, text=f"a {NAMES[0]}, and two {NAMES[7]}s on {NAMES[0]}s")
    [found] = find_others([scene], finder(detector=detector), RULES)
    # 6 is seen; of the others, none of which is like anything, the first comes first
    assert found.asked == (1, 6, 7)
    own_first = [VOCABULARY[each].detector_phrase for each in (0, 1, 6, 7)]
    assert detector.asked == [tuple(own_first)]


@pytest.mark.parametrize(
    ("rules", "asked"),
    [
        (OtherRules(way="ignore", nearest=0), (7,)),
        (OtherRules(way="ignore", nearest=1, mentioned=False), (6,)),
        (OtherRules(way="ignore", nearest=99), tuple(range(1, 14))),
    ],
)
def test_either_source_of_candidates_may_be_left_out(rules, asked):
    scene = scene_of(0, 6, text=f"a {NAMES[0]} and a {NAMES[7]}")
    scout = FakeScout() if rules.nearest else None
    [found] = find_others([scene], finder(scout=scout), rules)
    assert found.asked == asked


def test_with_nothing_to_ask_for_no_network_is_asked():
    class Never:
        def detect(self, images, phrases):
            assert not images
            return []

        def segment(self, images, boxes):
            raise AssertionError

    rules = OtherRules(way="ignore", nearest=0)
    only = finder(detector=Never(), segmenter=Never(), scout=None)
    [found] = find_others([scene_of(0, text=f"a {NAMES[0]}")], only, rules)
    assert (found.asked, found.instances) == ((), ())


def test_images_in_which_nothing_is_found_are_not_given_to_the_segmenter():
    seen = []

    class Watching(FakeSegmenter):
        def segment(self, images, boxes):
            seen.extend(images)
            return super().segment(images, boxes)

    scenes = [scene_of(0, key="a"), scene_of(0, 6, key="b"), scene_of(2, key="c")]
    found = find_others(scenes, finder(segmenter=Watching()), RULES)
    assert [each.class_ids for each in found] == [(), (6,), ()]
    assert len(seen) == 1
    assert np.array_equal(seen[0], scenes[1].image)


def test_one_network_that_finds_and_cuts_gives_the_same():
    scenes = [scene_of(0, 6, key="a"), scene_of(2, key="b"), scene_of(5, 1, key="c")]
    one = find_others(scenes, finder(detector=FakeLabeller(), segmenter=None), RULES)
    assert one == find_others(scenes, finder(), RULES)


def test_company_and_order_change_nothing():
    scenes = [scene_of(each, (each + 3) % 14, key=str(each), seed=each) for each in range(8)]
    together = find_others(scenes, finder(), RULES)
    alone = [find_others([scene], finder(), RULES)[0] for scene in scenes]
    turned = find_others(scenes[::-1], finder(), RULES)[::-1]
    assert together == alone == turned
    assert all(each.instances for each in together)
    assert find_others([], finder(), RULES) == []


@pytest.mark.parametrize(
    ("box", "score", "passes"),
    [
        ((16, 0, 32, 16), 0.4, True),
        ((16, 0, 32, 16), 0.3, False),  # min_score 0.35
        ((8, 0, 24, 16), 0.4, True),  # half of it lies on the own object: max_overlap 0.5
        ((7, 0, 23, 16), 0.4, False),
        ((20, 20, 22, 21), 0.4, False),  # 2 of 1024 pixels: min_area 0.002
        ((20, 20, 23, 21), 0.4, True),
        ((0, 0, 32, 32), 0.4, True),  # 768 of 1024 pixels are free
    ],
)
def test_what_counts_of_what_is_found(box, score, passes):
    scene = plain_scene(box_mask(0, 0, 16, 16))
    said = Saying((VOCABULARY[4].detector_phrase, score, box))
    rules = OtherRules(way="ignore", nearest=13)
    [found] = find_others([scene], finder(detector=said, segmenter=Boxes()), rules)
    assert bool(found.instances) is passes


def test_a_mask_of_everything_is_none_of_an_object():
    scene = plain_scene(box_mask(0, 0, 2, 2))
    said = Saying((VOCABULARY[4].detector_phrase, 0.9, (0, 0, 32, 32)))
    rules = OtherRules(way="ignore", nearest=13)
    [found] = find_others([scene], finder(detector=said, segmenter=Boxes()), rules)
    assert found.instances == ()


def test_own_objects_are_no_others_and_the_best_comes_first():
    scene = plain_scene(box_mask(0, 0, 8, 8))
    said = Saying(
        (VOCABULARY[0].detector_phrase, 0.9, (0, 0, 8, 8)),
        (VOCABULARY[4].detector_phrase, 0.5, (20, 0, 30, 8)),
        (VOCABULARY[9].detector_phrase, 0.7, (20, 20, 30, 28)),
    )
    rules = OtherRules(way="ignore", nearest=13)
    [found] = find_others([scene], finder(detector=said, segmenter=Boxes()), rules)
    assert [each.class_id for each in found.instances] == [9, 4]
    assert found.class_ids == (4, 9)


def test_a_class_that_shares_its_phrase_with_an_own_one_is_no_other():
    lvis = load_vocabulary("lvis1205")
    shared = [each.class_id for each in lvis if each.detector_phrase == "bow"]
    assert len(shared) > 1
    own, *rest = shared
    scene = dataclasses.replace(plain_scene(box_mask(4, 4, 16, 16), own), text="a bow and a bow")
    said = Both((0.9, (4, 4, 16, 16)))
    looking = OtherFinder(lvis, said, Boxes(), None)
    [found] = find_others([scene], looking, OtherRules(way="ignore", nearest=0))
    assert set(found.asked) <= set(rest)
    assert found.asked
    assert found.instances == ()


class Both:
    """Gives every phrase the same box, as a detector does that is asked for one twice."""

    def __init__(self, said):
        self.score, self.box = said

    def detect(self, images, phrases):
        return [
            FoundBoxes(
                np.tile(np.float32(self.box), (len(own), 1)),
                np.full(len(own), self.score, np.float32),
                np.arange(len(own)),
                np.full(len(own), self.score, np.float32),
            )
            for own in phrases
        ]


class Broken(FakeScout):
    def likeness(self, images, phrases):
        return np.full((len(images), len(phrases)), np.nan, np.float32)


class BrokenCuts(Boxes):
    def segment(self, images, boxes):
        return [dataclasses.replace(each, finite=False) for each in super().segment(images, boxes)]


@pytest.mark.parametrize(
    ("parts", "role"),
    [
        ({"scout": Broken()}, "scout"),
        ({"detector": Saying(finite=False)}, "detector"),
        ({"segmenter": BrokenCuts()}, "segmenter"),
    ],
)
def test_numbers_that_are_none_drop_the_sample_and_name_the_model(parts, role):
    good = scene_of(0, key="good")
    scenes = [good, scene_of(0, 6, key="bad")]
    lost = find_others(scenes, finder(**parts), RULES)[1]
    assert (lost.key, lost.stage, lost.reason) == ("bad", Stage.OTHERS, Reason.NOT_FINITE)
    assert f"the {role}'s dtype" in lost.detail


def test_a_sample_of_a_broken_scout_does_not_take_its_neighbours_along():
    class Half(FakeScout):
        def likeness(self, images, phrases):
            found = super().likeness(images, phrases)
            found[0] = np.nan
            return found

    scenes = [scene_of(0, 6, key="bad"), scene_of(0, 6, key="good")]
    lost, found = find_others(scenes, finder(scout=Half()), RULES)
    assert lost.reason is Reason.NOT_FINITE
    assert found.class_ids == (6,)


def test_others_lie_under_the_labels_of_the_sample():
    labels = np.zeros((32, 32), np.uint16)
    labels[:16] = 1
    labels[16:20, 16:] = IGNORE_LABEL
    better = instance_of(4, box_mask(0, 8, 16, 24), 0.9)
    worse = instance_of(9, box_mask(8, 8, 32, 24), 0.5)
    ignored = lay_others(labels, [better, worse], OtherRules(way="ignore"))
    labelled = lay_others(labels, [better, worse], OtherRules(way="labels"))
    either = box_mask(0, 8, 16, 24) | box_mask(8, 8, 32, 24)
    for laid in (ignored, labelled):
        assert np.array_equal(laid[labels != 0], labels[labels != 0])
        assert not laid[~either & (labels == 0)].any()
    assert (ignored[either & (labels == 0)] == IGNORE_LABEL).all()
    assert (labelled[16:24, :16] == 5).all()
    assert (labelled[20:24, 16:] == 10).all()


def test_what_is_left_of_a_second_name_of_an_object_is_ignored():
    labels = np.zeros((32, 32), np.uint16)
    better = instance_of(4, box_mask(0, 0, 16, 16), 0.9)
    rim = instance_of(9, box_mask(0, 0, 17, 17), 0.5)
    third = instance_of(2, box_mask(0, 15, 8, 32), 0.4)
    laid = lay_others(labels, [better, rim, third], OtherRules(way="labels"))
    assert (laid[:16, :16] == 5).all()
    assert (laid[:17, 16] == IGNORE_LABEL).all()
    assert 10 not in laid
    assert (laid[16:, :8] == 3).all()


def test_looking_for_nothing_is_refused():
    with pytest.raises(ValidationError, match=r"mentioned is false and nearest is 0.*way 'none'"):
        OtherRules(way="ignore", mentioned=False, nearest=0)
    assert OtherRules(mentioned=False, nearest=0).way == "none"
