import hashlib
import io

import pyarrow as pa
import pytest
from pyarrow import parquet

from storage.errors import DataError
from storage.manifest import (
    SCHEMA,
    count_outcomes,
    decode_manifest,
    describe_samples,
    encode_manifest,
    read_classes,
)
from storage.records import Prompt


@pytest.fixture
def rows(sample, plan_of, dropped_of, names):
    samples = [sample(0), sample(1, class_id=0)]
    plan = plan_of(samples, 2)
    dropped = dropped_of(plan, samples)
    prompt = Prompt(
        key=dropped[0].key,
        text="a train",
        counterfactual_text="nothing",
        mentions=samples[0].mentions,
        writer="w",
    )
    return describe_samples(plan, names, samples=samples, dropped=dropped, prompts=[prompt])


def test_every_planned_sample_has_a_row_that_comes_back(rows):
    assert decode_manifest(encode_manifest(rows)) == rows
    assert [row.status for row in rows] == ["written", "written", "rejected", "rejected"]


def test_written_rows_prove_their_bytes_and_measure_their_masks(rows, sample):
    row = rows[0]
    assert row.image_sha256 == hashlib.sha256(sample(0).image_bytes).hexdigest()
    assert row.mask_class_ids == (1204,)
    assert row.mask_areas == (16,)
    assert row.instance_scores == (0.5,)
    assert (row.width, row.height) == (16, 16)


def test_dropped_rows_say_where_why_and_what_the_text_was(rows):
    row = rows[2]
    assert (row.stage, row.reason, row.detail) == ("detections", "class-not-found", "0.1")
    assert (row.text, row.class_names) == ("a train", ("train",))
    assert row.image_sha256 == ""


def test_the_file_has_a_typed_schema_without_nulls(rows):
    table = parquet.read_table(io.BytesIO(encode_manifest(rows)))
    assert table.schema.equals(SCHEMA)
    assert table.schema.field("class_ids").type == pa.list_(pa.int32())
    assert all(column.null_count == 0 for column in table.columns)
    assert table.schema.metadata[b"magicseg_manifest_version"] == b"1"


def test_the_same_rows_give_the_same_bytes(rows):
    assert encode_manifest(rows) == encode_manifest(list(rows))


def test_samples_are_counted_by_class_and_fate(rows):
    assert count_outcomes(encode_manifest(rows)) == {
        ("cat", "written"): 1,
        ("train", "written"): 1,
        ("train", "rejected"): 2,
    }


def test_the_classes_of_what_was_written_are_read_alone(rows):
    written = {row.key: row.class_ids for row in rows if row.status == "written"}
    assert len(written) == 2
    assert read_classes(encode_manifest(rows)) == written
    with pytest.raises(DataError, match="m is not a readable Parquet file"):
        read_classes(encode_manifest(rows)[:-9], name="m")


def test_a_planned_sample_without_a_fate_is_told(sample, plan_of, names):
    plan = plan_of([sample(0)], 1)
    with pytest.raises(DataError, match="1 samples written and 0 dropped do not match the 2"):
        describe_samples(plan, names, samples=[sample(0)], dropped=[])


def test_a_sample_with_two_fates_is_told(sample, plan_of, dropped_of, names):
    plan = plan_of([sample(0)])
    with pytest.raises(DataError, match="exactly one fate"):
        describe_samples(plan, names, samples=[sample(0)], dropped=dropped_of(plan, []))


def test_a_manifest_of_another_version_is_refused(rows):
    table = parquet.read_table(io.BytesIO(encode_manifest(rows)))
    buffer = io.BytesIO()
    other = table.replace_schema_metadata({b"magicseg_manifest_version": b"2"})
    parquet.write_table(other, buffer)
    with pytest.raises(DataError, match="version 2; this engine reads version 1"):
        decode_manifest(buffer.getvalue())


def test_a_cut_manifest_is_told(rows):
    with pytest.raises(DataError, match="not a readable Parquet"):
        decode_manifest(encode_manifest(rows)[:-7])
