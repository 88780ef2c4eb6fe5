import pytest

from storage.plurals import plural_forms


@pytest.mark.parametrize(
    ("singular", "plural"),
    [
        ("cat", "cats"),
        ("bus", "buses"),
        ("school bus", "school buses"),
        ("box", "boxes"),
        ("bench", "benches"),
        ("dish", "dishes"),
        ("glass", "glasses"),
        ("strawberry", "strawberries"),
        ("toy", "toys"),
        ("potato", "potatoes"),
        ("avocado", "avocados"),
        ("kimono", "kimonos"),
        ("ox", "oxen"),
        ("computer mouse", "computer mice"),
        ("blouse", "blouses"),
        ("caboose", "cabooses"),
        ("goose", "geese"),
        ("steak knife", "steak knives"),
        ("giraffe", "giraffes"),
        ("handkerchief", "handkerchiefs"),
        ("calf", "calves"),
        ("snowman", "snowmen"),
        ("ottoman", "ottomans"),
        ("human", "humans"),
        ("flip-flop", "flip-flops"),
        ("telephoto lens", "telephoto lenses"),
        ("doll's house", "doll's houses"),
        ("Christmas tree", "Christmas trees"),
        ("CD player", "CD players"),
        ("tv", "tvs"),
    ],
)
def test_a_thing_that_can_be_counted_has_a_plural(singular, plural):
    assert plural_forms(singular) == (plural,)


@pytest.mark.parametrize(
    "phrase",
    ["scissors", "sunglasses", "short pants", "sheep", "black sheep", "broccoli", "dental floss"],
)
def test_a_thing_in_the_plural_or_without_one_stands_for_itself(phrase):
    assert plural_forms(phrase) == (phrase,)


@pytest.mark.parametrize(
    ("singular", "plurals"),
    [
        ("person", ("people", "persons")),
        ("fish", ("fish", "fishes")),
        ("headscarf", ("headscarves", "headscarfs")),
        ("cactus", ("cactuses", "cacti")),
    ],
)
def test_several_plurals_come_commonest_first(singular, plurals):
    assert plural_forms(singular) == plurals


@pytest.mark.parametrize("phrase", ["", "7", "mp3 "])
def test_a_phrase_that_ends_in_no_word_is_left_alone(phrase):
    assert plural_forms(phrase) == (phrase,)
