import io

import pytest

from storage.archives import write_archive
from storage.errors import DataError
from storage.pairs import EncodedPair, describe_pairs, iterate_pairs, pack_pairs, read_pair_rows
from storage.records import Reason, Rejected, Stage

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
