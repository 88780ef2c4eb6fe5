"""Texts with marks."""

from evaluation.reports.gallery import changed_text, marked_text
from storage.records import Mention


def test_mentions_are_cut_out_in_order_and_overlaps_once() -> None:
    text = "a school bus and two cats"
    mentions = (
        Mention(class_id=2, start=21, end=25),
        Mention(class_id=0, start=2, end=12),
        Mention(class_id=1, start=9, end=12),
    )
    pieces = marked_text(text, mentions)
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.text for piece in pieces if piece.colour] == ["school bus", "cats"]


def test_the_words_that_replaced_the_classes_are_found() -> None:
    pieces = changed_text("an apple and a red bus at night", "a nothing and a red nothing at night")
    assert "".join(piece.text for piece in pieces) == "a nothing and a red nothing at night"
    assert [piece.text for piece in pieces if piece.colour] == ["a nothing", "nothing"]
