"""The report as Markdown."""

import re

from evaluation.reports.markdown import escaped
from evaluation.reports.page import format_report
from storage.metrics import write_metrics


def run_folder(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    write_metrics(run, [{"step": 0, "loss": 2.0}, {"step": 1, "loss": 1.0}])
    return run


def test_the_report_shows_the_dataset_and_the_run_and_links_to_no_file(make_dataset, tmp_path):
    text = format_report(make_dataset(), [run_folder(tmp_path)])
    assert text.startswith("# drawn-set\n")
    assert "18 requested = 14 written + " in text
    assert "2 at the start, 1 at the end" in text
    assert len(re.findall(r"!\[[^\]\n]*\]\(data:image/jpeg;base64,[\w+/=]+\)", text)) == 18
    assert "file:" not in text
    assert len(text.encode()) < 1_000_000


def test_a_report_that_is_too_large_leaves_its_pictures_out(make_dataset, tmp_path):
    text = format_report(make_dataset(), [run_folder(tmp_path)], max_bytes=5000)
    assert "data:image" not in text
    assert len(text.encode()) < 5000


def test_texts_from_outside_are_neither_markup_nor_cells():
    assert escaped("a | <b>\n[c](d) `e`") == r"a \| \<b\> \[c\](d) \`e\`"
