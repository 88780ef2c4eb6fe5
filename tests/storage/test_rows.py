import json

import pytest

from storage.errors import DataError
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

PROMPT = Prompt(
    key="k1",
    text="a café\u2028with a cat",
    counterfactual_text="a café with nothing",
    mentions=(Mention(class_id=3, start=14, end=17),),
    writer="test",
)
LOST = Rejected(key="k2", stage=Stage.PROMPTS, reason=Reason.TEXT_TOO_LONG, detail="90 > 77")
BOX = Box(class_id=3, score=0.1 + 0.2, xyxy=(0.0, 1.0, 2.5, 1e-7))
ROWS = [
    PROMPT,
    LOST,
    Pair(key="k3", width=64, height=48),
    Detection(key="k4", boxes=(BOX,), counterfactual_boxes=()),
    MaskSample(
        key="k5",
        width=8,
        height=8,
        instances=(
            Instance(
                class_id=3, score=0.5, predicted_iou=0.9, xyxy=BOX.xyxy, area=4, rle="P1\\0\\n"
            ),
        ),
    ),
]


def test_every_kind_of_record_comes_back_equal():
    assert read_rows(write_rows(ROWS)) == ROWS


def test_each_line_is_json_that_names_its_record():
    lines = write_rows(ROWS).decode().removesuffix("\n").split("\n")
    assert [json.loads(line)["record"] for line in lines] == [
        "prompt", "rejected", "pair", "detection", "masks",
    ]  # fmt: skip


def test_no_rows_are_no_bytes():
    assert write_rows([]) == b""
    assert read_rows(b"") == []


@pytest.mark.parametrize(
    "line", [b'{"record":"prompt"}', b'{"record":"letter"}', b'{"key":"x"}', b"[]", b'{"record":']
)
def test_a_line_that_is_no_record_is_told_with_its_number(line):
    with pytest.raises(DataError, match="line 2 "):
        read_rows(write_rows([LOST]) + line + b"\n")


def test_rows_split_into_what_went_on_and_what_was_dropped():
    assert split_rows([PROMPT, LOST], Prompt) == ([PROMPT], [LOST])


def test_a_row_of_another_stage_is_told():
    with pytest.raises(DataError, match="a Pair row; expected Prompt or Rejected"):
        split_rows(ROWS, Prompt)
