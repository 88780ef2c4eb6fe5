"""The reader of Open Images V7's point files."""

import codecs
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.benchmarks.open_images import OpenImages, PointSample
from storage.errors import DataError, InputError

HEADER = "ImageId,X,Y,Label,EstimatedYesNo,Source,YesVotes,NoVotes,UnsureVotes,TextLabel"
ROWS = [
    "00aa,0.0,0.0,/m/0cat,yes,ih,3,0,0,",
    "00aa,1.0,1.0,/m/0cat,no,ih,0,3,0,",
    "00aa,0.5,0.25,/m/0bus,unsure,ih,1,1,1,",
    "00aa,0.5,0.25,,yes,ih,1,0,0,a red thing",
    "0bb0,0.19,0.99,/m/0bus,yes,ih,1,0,0,",
    "00cc,0.5,0.5,/m/0cow,unsure,ih,0,0,2,",
    "00aa,0.5,0.25,/m/0bus,no,ih,0,1,0,",
]
NAMES = 'LabelName,DisplayName\n/m/0bus,Bus\n/m/0cat,Cat\n/m/0cow,Cow\n/m/0elf,"Elf, small"\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, ROWS)
    (tmp_path / "oidv7-class-descriptions.csv").write_text(NAMES)
    (tmp_path / "validation").mkdir()
    for name, size in (("00aa", (10, 8)), ("0bb0", (100, 50))):
        Image.new("RGB", size, (9, 9, 9)).save(tmp_path / "validation" / f"{name}.jpg")
    return tmp_path


def write(root: Path, rows: list[str], split: str = "val") -> None:
    text = "\n".join([HEADER, *rows]) + "\n"
    (root / f"oidv7-{split}-annotations-point-labels.csv").write_text(text)


def samples(root: Path, limit: int | None = None) -> list[PointSample]:
    return list(OpenImages(root, "val", limit))


def test_points_are_read_at_the_pixel_that_they_lie_in(root: Path) -> None:
    first, second = samples(root)
    assert (first.key, first.image.shape) == ("00aa", (8, 10, 3))
    # The last point stands apart from its image's others in the file.
    assert first.rows.tolist() == [0, 7, 2]
    assert first.columns.tolist() == [0, 9, 5]
    assert first.class_ids.tolist() == [1, 1, 0]
    assert first.is_yes.tolist() == [True, False, False]
    assert (second.rows.tolist(), second.columns.tolist()) == ([49], [19])


def test_unsure_answers_and_free_text_are_left_out_and_counted(root: Path) -> None:
    first, second = samples(root)
    assert (first.num_unsure, first.num_unnamed) == (1, 1)
    assert (second.num_unsure, second.num_unnamed) == (0, 0)


def test_the_class_set_is_what_somebody_answered_for(root: Path) -> None:
    benchmark = OpenImages(root, "val", None)
    assert benchmark.labels == ("/m/0bus", "/m/0cat")
    assert benchmark.classes.names == ("Bus", "Cat")
    assert benchmark.classes.phrases == (("Bus",), ("Cat",))
    assert not benchmark.classes.background
    assert OpenImages(root, "val", 1).labels == benchmark.labels


def test_classes_know_their_like_in_the_vocabulary(root: Path) -> None:
    names = NAMES + "/m/0bow,Bow\n"
    (root / "oidv7-class-descriptions.csv").write_text(names)
    write(root, [*ROWS, "00aa,0.5,0.5,/m/0bow,yes,ih,1,0,0,", "00aa,0,0,/m/0elf,no,ih,1,0,0,"])
    classes = OpenImages(root, "val", None).classes
    found = dict(zip(classes.names, classes.class_ids, strict=True))
    # Two classes of the vocabulary are called bow, none is called elf.
    assert found == {"Bow": None, "Bus": 172, "Cat": 224, "Elf, small": None}


def test_an_image_without_a_yes_or_a_no_is_none_of_the_split(root: Path) -> None:
    assert len(OpenImages(root, "val", None)) == 2
    assert [sample.key for sample in samples(root)] == ["00aa", "0bb0"]


def test_a_limit_takes_some_images(root: Path) -> None:
    assert [sample.key for sample in samples(root, limit=1)] == ["00aa"]
    assert len(OpenImages(root, "val", 1)) == 1


def test_only_the_whole_validation_split_stands_beside_published_numbers(root: Path) -> None:
    assert OpenImages(root, "val", None).published_as == ""
    many = [f"{index:016x},0.5,0.5,/m/0cat,yes,ih,1,0,0," for index in range(36_100)]
    for split in ("val", "test"):
        write(root, many, split)
    assert OpenImages(root, "val", None).published_as == "OpenImages-V7"
    assert OpenImages(root, "val", 35_000).published_as == ""
    assert OpenImages(root, "test", None).published_as == ""


def test_the_folder_that_fiftyone_makes_is_read_too(root: Path) -> None:
    official = samples(root)
    folder = root / "validation"
    (folder / "labels").mkdir()
    (folder / "metadata").mkdir()
    (folder / "data").mkdir()
    answers = root / "oidv7-val-annotations-point-labels.csv"
    answers.rename(folder / "labels" / "points.csv")
    (root / "oidv7-class-descriptions.csv").rename(folder / "metadata" / "point_classes.csv")
    for path in folder.glob("*.jpg"):
        path.rename(folder / "data" / path.name)
    again = samples(root)
    assert [sample.key for sample in again] == [sample.key for sample in official]
    np.testing.assert_array_equal(again[0].class_ids, official[0].class_ids)


def test_missing_tables_are_named_with_where_they_are_had(root: Path) -> None:
    (root / "oidv7-class-descriptions.csv").unlink()
    with pytest.raises(InputError, match=r"oidv7-class-descriptions\.csv missing; fetch https://"):
        OpenImages(root, "val", None)
    with pytest.raises(InputError, match=r"oidv7-test-annotations.*s3://open-images-dataset/test/"):
        OpenImages(root, "test", None)
    with pytest.raises(InputError, match="split validation does not exist, expected one of train"):
        OpenImages(root, "validation", None)


def test_missing_images_are_counted_and_named(root: Path) -> None:
    OpenImages(root, "val", None).check()
    (root / "validation" / "0bb0.jpg").unlink()
    benchmark = OpenImages(root, "val", None)
    assert benchmark.missing_files() == [root / "validation" / "0bb0.jpg"]
    with pytest.raises(InputError, match=r"1 files of the split val are missing: .*0bb0\.jpg"):
        benchmark.check()


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("00aa,1.01,0.5,/m/0cat,yes,ih,1,0,0,", r"point of image 00aa at \(1\.01, 0\.5\)"),
        ("00aa,,0.5,/m/0cat,yes,ih,1,0,0,", r"at \(nan, 0\.5\)"),
        ("00aa,left,0.5,/m/0cat,yes,ih,1,0,0,", "not a table of points"),
        ("00aa,0.5,0.5,/m/0cat,maybe,ih,1,0,0,", "the answer 'maybe', expected one of yes, no"),
        ("00aa,0.5", "not a table of points"),
        ("00aa,0.5,0.5,/m/0new,yes,ih,1,0,0,", "no name for 1 labels, such as /m/0new"),
    ],
)
def test_a_damaged_row_is_refused(root: Path, row: str, problem: str) -> None:
    write(root, [*ROWS, row])
    with pytest.raises(DataError, match=problem):
        _ = OpenImages(root, "val", None).classes


def test_damaged_tables_are_refused(root: Path) -> None:
    answers = root / "oidv7-val-annotations-point-labels.csv"
    for text in ("", "ImageId,X,Y,Label\n00aa,0,0,/m/0cat\n"):
        answers.write_text(text)
        with pytest.raises(DataError, match="not a table of points"):
            len(OpenImages(root, "val", None))
    for rows in ([], ["00aa,0.5,0.25,/m/0bus,unsure,ih,1,1,1,"]):
        write(root, rows)
        with pytest.raises(DataError, match="no yes and no no"):
            len(OpenImages(root, "val", None))
    write(root, ROWS)
    (root / "oidv7-class-descriptions.csv").write_text("/m/0bus,Bus\n")
    with pytest.raises(DataError, match="starts with /m/0bus,Bus, expected LabelName"):
        _ = OpenImages(root, "val", None).classes


def cells(rows: list[str]) -> list[list[str]]:
    return [row.split(",") for row in [HEADER, *rows]]


def joined(table: list[list[str]], sign: str, end: str = "\r\n") -> str:
    return "".join(sign.join(row) + end for row in table)


def with_decimal_comma(table: list[list[str]]) -> list[list[str]]:
    return [[cell.replace(".", ",") for cell in row] for row in table]


def quoted(table: list[list[str]]) -> list[list[str]]:
    return [[f'"{cell}"' for cell in row] for row in table]


TABLE = cells(ROWS)
SAVED = {
    "a mark": codecs.BOM_UTF8 + joined(TABLE, ",").encode(),
    "semicolons": joined(TABLE, ";").encode(),
    "decimal commas": codecs.BOM_UTF8 + joined(with_decimal_comma(TABLE), ";").encode(),
    "decimal commas in quotes": joined(quoted(with_decimal_comma(TABLE)), ",", "\n").encode(),
    "text for Unicode": joined(with_decimal_comma(TABLE), "\t").encode("utf-16"),
    "UTF-16 without a mark": joined(TABLE, "\t").encode("utf-16-le"),
    "lone returns": joined(TABLE, ",", "\r").encode(),
    "a line for the delimiter": b"sep=;\r\n" + joined(with_decimal_comma(TABLE), ";").encode(),
    "another order": joined([row[::-1] for row in TABLE], ",").encode(),
    "capitals": joined([[c.upper() for c in TABLE[0]], *TABLE[1:]], ",").encode(),
    "blanks in the names": joined([[f" {c} " for c in TABLE[0]], *TABLE[1:]], ",").encode(),
    "empty lines": b"\n\n" + joined(TABLE, ",", "\n").encode() + b"\n\n\n",
}


@pytest.mark.parametrize("how", SAVED)
def test_a_point_file_that_went_through_a_spreadsheet_is_read(root: Path, how: str) -> None:
    expected = samples(root)
    (root / "oidv7-val-annotations-point-labels.csv").write_bytes(SAVED[how])
    for old, new in zip(expected, samples(root), strict=True):
        assert (old.key, old.class_ids.tolist()) == (new.key, new.class_ids.tolist())
        assert (old.rows.tolist(), old.columns.tolist()) == (
            new.rows.tolist(),
            new.columns.tolist(),
        )
        assert (old.num_unsure, old.num_unnamed) == (new.num_unsure, new.num_unnamed)


@pytest.mark.parametrize(
    "text",
    [
        NAMES.replace("\n", "\r\n"),
        "DisplayName;LabelName;Note\r\nBus;/m/0bus;\r\nCat;/m/0cat;x\r\n",
        '"LabelName"\t"DisplayName"\n"/m/0bus"\t"Bus"\n"/m/0cat"\t"Cat"\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
def test_class_names_that_went_through_a_spreadsheet_are_read(
    root: Path, text: str, encoding: str
) -> None:
    (root / "oidv7-class-descriptions.csv").write_bytes(text.encode(encoding))
    assert OpenImages(root, "val", None).classes.names == ("Bus", "Cat")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it has nothing, and lacks ImageId, X, Y, Label, EstimatedYesNo"),
        (b"ImageID,Source,LabelName,Confidence\n", "it has ImageId, Source, .*lacks X, Y, Label"),
        (HEADER.encode() + b"\n00aa,0.5,0.5,\xff\xfe,yes,,,,,\n", "UTF8"),
        (HEADER.encode() + b"\n00aa,0.5,0.5,\0,y\0s,,,,,\n", "answer 'y"),
        (HEADER.encode() + b'\n"00aa,0.5,0.5,/m/0cat,yes,ih,1,0,0,\n', "not a table of points"),
    ],
)
def test_what_is_no_point_file_is_refused_with_what_it_is(
    root: Path, data: bytes, words: str
) -> None:
    (root / "oidv7-val-annotations-point-labels.csv").write_bytes(data)
    with pytest.raises(DataError, match=rf"point-labels\.csv .*{words}"):
        len(OpenImages(root, "val", None))


def test_names_in_another_encoding_are_refused_with_the_byte(root: Path) -> None:
    (root / "oidv7-class-descriptions.csv").write_bytes(NAMES.encode() + b"/m/x,caf\xe9\n")
    with pytest.raises(
        DataError, match=r"descriptions\.csv holds the byte 0xe9 .*save it as UTF-8"
    ):
        _ = OpenImages(root, "val", None).classes


def test_a_folder_that_is_laid_out_nearly_right_is_named(root: Path) -> None:
    (root / "validation" / "00aa.jpg").rename(root / "validation" / "00aa.JPG")
    assert [sample.key for sample in samples(root)] == ["00aa", "0bb0"]
    with pytest.raises(InputError, match=rf"missing; {root} is laid out as the benchmark"):
        OpenImages(root / "validation", "val", None)
    answers = root / "oidv7-val-annotations-point-labels.csv"
    answers.rename(answers.with_name(answers.name + ".gz"))
    with pytest.raises(InputError, match=r"missing; .*\.csv\.gz is there: unpack it"):
        OpenImages(root, "val", None)
