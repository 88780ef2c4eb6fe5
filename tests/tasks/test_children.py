import sys

import pytest

from storage.errors import (
    BudgetError,
    DataError,
    EngineError,
    IncompleteError,
    InputError,
    LeaseHeldError,
    TransientError,
)
from tasks.children import ChildFailedError, run_child


def script(text):
    return [sys.executable, "-c", text]


def test_the_output_of_a_child_is_kept_in_a_file(tmp_path):
    run_child(script("print('hello')"), tmp_path / "run", "child.log")
    run_child(script("print('again')"), tmp_path / "run", "child.log")
    assert (tmp_path / "run" / "child.log").read_text() == "hello\nagain\n"


@pytest.mark.parametrize(
    "kind",
    [
        BudgetError,
        DataError,
        EngineError,
        IncompleteError,
        InputError,
        LeaseHeldError,
        TransientError,
    ],
)
def test_an_error_of_a_child_is_the_same_error_here(tmp_path, kind):
    text = (
        "import sys\nfrom pathlib import Path\nfrom pydantic import BaseModel\n"
        "from storage.errors import *\nfrom storage.job_files import run_job_file\n"
        "class Job(BaseModel): pass\n"
        f"def work(job): raise {kind.__name__}('step 3 of 8: no way out\\nbut this')\n"
        "sys.exit(run_job_file(Job, work, 'x', ['--config', sys.argv[1]]))"
    )
    job = tmp_path / "job.json"
    job.write_text("{}")
    with pytest.raises(EngineError) as raised:
        run_child([*script(text), str(job)], tmp_path, "child.log")
    assert type(raised.value) is kind
    assert str(raised.value) == "step 3 of 8: no way out but this"


def test_a_byte_that_is_no_text_does_not_end_a_child(tmp_path, caplog):
    caplog.set_level("INFO")
    text = (
        "import sys; out = sys.stdout.buffer; out.write(b'caf\\xe9\\n'); out.flush();print('over')"
    )
    run_child(script(text), tmp_path, "child.log")
    assert (tmp_path / "child.log").read_bytes() == b"caf\xe9\nover\n"
    assert [record.message for record in caplog.records] == ["caf\ufffd", "over"]


@pytest.mark.parametrize("text", ["1/0", "import os; os.kill(os.getpid(), 9)"])
def test_a_child_that_breaks_names_its_log(tmp_path, text):
    with pytest.raises(ChildFailedError, match=r"child\.log"):
        run_child(script(text), tmp_path, "child.log")


def test_a_line_that_looks_like_an_error_is_not_believed_with_another_exit_code(tmp_path):
    text = "import sys; print('error: InputError: steps is -1'); sys.exit(1)"
    with pytest.raises(ChildFailedError, match="code 1"):
        run_child(script(text), tmp_path, "child.log")
