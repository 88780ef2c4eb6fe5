"""What holds for any input: codecs, rows, the plan, class names, nested documents."""

import io
import string

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from plans import plan
from storage.codecs import (
    decode_image,
    decode_label_map,
    decode_rle,
    encode_image,
    encode_label_map,
    encode_rle,
)
from storage.documents import merge, nest
from storage.pairs import EncodedPair, iterate_pairs, pack_pairs, read_pair_rows
from storage.plan import DatasetSpec, count_shards, plan_shard
from storage.records import (
    Box,
    Detection,
    Instance,
    MaskSample,
    Mention,
    Pair,
    Prompt,
    Reason,
    Rejected,
    Stage,
)
from storage.rows import read_rows, split_rows, write_rows
from storage.slices import resolve_slice
from storage.vocabulary import load_vocabulary

LVIS = load_vocabulary("lvis1205")

SHAPES = st.tuples(st.integers(1, 20), st.integers(1, 20))


def arrays(dtype, low, high, *, channels=()):
    """Arrays of any small shape, drawn from a few values so that runs occur."""

    @st.composite
    def draw_array(draw):
        shape = (*draw(SHAPES), *channels)
        values = draw(st.lists(st.integers(low, high), min_size=1, max_size=5))
        picks = np.random.default_rng(draw(st.integers(0, 2**32))).integers(0, len(values), shape)
        return np.array(values, dtype)[picks]

    return draw_array()


# codecs


@given(arrays(np.uint16, 0, 65535))
def test_a_label_map_comes_back_to_the_bit(labels):
    found = decode_label_map(encode_label_map(labels))
    assert found.dtype == np.uint16
    assert (found == labels).all()


@given(arrays(bool, 0, 1))
def test_a_mask_comes_back_to_the_bit(mask):
    assert (decode_rle(encode_rle(mask), *mask.shape) == mask).all()


@given(arrays(np.uint8, 0, 255, channels=(3,)))
def test_a_png_comes_back_to_the_bit_and_a_jpeg_in_its_shape(image):
    assert (decode_image(encode_image(image, "png")) == image).all()
    assert decode_image(encode_image(image, "jpg")).shape == image.shape


# rows

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
SHARES = st.floats(0, 1)
IDS = st.integers(0, 1204)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
BOXES = st.builds(Box, class_id=IDS, score=SHARES, xyxy=st.tuples(*[NUMBERS] * 4))
SIZES = st.integers(1, 10**6)
RECORDS = st.one_of(
    st.builds(
        Prompt,
        key=TEXTS,
        text=TEXTS,
        counterfactual_text=TEXTS,
        writer=TEXTS,
        mentions=st.lists(
            st.builds(Mention, class_id=IDS, start=st.integers(0, 99), end=st.integers(1, 99)),
            min_size=1,
            max_size=3,
        ).map(tuple),
    ),
    st.builds(Pair, key=TEXTS, width=SIZES, height=SIZES),
    st.builds(
        Detection,
        key=TEXTS,
        boxes=st.lists(BOXES, min_size=1, max_size=3).map(tuple),
        counterfactual_boxes=st.lists(BOXES, max_size=2).map(tuple),
    ),
    st.builds(
        MaskSample,
        key=TEXTS,
        width=SIZES,
        height=SIZES,
        instances=st.lists(
            st.builds(
                Instance,
                class_id=IDS,
                score=SHARES,
                predicted_iou=NUMBERS,
                xyxy=st.tuples(*[NUMBERS] * 4),
                area=SIZES,
                rle=TEXTS,
            ),
            min_size=1,
            max_size=2,
        ).map(tuple),
    ),
    st.builds(
        Rejected,
        key=TEXTS,
        stage=st.sampled_from(Stage),
        reason=st.sampled_from(Reason),
        detail=TEXTS,
    ),
)


@given(st.lists(RECORDS, max_size=8))
def test_rows_come_back_equal_one_a_line(rows):
    data = write_rows(rows)
    assert data.count(b"\n") == len(rows)
    assert read_rows(data) == rows
    assert write_rows(read_rows(data)) == data


@given(st.lists(st.builds(Pair, key=TEXTS, width=SIZES, height=SIZES)), st.randoms())
def test_rows_of_one_kind_are_split_from_the_rejected_in_order(pairs, order):
    lost = [
        Rejected(key=pair.key, stage=Stage.PAIRS, reason=Reason.UNSAFE, detail="") for pair in pairs
    ]
    mixed = [*pairs, *lost]
    order.shuffle(mixed)
    kept, dropped = split_rows(mixed, Pair)
    assert [row for row in mixed if row in kept] == kept
    assert len(kept) == len(dropped) == len(pairs)


@given(st.sets(st.text("0123456789abcdef", min_size=16, max_size=16), max_size=5), st.randoms())
def test_pairs_come_back_whatever_their_order(keys, order):
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2)).save(buffer, "PNG")
    pairs = [EncodedPair(key, buffer.getvalue(), buffer.getvalue()) for key in sorted(keys)]
    mixed = list(pairs)
    order.shuffle(mixed)
    data = pack_pairs(mixed, [])
    assert data == pack_pairs(pairs, [])
    assert list(iterate_pairs(data, "it")) == pairs
    assert [row.key for row in read_pair_rows(data)[0]] == sorted(keys)


# the plan

SPECS = st.builds(
    DatasetSpec,
    vocabulary=st.just("lvis1205"),
    seed=st.integers(0, 2**63 - 1),
    samples_per_shard=st.integers(1, 12),
    two_class_share=SHARES,
    texts_per_class_set=st.integers(1, 5),
)


@st.composite
def slices(draw):
    start = draw(st.integers(0, 1190))
    return resolve_slice(LVIS, f"{start}:{start + draw(st.integers(1, 9))}")


@given(SPECS, slices(), st.integers(1, 40), st.randoms())
def test_a_shard_is_the_same_in_any_order(spec, classes, samples, order):
    whole = list(plan(spec, classes, samples))
    indices = list(range(count_shards(spec, samples)))
    order.shuffle(indices)
    assert {i: plan_shard(spec, classes, i, samples) for i in indices} == dict(enumerate(whole))


@given(SPECS, slices(), slices(), st.integers(1, 40))
def test_two_slices_share_no_sample_and_no_shard(spec, mine, yours, samples):
    assume(mine.class_ids != yours.class_ids)
    shards = [list(plan(spec, each, samples)) for each in (mine, yours)]
    names = [{shard.name for shard in each} for each in shards]
    keys = [{sample.key for shard in each for sample in shard.samples} for each in shards]
    assert names[0].isdisjoint(names[1])
    assert keys[0].isdisjoint(keys[1])
    assert len(keys[0]) == samples


@given(SPECS, slices(), st.integers(1, 30), st.integers(0, 30))
def test_growth_keeps_every_earlier_sample(spec, classes, samples, more):
    before = [sample for shard in plan(spec, classes, samples) for sample in shard.samples]
    after = [sample for shard in plan(spec, classes, samples + more) for sample in shard.samples]
    assert after[:samples] == before


# names


@given(st.sampled_from(LVIS.classes), st.randoms())
def test_a_class_is_found_by_its_name_however_it_is_written(record, order):
    written = "".join(order.choice((c.upper(), c.lower())) for c in record.name)
    assume(written.lower() == record.name.lower())
    blanks = [order.choice((" ", "_", "  ")) for _ in record.name]
    spaced = "".join(b if c == " " else c for c, b in zip(written, blanks, strict=True))
    assert LVIS.by_name(f" {spaced} ") == record


# documents

KEYS = st.text(string.ascii_lowercase, min_size=1, max_size=3)
LEAVES = st.integers() | st.none() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
DOCUMENTS = st.recursive(
    st.dictionaries(KEYS, LEAVES, max_size=3),
    lambda inner: st.dictionaries(KEYS, LEAVES | inner, max_size=3),
    max_leaves=8,
)


def leaves(document, path=()):
    """Dotted names of everything that holds nothing else."""
    for name, value in document.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, name))
        else:
            yield ".".join((*path, name)), value


@given(DOCUMENTS, st.randoms())
def test_a_document_is_built_again_from_its_dotted_names(document, order):
    values = list(leaves(document))
    order.shuffle(values)
    assert nest(dict(values)) == document


@given(DOCUMENTS, DOCUMENTS)
def test_merging_keeps_what_is_high_and_changes_neither(low, high):
    before = repr((low, high))
    merged = merge(low, high)
    assert repr((low, high)) == before
    found = dict(leaves(merged))
    assert all(found[name] == value for name, value in leaves(high) if value != {})
    assert merge(merged, high) == merged
    assert merge(low, {}) == low
    assert merge({}, high) == high
