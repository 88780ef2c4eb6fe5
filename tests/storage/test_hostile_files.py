"""Files that somebody else made, or damaged: every reader says which file and member, and why."""

import bz2
import dataclasses
import gzip
import lzma
import pickle
import re
import tarfile

import numpy as np
import pytest
import webdataset

from evaluation.reports.sheets import Quadruplet
from hostile import (
    always,
    animated,
    archived,
    base_256,
    before,
    cut,
    entry,
    fields,
    flipped,
    header,
    instance,
    note,
    ordered,
    picture,
    png_of,
    raw,
    record,
    renamed,
    replaced,
    text_bomb,
    with_chunk,
    with_size,
)
from storage.archives import MAX_MEMBER_BYTES, first_name, read_archive, write_archive
from storage.codecs import (
    encode_rle,
)
from storage.errors import DataError
from storage.exports.closed_sets import resolve_closed_set
from storage.exports.folders import export_shards
from storage.shards import iterate, pack, read_index
from storage.vocabulary import load_vocabulary
from training.data import SampleFiles, find_shards

VOCABULARY = load_vocabulary("miniature")
KEY, OTHER = "0badcafe00000000", "0badcafe00000001"
DEEP = b"[" * 200_000

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
def samples(sample):
    """Two samples of a class of the miniature vocabulary."""
    return [
        dataclasses.replace(sample(index, class_id=0), class_names=(VOCABULARY[0].name,))
        for index in range(2)
    ]


@pytest.fixture
def members(samples):
    """Their eight members in the order of the tar."""
    return list(read_archive(pack(samples), "whole"))


@pytest.fixture
def shard(tmp_path):
    """Writes a tar in a folder of its own."""

    def write(data):
        path = tmp_path / "tars" / "s.tar"
        path.parent.mkdir()
        path.write_bytes(data)
        return path

    return write


def in_training(path):
    files = SampleFiles(find_shards(str(path.parent)), VOCABULARY)
    return [files[number] for number in range(len(files))]


def in_export(path):
    classes = resolve_closed_set(VOCABULARY, VOCABULARY[0].name)
    return export_shards({str(path): "1"}, classes, path.parent.parent / "out")


def in_pages(path):
    return [Quadruplet.decode(sample) for sample in iterate(path)]


READERS = {"iterate": lambda path: list(iterate(path)), "train": in_training, "export": in_export}
DECODERS = {"train": in_training, "export": in_export, "pages": in_pages}

PNG, CF, MASK, JSON = range(4)
NOT_PLAIN, NOT_TAR = "expected plain files alone", "s.tar is cut or is not a tar archive"
NO_NAME = "ends in no plain file name"

# what is no archive of whole samples, by its headers alone
TARS = {
    "a negative size": (before(with_size(base_256(-512))), "0009.png is to have -512 bytes"),
    "a more negative size": (before(with_size(base_256(-1024))), "is to have -1024 bytes"),
    "a size beyond 64 bits": (before(with_size(base_256(2**70))), f"to have {2**70} bytes, but"),
    "a size beyond the file": (before(with_size(b"77777777777")), "8589934591 bytes, but"),
    "a size in letters": (before(with_size(b"many")), NOT_TAR),
    "a wrong checksum": (lambda m: flipped(150)(bytes(write_archive(m))), NOT_TAR),
    "a cut in a member": (lambda m: bytes(write_archive(m))[:700], NOT_TAR),
    "a cut between members": (lambda m: entry(header(m[0][0], len(m[0][1])), m[0][1]), NOT_TAR),
    "half an end mark": (lambda m: bytes(write_archive(m)).rstrip(b"\0") + bytes(512), NOT_TAR),
    "two archives in one": (lambda m: bytes(write_archive(m)) * 2, "goes on after its end at byte"),
    "a gzipped tar": (
        lambda m: gzip.compress(bytes(write_archive(m))),
        "compressed by gzip",
    ),
    "a tar in bzip2": (
        lambda m: bz2.compress(bytes(write_archive(m))),
        "a plain tar: use",
    ),
    "a tar in xz": (lambda m: lzma.compress(bytes(write_archive(m))), "use unxz"),
    "an empty file": (lambda _: b"", NOT_TAR),
    "a pickle": (lambda m: pickle.dumps(m), NOT_TAR),
    "a text": (lambda _: b"<!DOCTYPE html>" * 200, NOT_TAR),
    "a symbolic link": (
        before(header("a.png", kind=tarfile.SYMTYPE, linkname="/etc/passwd")),
        f"'a.png' is a symbolic link, {NOT_PLAIN}",
    ),
    "a hard link": (
        before(header("a.png", kind=tarfile.LNKTYPE, linkname="b.png")),
        f"'a.png' is a hard link, {NOT_PLAIN}",
    ),
    "a device": (before(header("a.png", kind=tarfile.CHRTYPE)), "'a.png' is a character device"),
    "a disk": (before(header("a.png", kind=tarfile.BLKTYPE)), "'a.png' is a block device"),
    "a pipe": (before(header("a.png", kind=tarfile.FIFOTYPE)), "'a.png' is a named pipe"),
    "a file with holes": (before(header("a.png", kind=tarfile.GNUTYPE_SPARSE)), "with holes"),
    "an unknown kind": (before(header("a.png", kind=b"Z")), "of the unknown kind b'Z'"),
    "a long link of GNU": (
        before(
            entry(header("././@LongLink", 120, tarfile.GNUTYPE_LONGLINK), b"x" * 120)
            + header("a.png", kind=tarfile.SYMTYPE)
        ),
        f"'a.png' is a symbolic link, {NOT_PLAIN}",
    ),
    "a long way up of GNU": (
        before(entry(header("././@LongLink", 120, tarfile.GNUTYPE_LONGNAME), b"../" * 40)),
        "leads out of its folder",
    ),
    "a long name without letters": (
        before(entry(header("././@LongLink", 4, tarfile.GNUTYPE_LONGNAME), b"\xff\xfe\xfd\xfc")),
        "a name is no UTF-8",
    ),
    "another name in a note": (before(note(record("path", "b.png"))), "sample b is not whole"),
    "another size in a note": (before(note(record("size", "9"))), "header sets 'size'"),
    "holes in a note": (before(note(record("GNU.sparse.major", "1"))), "sets 'GNU.sparse.major'"),
    "a name for all": (before(note(record("path", "b"), tarfile.XGLTYPE)), "header sets 'path'"),
    "a malformed note": (before(note(b"99 mtime=1\n")), "extended header is malformed"),
    "a note of length 0": (before(note(b"0 mtime=1\n")), "extended header is malformed"),
    "a long note": (before(note(record("comment", "x" * 70_000))), "expected at most 65536"),
    "a way up": (renamed(f"{KEY}.png", "../../x.png"), "'../../x.png' leads out of its folder"),
    "an absolute name": (renamed(f"{KEY}.png", "/etc/x.png"), "sample x is not whole"),
    "a folder": (renamed(f"{KEY}.png", "data/x.png"), "sample x is not whole"),
    "one name in two folders": (
        lambda m: archived([*m, (f"other/{KEY}.png", m[0][1])]),
        f"'{KEY}.png' is there twice",
    ),
    "a backslash": (renamed(f"{KEY}.png", "data\\x.png"), NO_NAME),
    "a hidden name": (renamed(f"{KEY}.png", ".x.png"), f"'.x.png' {NO_NAME}"),
    "a line end in a name": (renamed(f"{KEY}.png", "a\nb.png"), NO_NAME),
    "an empty name": (before(header("")), f"'' {NO_NAME}"),
    "a name of no ASCII": (before(header("\xe9.png")), NOT_TAR),
    "a name without a kind": (before(header("README")), "holds 'README', expected members named"),
    "a member twice": (ordered(0, 0, 1, 2, 3), f"'{KEY}.png' is there twice"),
    "a sample twice": (ordered(0, 1, 2, 3, 0, 1, 2, 3), f"'{KEY}.png' is there twice"),
    "by kind": (ordered(0, 4, 1, 5, 2, 6, 3, 7), f"sample {KEY} is not whole: it has no 'cf.png'"),
    "interchanged": (ordered(4, 1, 2, 3, 0, 5, 6, 7), f"{OTHER} is not whole: it has no 'cf.png'"),
    "in parts": (
        lambda m: write_archive([*m[:4], (f"{OTHER}.txt", b""), *m[4:], (f"{KEY}.txt", b"")]),
        f"sample {KEY} is not whole: its members do not lie side by side",
    ),
    "no image": (ordered(1, 2, 3), f"sample {KEY} is not whole: it has no 'png'"),
    "no counterfactual": (ordered(0, 2, 3), f"{KEY} is not whole: it has no 'cf.png'"),
    "no mask": (ordered(0, 1, 3), f"{KEY} is not whole: it has no 'mask.png'"),
    "no JSON": (ordered(0, 1, 2, 4, 5, 6, 7), f"{KEY} is not whole: it has no 'json'"),
    "a JSON alone": (ordered(3), "it has no 'png', 'cf.png', 'mask.png'"),
    "two formats": (
        lambda m: write_archive([(f"{KEY}.jpg", b""), *m[:4]]),
        "it has images in png and jpg, expected one format",
    ),
    "another format": (renamed(f"{KEY}.png", f"{KEY}.webp"), "it has no 'png'"),
    "a renamed member": (renamed(f"{KEY}.mask", f"{KEY}.seg"), "it has no 'mask.png'"),
    "a renamed sample": (renamed(f"{OTHER}.json", f"{OTHER}x.json"), f"{OTHER} is not whole"),
}

# what does not fit in a sample, without decoding a picture
PARTS = {
    "a list": (replaced(JSON, always(b"[]")), "json does not describe a sample (Input should"),
    "null": (replaced(JSON, always(b"null")), "Input should be an object"),
    "a number": (replaced(JSON, always(b"7")), "Input should be an object"),
    "nothing": (replaced(JSON, always(b"")), f"{KEY}.json does not describe a sample"),
    "a cut JSON": (replaced(JSON, cut(0.5)), "Invalid JSON"),
    "deep lists": (replaced(JSON, always(DEEP)), "recursion limit"),
    "deep lists in a field": (replaced(JSON, raw("more", DEEP + b"]" * 200_000)), "recursion"),
    "deep lists in a text": (replaced(JSON, fields(mentions=DEEP.decode())), "'mentions' is"),
    "UTF-16": (replaced(JSON, lambda d: d.decode().encode("utf-16")), "Invalid JSON"),
    "no UTF-8": (replaced(JSON, raw("text", b'"\xff"')), "Invalid JSON"),
    "half a character": (replaced(JSON, raw("text", b'"\\ud800"')), "Invalid JSON"),
    "another key": (replaced(JSON, fields(key=OTHER)), f"JSON is about sample '{OTHER}'"),
    "a key that is a number": (replaced(JSON, fields(key=7)), "'key' is 7"),
    "no text": (replaced(JSON, fields(text=None)), "'text' is missing"),
    "no class ids": (replaced(JSON, fields(class_ids=None)), "'class_ids' is missing"),
    "class ids that are a number": (replaced(JSON, fields(class_ids=5)), "'class_ids' is 5"),
    "class ids that are null": (replaced(JSON, raw("class_ids", b"null")), "'class_ids' is None"),
    "a class that is a word": (replaced(JSON, fields(class_ids=["x"])), "'class_ids.0' is 'x'"),
    "a class that is a text": (replaced(JSON, fields(class_ids=["0"])), "'class_ids.0' is '0'"),
    "half a class": (replaced(JSON, fields(class_ids=[1.5])), "'class_ids.0' is 1.5"),
    "a truth as class": (replaced(JSON, fields(class_ids=[True])), "'class_ids.0' is True"),
    "a negative class": (replaced(JSON, fields(class_ids=[-1])), "'class_ids.0' is -1"),
    "a class beyond labels": (replaced(JSON, fields(class_ids=[65534])), "'class_ids.0' is 65534"),
    "a class of 400 digits": (replaced(JSON, raw("class_ids", b"[1e400]")), "'class_ids.0' is"),
    "no class": (replaced(JSON, fields(class_ids=[], class_names=[])), "'class_ids' is []"),
    "two classes of one name": (replaced(JSON, fields(class_ids=[0, 1])), "a name for each"),
    "a name that is a number": (replaced(JSON, fields(class_names=[3])), "'class_names.0' is 3"),
    "a seed that is none": (replaced(JSON, raw("seed", b"NaN")), "'seed' is nan"),
    "a seed of 65 bits": (replaced(JSON, fields(seed=2**64)), "'seed' is 18446744073709551616"),
    "a seed of 5,000 digits": (replaced(JSON, raw("seed", b"9" * 5000)), "Invalid JSON"),
    "a negative index": (replaced(JSON, fields(index=-1)), "'index' is -1"),
    "another width": (replaced(JSON, fields(width=17)), "its JSON says (17, 16) pixels, but it"),
    "mentions that are a list": (replaced(JSON, fields(mentions=[])), "'mentions' is []"),
    "mentions that are no JSON": (replaced(JSON, fields(mentions="[{")), "'mentions' is '[{'"),
    "a mention before the text": (
        replaced(JSON, fields(mentions='[{"class_id":0,"start":-1,"end":2}]')),
        "'mentions.0.start' is -1",
    ),
    "a box at infinity": (
        replaced(
            JSON, fields(counterfactual_boxes='[{"class_id":0,"score":1,"xyxy":[0,0,1,1e999]}]')
        ),
        "'counterfactual_boxes.0.xyxy.3' is inf",
    ),
    "an IoU that is none": (replaced(JSON, instance(predicted_iou=float("nan"))), "iou' is nan"),
    "an instance of more": (replaced(JSON, instance(mask="x")), "unknown key 'instances.0.mask'"),
    "run lengths that crash": (replaced(JSON, instance(rle="zzzz")), "no digit of COCO's"),
    "run lengths of a larger mask": (
        replaced(JSON, instance(rle=encode_rle(np.ones((300, 300), bool)))),
        "instance 0 has run lengths with runs of 90000 pixels, expected 16 x 16",
    ),
    "no run lengths": (replaced(JSON, instance(rle="")), "no run, expected one at least"),
    "cut run lengths": (replaced(JSON, instance(rle="d1P")), "a run that is cut"),
    "run lengths in Greek": (replaced(JSON, instance(rle="\u03b1")), "no digit of COCO's"),
    "run lengths without end": (replaced(JSON, instance(rle="0" * 10**6)), "digits for 256 pixels"),
    "a huge image": (
        replaced(PNG, always(png_of(30_000, 30_000))),
        f"{KEY}.png is to have 30000 x",
    ),
    "a huge mask": (
        replaced(MASK, always(png_of(2**31 - 1, 2**31 - 1, depth=16, colours=0))),
        f"{KEY}.mask.png is to have 2147483647 x 2147483647 pixels, expected 1 to 80000000",
    ),
    "an image of no pixel": (replaced(PNG, always(png_of(0, 0))), "is to have 0 x 0 pixels"),
    "a counterfactual of no row": (replaced(CF, always(png_of(16, 0))), "cf.png is to have 16 x 0"),
    "a smaller counterfactual": (
        replaced(CF, always(picture("RGB", 8))),
        f"{KEY}.cf.png has (8, 8) pixels, expected (16, 16) as {KEY}.png",
    ),
    "a smaller mask": (replaced(MASK, always(picture("I;16", 8))), f"{KEY}.mask.png has (8, 8)"),
    "a JPEG called PNG": (
        replaced(PNG, always(picture("RGB", kind="JPEG"))),
        f"{KEY}.png is a jpg file, expected png as its name says",
    ),
    "a TIFF": (replaced(PNG, always(picture("RGB", kind="TIFF"))), "expected a JPEG or PNG"),
    "a text as image": (replaced(PNG, always(b"GIF89a")), f"{KEY}.png starts with b'GIF89a'"),
    "no image bytes": (replaced(CF, always(b"")), f"{KEY}.cf.png starts with b''"),
    "a PNG of one line": (
        replaced(PNG, lambda png: png[:22]),
        f"{KEY}.png (22 bytes) is not a readable",
    ),
}

# what only a decoder finds: the reader that decodes says it, `iterate` gives the bytes
PIXELS = {
    "a cut image": (replaced(PNG, cut(0.7)), f"{KEY}.png \\(\\d+ bytes\\) is not a readable image"),
    "a cut mask": (replaced(MASK, cut(0.7)), f"{KEY}.mask.png .* is not a readable image"),
    "a bit of an image": (replaced(PNG, flipped(60)), f"{KEY}.png .* is not a readable image"),
    "no pixels": (replaced(PNG, always(png_of(16, 16))), f"{KEY}.png .* is not a readable image"),
    "a text of 8 MB": (replaced(PNG, text_bomb(8 << 20)), f"{KEY}.png .* is not .*: Decompressed"),
    "an animation": (replaced(PNG, always(animated())), f"{KEY}.png .* it is animated"),
    "a palette": (replaced(PNG, always(picture("P"))), f"{KEY}.png has Pillow mode 'P'"),
    "transparency": (replaced(PNG, always(picture("RGBA"))), "mode 'RGBA'; expected RGB or L"),
    "16 bits": (replaced(PNG, always(picture("I;16"))), f"{KEY}.png has Pillow mode 'I;16'"),
    "a mask of 8 bits": (replaced(MASK, always(picture("L"))), "mask.png has Pillow mode 'L'"),
    "a mask in colour": (replaced(MASK, always(picture("RGB"))), "mask.png has Pillow mode 'RGB'"),
    "a strange chunk": (
        replaced(PNG, with_chunk(b"\0\1\2\3", b"")),
        f"{KEY}.png .* is not a readable image",
    ),
}


def expect(read, path, words, *names):
    with pytest.raises(DataError, match=words) as refusal:
        read(path)
    assert all(name in str(refusal.value) for name in ("s.tar", *names))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("case", TARS)
def test_an_archive_of_something_else_is_refused(case, reader, members, shard):
    build, words = TARS[case]
    path = shard(build(members))
    expect(READERS[reader], path, re.escape(words))
    expect(read_index, path, re.escape(words))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("case", PARTS)
def test_a_sample_of_parts_that_do_not_fit_is_refused(case, reader, members, shard):
    build, words = PARTS[case]
    path = shard(build(members))
    assert list(read_index(path)) == [KEY, OTHER]
    expect(READERS[reader], path, re.escape(words), KEY)


@pytest.mark.parametrize("reader", DECODERS)
@pytest.mark.parametrize("case", PIXELS)
def test_a_picture_that_cannot_be_decoded_is_named(case, reader, members, shard):
    build, words = PIXELS[case]
    path = shard(build(members))
    assert len(list(iterate(path))) == 2
    expect(DECODERS[reader], path, f"s.tar: .*{words}")


@pytest.mark.parametrize("reader", [*READERS, "pages"])
def test_what_others_write_beside_the_members_is_left_alone(reader, samples, members, shard):
    """Times in notes, members of other kinds, fields of other programs, members in any order."""
    extra = fields(my_field={"a": [1, None]}, width=None, height=None)
    parts = [(name, extra(data) if name.endswith(".json") else data) for name, data in members]
    noted = note(record("mtime", "1.5") + record("SCHILY.xattr.user", "x"))
    data = noted + bytes(write_archive([*parts[:4][::-1], (f"{KEY}.txt", b"?"), *parts[4:]]))
    path = shard(data)
    assert list(iterate(path)) == samples
    assert {**READERS, **DECODERS}[reader](path)


def test_what_webdataset_writes_is_read(samples, members, tmp_path):
    path = tmp_path / "s.tar"
    with webdataset.TarWriter(str(path)) as out:
        for start in (0, 4):
            parts = {name.partition(".")[2]: data for name, data in members[start : start + 4]}
            out.write({"__key__": samples[start // 4].key, **parts})
    assert list(iterate(path)) == samples


def test_a_member_that_needs_too_much_memory_is_refused(tmp_path):
    path = tmp_path / "s.tar"
    with path.open("wb") as file:
        file.write(header("a.png", MAX_MEMBER_BYTES + 1))
        file.truncate(2 * MAX_MEMBER_BYTES)
    expect(read_index, path, f"a.png has {MAX_MEMBER_BYTES + 1} bytes, expected at most")


def test_the_first_name_is_read_with_the_same_care():
    assert first_name(header("a.png", 10**9), "it") == "a.png"
    with pytest.raises(DataError, match=r"it is no archive .*'a\.png' is a symbolic"):
        first_name(header("a.png", kind=tarfile.SYMTYPE), "it")
