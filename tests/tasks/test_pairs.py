"""Every prompt becomes a pair of images, or a row that says why not."""

import numpy as np
import pytest

from fakes import FakePainter
from models.protocols import PaintedPair
from storage.records import Mention, Prompt, Reason, Rejected, Stage
from storage.vocabulary import load_vocabulary
from tasks.pairs import PaintedSample, paint_pairs
from tasks.rules import PairRules

VOCABULARY = load_vocabulary("miniature")
DEFAULT = PairRules()


def prompt(key, text, counterfactual="a nothing"):
    mention = Mention(class_id=1, start=2, end=5)
    return Prompt(
        key=key,
        text=text,
        counterfactual_text=counterfactual,
        mentions=(mention,),
        writer="fake",
    )


def paint(*prompts, rules=DEFAULT):
    seeds = {own.key: 1 for own in prompts}
    return paint_pairs(prompts, seeds, FakePainter(VOCABULARY), rules)


def test_every_prompt_has_one_result_in_order():
    results = paint(
        prompt("a", "a bus"),
        prompt("b", "a bus, unsafe"),
        prompt("c", "blank"),
        prompt("d", "a cat"),
    )
    assert [result.key for result in results] == list("abcd")
    assert [type(result) for result in results] == [
        PaintedSample,
        Rejected,
        Rejected,
        PaintedSample,
    ]


def test_the_texts_and_the_seed_reach_the_painter():
    prompts = [prompt("a", "a bus"), prompt("b", "a bus")]
    first, second = paint_pairs(prompts, {"a": 1, "b": 2}, FakePainter(VOCABULARY), PairRules())
    assert not np.array_equal(first.image, second.image)
    assert not np.array_equal(first.image, first.counterfactual)
    assert first.image.dtype == np.uint8


def test_a_flagged_pair_is_unsafe_even_if_it_was_blackened():
    rejected = paint(prompt("a", "blank and unsafe"))[0]
    assert (rejected.stage, rejected.reason) == (Stage.PAIRS, Reason.UNSAFE)


@pytest.mark.parametrize(
    ("text", "counterfactual", "name"),
    [("blank", "a nothing", "image"), ("a bus", "blank", "counterfactual")],
)
def test_a_blank_frame_is_rejected_with_its_deviation(text, counterfactual, name):
    rejected = paint(prompt("a", text, counterfactual))[0]
    assert rejected.reason is Reason.BLANK_IMAGE
    assert rejected.detail == f"{name} has standard deviation 0.00; expected at least 2"


def test_a_frame_of_one_bright_colour_is_blank():
    class OneColour(FakePainter):
        def paint(self, requests):
            return [
                type(pair)(np.full_like(pair.image, (250, 10, 10)), pair.counterfactual, False)
                for pair in super().paint(requests)
            ]

    results = paint_pairs([prompt("a", "a bus")], {"a": 1}, OneColour(VOCABULARY), PairRules())
    assert results[0].reason is Reason.BLANK_IMAGE


def _with_deviation(deviation, rng):
    """A picture whose channels have nearly this standard deviation."""
    height, width = rng.integers(1, 80, 2)
    noise = rng.normal(rng.integers(20, 230), deviation, (height, width, 3))
    return noise.round().clip(0, 255).astype(np.uint8)


def _striped(low, high):
    """A picture of as many pixels of one level as of another, in columns."""
    picture = np.full((16, 16, 3), low, np.uint8)
    picture[:, ::2] = high
    return picture


class Given:
    def __init__(self, pictures):
        self.pictures = pictures

    def paint(self, requests):
        lively = [np.resize([0, 255], picture.shape).astype(np.uint8) for picture in self.pictures]
        return [
            PaintedPair(*both, unsafe=False) for both in zip(self.pictures, lively, strict=True)
        ]


def test_blank_is_what_numpy_says_has_too_small_a_deviation():
    rng = np.random.default_rng(0)
    wanted = [*np.linspace(0, 6, 240), *[2.0] * 120, *[40.0] * 20]
    pictures = [_with_deviation(own, rng) for own in wanted]
    pictures += [_striped(100, 104), _striped(100, 103), np.eye(64, dtype=np.uint8)[..., None]]
    pictures[-1] = np.repeat(pictures[-1] * 255, 3, axis=2)
    one_row = np.zeros((64, 64, 3), np.uint8)
    one_row[3] = 255  # between the rows that are looked at first
    pictures.append(one_row)
    prompts = [prompt(str(place), "a bus") for place in range(len(pictures))]
    seeds = {own.key: 1 for own in prompts}
    results = paint_pairs(prompts, seeds, Given(pictures), PairRules())
    blank = [isinstance(result, Rejected) for result in results]
    assert blank == [float(own.std(axis=(0, 1)).max()) < 2.0 for own in pictures]
    assert 50 < sum(blank) < len(blank) - 50


def test_a_deviation_of_just_the_limit_is_not_blank():
    results = paint_pairs(
        [prompt("a", "a bus"), prompt("b", "a bus")],
        {"a": 1, "b": 1},
        Given([_striped(100, 104), _striped(100, 103)]),
        PairRules(min_deviation=2.0),
    )
    assert isinstance(results[0], PaintedSample)
    assert results[1].detail == "image has standard deviation 1.50; expected at least 2"


def test_the_rule_for_blank_frames_can_be_changed():
    assert isinstance(paint(prompt("a", "a bus"), rules=PairRules(min_deviation=128))[0], Rejected)
    lax = paint(prompt("a", "blank"), rules=PairRules(min_deviation=0))[0]
    assert isinstance(lax, PaintedSample)


def test_no_prompts_give_no_pairs():
    assert paint() == []
