"""What the page works out: scores once, masks for any threshold, within bounds."""

import io

import numpy as np
import pytest
from PIL import Image

from evaluation.scoring.background import ScoreMap
from evaluation.scoring.config import Background
from evaluation.segment import WordScores
from flows.student_page import keeping, looking
from flows.student_page.tables import table_cells, table_heads
from hostile import png_of
from storage.codecs import decode_label_map, encode_image
from storage.errors import DataError, IncompleteError, InputError


class Stripes:
    """Finds the k-th word in the k-th column, the surer the further down."""

    def __init__(self):
        self.asked = []

    def look(self, image, words, *, watch=None):
        self.asked.append(tuple(words))
        height, width = image.shape[:2]
        down = np.linspace(0, 1, height, dtype=np.float32)
        best = np.repeat(down[:, None], width, axis=1)
        index = np.repeat(np.arange(width, dtype=np.int32)[None] % len(words), height, axis=0)
        for place, word in enumerate(words):
            watch(word, np.where(index == place, best, np.float32(0)))
        return WordScores(
            tuple(words), ScoreMap(best, index), (1.0,) * len(words), Background.RAW, 0.5
        )


def png(height, width):
    return encode_image(np.zeros((height, width, 3), np.uint8), "png")


def test_one_look_serves_every_threshold():
    finder = Stripes()
    kept = looking.look(png(11, 4), "cat, red  boat\n", {"a": finder})
    assert kept.words == ("cat", "red boat")
    for threshold, rows_found in ((0.0, 11), (0.5, 6), (1.0, 1)):
        labels = decode_label_map(kept.label_map("a", threshold))
        expected = np.zeros((11, 4), np.uint16)
        expected[11 - rows_found :] = [1, 2, 1, 2]
        np.testing.assert_array_equal(labels, expected)
        rows = kept.show("a", threshold).rows
        assert [row.area for row in rows] == [2 * rows_found] * 2
        assert [row.share for row in rows] == [2 * rows_found / 44] * 2
        mean = np.linspace(0, 1, 11)[11 - rows_found :].mean()
        assert rows[0].mean_score == pytest.approx(mean)
    assert len(finder.asked) == 1


def test_what_nobody_wants_any_more_ends_after_a_word():
    wanted = iter([False, True])
    with pytest.raises(IncompleteError, match="closing"):
        looking.look(png(2, 2), "a,b,c", {"a": Stripes()}, lambda: next(wanted))
    assert list(wanted) == []


def test_a_heat_map_is_red_where_a_word_is_likely():
    kept = looking.look(png(11, 4), "cat,boat", {"a": Stripes()})
    heat = kept.show_heat("a", "cat")
    assert min(heat.shape[:2]) >= 200
    cells = heat[:: heat.shape[0] // 11, :: heat.shape[1] // 4].astype(int)
    assert cells[10, 0].tolist() == [235, 30, 20]
    assert len(set(cells[10, 1].tolist())) == 1  # grey
    large = looking.look(png(900, 1300), "cat", {"a": Stripes()})
    assert max(large.heat["a", "cat"].shape) <= 640


def test_words_are_read_as_people_type_them():
    assert looking.read_words(' cat,\n\nred\tboat ,"the ""one""",\U0001f408,') == (
        "cat",
        "red boat",
        '"the ""one"""',
        "\U0001f408",
    )
    for text, reason in (
        ("", "there are no words yet"),
        (" ,\n,", "there are no words yet"),
        ("cat,cat", "each once"),
        ("red boat\nred  boat", "each once"),
        (",".join(map(str, range(65))), "65 words are too many for the page"),
    ):
        with pytest.raises(InputError, match=reason):
            looking.read_words(text)
    assert len(looking.read_words(",".join(map(str, range(64))))) == 64


def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded():
    with pytest.raises(InputError, match="5000 x 4000 pixels, expected at most 16,000,000"):
        looking.read_picture(png_of(5000, 4000))
    with pytest.raises(InputError, match="bytes, expected at most 33,554,432"):
        looking.read_picture(bytes(looking.MOST_BYTES + 1))
    with pytest.raises(DataError, match="60000 x 60000"):
        looking.read_picture(png_of(60_000, 60_000))


@pytest.mark.parametrize("data", [b"", b"hello", png(9, 9)[:40]], ids=["empty", "text", "cut"])
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(DataError, match="the picture"):
        looking.look(data, "cat", {"a": Stripes()})


def test_a_picture_is_seen_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(buffer, "JPEG", exif=exif)
    kept = looking.look(buffer.getvalue(), "cat", {"a": Stripes()})
    assert kept.at("a", 0).labels.shape == (30, 20)


def test_tables_name_the_student_where_there_are_several():
    kept = looking.look(png(2, 2), "cat", {"a": Stripes(), "b": Stripes()})
    rows = {name: kept.show(name, 1.0).rows for name in "ab"}
    assert table_cells(rows) == [["cat", *["50.0%", "2", "1.000", "1.000"] * 2]]
    assert table_heads(["a"])[1] == "area"
    assert table_heads(["a", "b"])[5] == "area, b"
    assert len(table_heads(["a", "b"])) == len(table_cells(rows)[0])


def test_what_is_kept_stays_within_its_bound():
    kept = looking.look(png(100, 100), "cat", {"a": Stripes()})
    size = kept.num_bytes
    assert size == 100 * 100 * (3 + 4 + 4 + 1)
    places = keeping.Keeping(most_bytes=3 * size)
    tokens = [places.put(kept, None) for _ in range(3)]
    assert places.get(tokens[0]) is kept  # used again: the second is the oldest now
    places.put(kept, None)
    assert places.num_bytes == 3 * size
    with pytest.raises(InputError, match="press Find again"):
        places.get(tokens[1])
    assert places.get(tokens[0]) is kept
    again = places.put(kept, tokens[0])  # in the place of what the same person had
    with pytest.raises(InputError, match="press Find again"):
        places.get(tokens[0])
    places.drop(again)
    places.drop(None)
    assert places.num_bytes == 2 * size
    small = keeping.Keeping(most_bytes=1)
    assert small.get(small.put(kept, None)) is kept
