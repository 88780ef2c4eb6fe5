"""Texts as editors and shells of every system write them."""

import codecs

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage.documents import read_yaml
from storage.errors import DataError, InputError
from storage.texts import decode_text, split_lines

TEXT = "name: caf\xe9 \u732b\r\nother: \U0001f408\n"
ENCODINGS = {
    "utf-8": b"",
    "utf-8 with a mark": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
}


@pytest.mark.parametrize("kind", ENCODINGS)
def test_marked_texts_and_utf_8_are_read(tmp_path, kind):
    data = ENCODINGS[kind] + TEXT.encode(kind.split()[0])
    assert decode_text(data, "it") == TEXT
    (tmp_path / "a.yaml").write_bytes(data)
    assert read_yaml(tmp_path / "a.yaml") == {"name": "caf\xe9 \u732b", "other": "\U0001f408"}


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    "text", ["a", "2007_000033\r\n2007_000042\r\n", "caf\xe9 a b c\n", "\xe9\n"]
)
def test_utf_16_without_a_mark_is_read_where_it_is_evident(encoding, text):
    assert decode_text(text.encode(encoding), "it") == text


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a\ncaf\xe9\n", r"byte 0xe9 at position 5 \(line 2\), which is no UTF-8"),
        (b"a\r\nb\rc\xff", r"byte 0xff at position 6 \(line 3\), which is no UTF-8"),
        (codecs.BOM_UTF8 + b"\x80", r"byte 0x80 at position 3 \(line 1\)"),
        (codecs.BOM_UTF16_LE + b"a\0b", r"byte 0x62 at position 4 \(line 1\), .* no UTF-16-LE"),
        (codecs.BOM_UTF16_BE + b"\xd8\0\0a", r"byte 0xd8 at position 2 .* no UTF-16-BE"),
        ("ab\n".encode("utf-32"), "a text in UTF-32"),
        (b"abc\nde\0f", r"byte 0x00 \(NUL\) in line 2"),
        ("\u732b\n".encode("utf-16-le"), r"byte 0x00 \(NUL\)"),
    ],
)
def test_other_texts_are_refused_with_the_byte_that_shows_it(data, words):
    with pytest.raises(DataError, match=rf"list\.txt (holds the|is) {words}.*UTF-8 or UTF-16"):
        decode_text(data, "list.txt")


def test_a_yaml_file_in_another_encoding_is_refused_with_its_byte(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(InputError, match=r"a\.yaml is not YAML: .*0xe9 at position 9 .*as UTF-8"):
        read_yaml(tmp_path / "a.yaml")


def test_lines_end_as_on_any_system_and_nowhere_else():
    assert split_lines("a\r\nb\rc\nd\x0be\u2028f\x85") == ["a", "b", "c", "d\x0be\u2028f\x85"]


@given(st.binary(max_size=60))
@example(b"\xff\xfe\0")
@example(b"\xef\xbb\xbf\0")
def test_any_bytes_are_a_text_or_refused(data):
    try:
        text = decode_text(data, "it")
    except DataError:
        return
    assert "\0" not in text
