import dataclasses
import io

import pytest

from storage.archives import write_archive
from storage.errors import DataError
from storage.pairs import EncodedPair, describe_pairs, iterate_pairs, pack_pairs, read_pair_rows
from storage.records import Reason, Rejected, Stage
from storage.rows import write_rows

LOST = Rejected(key="z", stage=Stage.PAIRS, reason=Reason.BLANK_IMAGE, detail="std 0.0")


@pytest.fixture
def pairs(sample) -> list[EncodedPair]:
    made = [sample(index) for index in (2, 0, 1)]
    return [EncodedPair(each.key, each.image_bytes, each.counterfactual_bytes) for each in made]


def test_pairs_come_back_sorted_by_key(pairs):
    data = pack_pairs(pairs, [LOST])
    expected = sorted(pairs, key=lambda pair: pair.key)
    assert list(iterate_pairs(io.BytesIO(data), "it")) == expected


def test_the_order_of_the_pairs_does_not_change_the_bytes(pairs):
    assert bytes(pack_pairs(pairs, [LOST])) == bytes(pack_pairs(pairs[::-1], [LOST]))


def test_the_rows_tell_sizes_and_rejections_without_the_images(pairs):
    kept, dropped = read_pair_rows(pack_pairs(pairs, [LOST]))
    assert kept == describe_pairs(sorted(pairs, key=lambda pair: pair.key))
    assert (kept[0].key, kept[0].width, kept[0].height) == ("0badcafe00000000", 16, 16)
    assert len(kept) == 3
    assert dropped == [LOST]


@pytest.mark.parametrize("kept", ["image_bytes", "counterfactual_bytes"])
def test_one_picture_of_a_pair_comes_back_alone(pairs, kept):
    halves = [EncodedPair(each.key, b"", b"") for each in pairs]
    halves = [
        dataclasses.replace(half, **{kept: getattr(each, kept)})
        for half, each in zip(halves, pairs, strict=True)
    ]
    data = pack_pairs(halves, [LOST])
    expected = sorted(halves, key=lambda pair: pair.key)
    assert list(iterate_pairs(io.BytesIO(data), "it")) == expected
    records, _ = read_pair_rows(data)
    assert [(each.width, each.height) for each in records] == [(16, 16)] * 3
    assert {each.has_image for each in records} == {kept == "image_bytes"}
    assert {each.has_counterfactual for each in records} == {kept != "image_bytes"}


def test_a_record_without_digests_is_about_both_pictures(pairs):
    records = [
        record.model_copy(update={"image_sha256": "", "counterfactual_sha256": ""})
        for record in describe_pairs(pairs[:1])
    ]
    members = [("rows.jsonl", write_rows(records))]
    members += [(f"{pairs[0].key}.png", pairs[0].image_bytes)]
    members += [(f"{pairs[0].key}.cf.png", pairs[0].counterfactual_bytes)]
    assert list(iterate_pairs(io.BytesIO(write_archive(members)), "it")) == pairs[:1]


def test_a_missing_image_is_told(pairs):
    data = pack_pairs(pairs, [])
    members = []
    for pair in sorted(pairs, key=lambda pair: pair.key):
        members += [(f"{pair.key}.png", pair.image_bytes)]
    rows = bytes(data)[512 : 512 + 1024].split(b"\0")[0]
    broken = write_archive([("rows.jsonl", rows), *members])
    with pytest.raises(DataError, match="where 0badcafe00000000 should be"):
        list(iterate_pairs(io.BytesIO(broken), "it"))


def test_an_archive_without_rows_is_no_pairs_archive(pairs):
    with pytest.raises(DataError, match=r"expected 'rows.jsonl'"):
        read_pair_rows(write_archive([("a.png", pairs[0].image_bytes)]))
