"""Pictures, masks, pairs, rows and manifests that are none: refused by name and with the reason."""

import io

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from hostile import always, base_256, cut, noise, picture, png_of, with_chunk, with_size
from storage.archives import read_archive, write_archive
from storage.codecs import decode_image, decode_label_map, decode_rle, encode_label_map
from storage.errors import DataError
from storage.manifest import count_outcomes, decode_manifest, describe_samples, encode_manifest
from storage.pairs import EncodedPair, iterate_pairs, pack_pairs, read_pair_rows
from storage.records import Pair
from storage.rows import read_rows, write_rows

KEY, OTHER = "0badcafe00000000", "0badcafe00000001"
DEEP = b"[" * 200_000

pytestmark = pytest.mark.timeout(30)


# pictures and masks without a tar

SCANS = b"\xff\xda\x00\x02" * 200
JPEGS = {
    "cut in its tables": (picture("RGB", kind="JPEG")[:90], "p.jpg .*says no size"),
    "cut in its pixels": (noise(64, "JPEG")[:1500], "p.jpg .*is not a readable image"),
    "no frame": (b"\xff\xd8\xff\xd9" * 40, "says no size"),
    "ends only": (b"\xff\xd8" + b"\xff" * 5000, "says no size"),
    "segments without end": (b"\xff\xd8" + b"\xff\xe0\x00\x02" * 10**5, "says no size"),
    "huge": (b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03" + bytes(99), "65535 x 65535"),
    "scans without end": (noise(64, "JPEG", progressive=True) + SCANS, "more than 100 scans"),
    "for print": (picture("CMYK", kind="JPEG"), "p.jpg has Pillow mode 'CMYK'"),
}


@pytest.mark.parametrize("case", JPEGS)
def test_a_damaged_jpeg_is_named(case):
    data, words = JPEGS[case]
    with pytest.raises(DataError, match=words):
        decode_image(data, name="p.jpg")


def test_a_warning_of_pillow_is_no_crash():
    """Warnings are errors here: below the limit there is none, beyond it the limit speaks."""
    with pytest.raises(DataError, match=r"p\.png is to have 10000 x 9000 pixels"):
        decode_image(png_of(10_000, 9_000), name="p.png")
    flat = png_of(8192, 8192, depth=1, colours=0)
    with pytest.raises(DataError, match=r"p\.png .*is not a readable image"):
        decode_image(flat, name="p.png")
    with pytest.raises(DataError, match=r"p\.png .*is not a readable image"):
        decode_image(with_chunk(b"acTL", bytes(3))(picture("RGB")), name="p.png")


def test_grey_images_and_those_in_colour_are_decoded():
    grey = picture("L", kind="JPEG")
    assert decode_image(grey).shape == decode_image(noise(16)).shape == (16, 16, 3)
    labels = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    np.testing.assert_array_equal(decode_label_map(encode_label_map(labels)), labels)


MASKS = {
    "the string that crashed": ("zzzz", 200_000, 200_000, "m is to have 200000 x 200000 pixels"),
    "the string on a small mask": ("zzzz", 4, 4, "no digit of COCO's"),
    "a negative side": ("0", -1, 4, "is to have 4 x -1 pixels"),
    "no pixels": ("0", 0, 4, "is to have 4 x 0 pixels"),
    "a sum too small": ("3", 2, 2, "runs of 3 pixels, expected 2 x 2"),
    "a sum too large": ("5", 2, 2, "runs of 5 pixels, expected 2 x 2"),
    "a negative run": ("O5", 2, 2, "a run of -1 pixels"),
    "a run of 35 bits": ("oooooo0", 2, 2, "a run that is cut, or longer than any mask"),
    "a run of 2 ** 64": ("oooooooooooo0", 2, 2, "a run that is cut, or longer than any mask"),
    "half a digit": ("4o", 2, 2, "a run that is cut"),
    "a line end": ("4\n", 2, 2, "no digit of COCO's"),
    "a zero byte": ("4\0", 2, 2, "no digit of COCO's"),
    "half a character": ("\ud800", 2, 2, "no digit of COCO's"),
    "nothing": ("", 2, 2, "no run"),
    "more digits than pixels": ("0" * 31, 2, 2, "31 digits for 4 pixels"),
}


@pytest.mark.parametrize("case", MASKS)
def test_run_lengths_of_no_mask_are_refused(case):
    counts, height, width, words = MASKS[case]
    with pytest.raises(DataError, match=words):
        decode_rle(counts, height, width, name="m")


# pairs and rows

PAIRS = {
    "no rows": (lambda m: m[1:], "starts with '0badcafe00000000.png'; expected 'rows.jsonl'"),
    "rows that are none": (lambda m: [("rows.jsonl", b"[]\n"), *m[1:]], "line 1 of p: rows.jsonl"),
    "deep rows": (lambda m: [("rows.jsonl", DEEP), *m[1:]], "line 1 of p: rows.jsonl .*recursion"),
    "rows of no UTF-8": (lambda m: [("rows.jsonl", b"\xff\n"), *m[1:]], "line 1 of p: rows"),
    "a pair twice": (lambda m: [("rows.jsonl", m[0][1] * 2), *m[1:]], "tells of 0bad.* 2 times"),
    "interchanged": (lambda m: [m[0], m[3], m[2], m[1], m[4]], f"where {KEY} should be"),
    "both of one kind": (lambda m: [m[0], m[1], (f"{KEY}.cf.jpg", m[2][1])], "should be"),
    "a longer key": (lambda m: [m[0], (f"{KEY}x.png", m[1][1]), *m[2:]], "should be"),
    "one too few": (lambda m: m[:-1], f"holds {OTHER}.png, nothing where {OTHER} should be"),
    "one too many": (lambda m: [*m, ("x.png", b"")], "holds x.png, of which its rows.jsonl says"),
    "another size": (lambda m: [m[0], (m[1][0], noise(8)), *m[2:]], r"0.png is a png of \(8, 8\)"),
    "a JPEG": (lambda m: [*m[:2], (m[2][0], noise(16, "JPEG")), *m[3:]], "cf.png is a jpg of"),
    "a text": (lambda m: [*m[:4], (m[4][0], b"x")], f"p: {OTHER}.cf.png starts with b'x'"),
}


@pytest.mark.parametrize("case", PAIRS)
def test_pairs_that_do_not_fit_are_refused(case, sample):
    change, words = PAIRS[case]
    samples = [sample(0), sample(1)]
    pairs = [EncodedPair(s.key, s.image_bytes, s.counterfactual_bytes) for s in samples]
    members = list(read_archive(pack_pairs(pairs, []), "whole"))
    data = bytes(write_archive(change(members)))
    with pytest.raises(DataError, match=words):
        list(iterate_pairs(io.BytesIO(data), "p"))


def test_pair_rows_are_read_with_the_same_care():
    with pytest.raises(DataError, match="a pairs archive is cut or is not a tar"):
        read_pair_rows(with_size(base_256(-512)))


ROWS = {
    "no object": (b"7\n", "line 1 of f"),
    "nothing on a line": (write_rows([Pair(key="a", width=1, height=1)]) + b"\n", "line 2 of f"),
    "deep": (b'{"record":"pair","key":' + DEEP, "line 1 of f .*recursion"),
    "half a character": (b'{"record":"pair","key":"\\ud800","width":1,"height":1}', "line 1 of f"),
    "no UTF-8": (b'{"record":"pair","key":"\xff","width":1,"height":1}', "line 1 of f"),
    "no number": (b'{"record":"pair","key":"a","width":NaN,"height":1}', "'pair.width' is nan"),
    "no pixels": (b'{"record":"pair","key":"a","width":0,"height":1}', "'pair.width' is 0"),
    "a box at infinity": (
        b'{"record":"detection","key":"a","counterfactual_boxes":[],'
        b'"boxes":[{"class_id":0,"score":1,"xyxy":[0,0,1,Infinity]}]}',
        "xyxy.3' is inf",
    ),
}


@pytest.mark.parametrize("case", ROWS)
def test_rows_that_are_no_records_are_refused(case):
    data, words = ROWS[case]
    with pytest.raises(DataError, match=words):
        read_rows(data, name="f")


# manifests


@pytest.fixture
def manifest(sample, plan_of, names):
    samples = [sample(0), sample(1)]
    return encode_manifest(describe_samples(plan_of(samples), names, samples=samples, dropped=[]))


def stored(table):
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def tabled(change):
    """A manifest whose table was changed."""
    return lambda data: stored(change(parquet.read_table(io.BytesIO(data))))


def column(name, values, kind=None):
    def change(table):
        at = table.schema.get_field_index(name)
        made = pa.array(values, kind or table.schema.field(name).type)
        field = pa.field(name, made.type, nullable=made.null_count > 0)
        return table.set_column(at, field, made)

    return tabled(change)


def grown(times):
    """Many rows that take next to no bytes, because all are the same."""
    return tabled(lambda table: table.take([0] * times))


def repeated(times, text):
    """Rows of one long text, which is stored once."""

    def change(data):
        table = parquet.read_table(io.BytesIO(data)).take([0] * times)
        at = table.schema.get_field_index("status")
        texts = pa.DictionaryArray.from_arrays(pa.array([0] * times, pa.int32()), [text])
        table = table.set_column(at, pa.field("status", texts.type, nullable=False), texts)
        buffer = io.BytesIO()
        limits = {"store_schema": False, "dictionary_pagesize_limit": 1 << 28}
        with parquet.ParquetWriter(buffer, table.schema, compression="zstd", **limits) as file:
            file.write_table(table)
            file.add_key_value_metadata({"magicseg_manifest_version": "1"})
        return buffer.getvalue()

    return change


MANIFESTS = {
    "nothing": (always(b""), "m is not a readable Parquet file"),
    "a text": (always(b"key,shard\n" * 50), "m is not a readable Parquet file"),
    "a cut": (cut(0.6), "m is not a readable Parquet file"),
    "a cut footer": (lambda d: d[:-8], "m is not a readable Parquet file"),
    "a huge footer": (lambda d: d[:-8] + b"\xff\xff\xff\x7fPAR1", "not a readable Parquet file"),
    "a negative footer": (lambda d: d[:-8] + b"\xff\xff\xff\xffPAR1", "not a readable Parquet"),
    "no version": (tabled(lambda t: t.replace_schema_metadata({})), "version none; this engine"),
    "a version of no UTF-8": (
        tabled(lambda t: t.replace_schema_metadata({b"magicseg_manifest_version": b"\xff"})),
        "m has schema version .*; this engine reads version 1",
    ),
    "no key": (tabled(lambda t: t.drop_columns(["key"])), "m has key as nothing, expected string"),
    "a column of others": (
        tabled(lambda t: t.append_column("more", pa.array([1, 2]))),
        "m has more as int64, expected nothing",
    ),
    "a column twice": (tabled(lambda t: t.append_column("key", t["key"])), "m has a column as"),
    "seeds in words": (column("seed", ["a", "b"], pa.string()), "seed as string, expected int64"),
    "classes without lists": (column("class_ids", [1, 2], pa.int32()), "class_ids as int32"),
    "an unknown status": (column("status", ["lost", "lost"]), "m has a wrong row .*'status' is"),
    "nulls": (column("seed", [1, None]), "m has a wrong row .*'seed' is None"),
    "nulls in a list": (column("class_ids", [[1], [None]]), "'class_ids.0' is None"),
    "no UTF-8": (
        column("status", pa.array([b"\xff", b"\xfe"]).view(pa.string())),
        "m is not a readable Parquet file",
    ),
    "rows without end": (grown(10**5), "m claims 100000 rows in"),
    "texts without end": (repeated(200, "x" * 10**7), "m holds 2000[0-9]* bytes of text"),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_manifest_of_something_else_is_refused(case, manifest):
    change, words = MANIFESTS[case]
    damaged = change(manifest)
    with pytest.raises(DataError, match=words):
        decode_manifest(damaged, name="m")
    if "wrong row" not in words and "is None" not in words:
        with pytest.raises(DataError, match=words):
            count_outcomes(damaged, name="m")
