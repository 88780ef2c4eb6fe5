"""Captions of drawn scenes and the tokenizer that reads them."""

from itertools import pairwise

import numpy as np
import pytest
from transformers import CLIPTokenizer

from models.miniature.captions import caption, caption_words, fill, places, plural
from models.miniature.tokens import write_tokenizer
from models.miniature.world import CLASSES, sample_scene
from models.writing.mentions import NOTHING


@pytest.fixture(scope="module")
def described():
    rng = np.random.default_rng(3)
    scenes = [sample_scene(rng, num_things=1 + i % 2, hard=1.0) for i in range(400)]
    return [(scene, *caption(scene, rng)) for scene in scenes]


def test_spans_point_at_the_class_words_in_the_order_of_the_things(described):
    for scene, text, _, spans in described:
        words = [text[start:stop] for start, stop in spans]
        assert words == [CLASSES[thing.class_id] for thing in scene.things]


def test_the_twin_text_names_nothing_instead_of_a_class(described):
    for scene, text, twin, _ in described:
        assert not set(twin.split()) & set(CLASSES)
        assert twin.split().count(NOTHING) == len(scene.things)
        assert len(twin.split()) == len(text.split())


def test_articles_fit_the_next_word(described):
    for _, text, twin, _ in described:
        for words in (text.split(), twin.split()):
            for article, word in pairwise(words):
                if article in ("a", "an"):
                    assert (article == "an") == (word[0] in "aeiou")


def test_a_caption_says_only_what_is_true(described):
    for scene, text, _, _ in described:
        for background, phrase in places().items():
            assert phrase not in text or background == scene.background
        colours = {thing.colour for thing in scene.things}
        named = {word for word in text.split() if word in ("red", "blue", "white")}
        assert named <= colours


def test_captions_that_are_not_bare_name_the_place(described):
    rng = np.random.default_rng(5)
    for scene, *_ in described:
        assert places()[scene.background] in caption(scene, rng, bare=False)[0]


def test_spans_move_with_the_articles_before_and_after_them():
    values = {"class1": "apple", "class2": "owl"}
    text, spans = fill("{a} {class1} and {a} {class2}", values)
    assert text == "an apple and an owl"
    assert [text[start:stop] for start, stop in spans] == ["apple", "owl"]


def test_a_scene_without_things_has_no_caption():
    rng = np.random.default_rng(1)
    with pytest.raises(ValueError, match="0 things"):
        caption(sample_scene(rng, num_things=0), rng)


def test_every_word_is_one_token_and_no_text_is_too_long(described, tmp_path):
    write_tokenizer(tmp_path, caption_words(), 24)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    for word in caption_words():
        assert len(tokenizer(word).input_ids) == 3
    for _, text, twin, _ in described:
        assert len(tokenizer(text).input_ids) == len(text.split()) + 2 <= 24
        assert tokenizer.decode(tokenizer(twin).input_ids, skip_special_tokens=True).split() == (
            twin.split()
        )


def test_unknown_words_are_spelled_and_not_lost(tmp_path):
    write_tokenizer(tmp_path, caption_words(), 24)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    ids = tokenizer("a zebra").input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "a zebra"


def test_plurals_of_the_world_are_english():
    assert [plural(CLASSES[i]) for i in (1, 4, 11, 13)] == ["buses", "fish", "cactuses", "rockets"]
