import pytest
from pydantic import BaseModel

from storage.errors import DataError
from storage.job_files import run_job_file


class Job(BaseModel, extra="forbid"):
    steps: int


def run(path, work=print):
    return run_job_file(Job, work, "python -m job", ["--config", str(path)])


def test_a_job_is_done_and_ends_with_zero(tmp_path):
    (tmp_path / "job.json").write_text('{"steps": 3}')
    done = []
    assert run(tmp_path / "job.json", done.append) == 0
    assert done == [Job(steps=3)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "job.json"),
        ('{"steps": "x"}', "'steps' is 'x'"),
        ('{"stpes": 3}', "did you mean steps?"),
    ],
)
def test_a_file_that_holds_no_job_ends_with_two_and_says_why(tmp_path, capsys, text, message):
    (tmp_path / "job.json").write_text(text)
    assert run(tmp_path / "job.json") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: InputError: ")
    assert message in said


def test_a_file_that_is_not_there_ends_with_two(tmp_path, capsys):
    assert run(tmp_path / "none.json") == 2
    assert "cannot be read" in capsys.readouterr().err


def test_an_error_of_the_work_ends_with_its_own_code(tmp_path, capsys):
    (tmp_path / "job.json").write_text('{"steps": 3}')

    def work(job):
        message = "shard 3 is damaged"
        raise DataError(message)

    assert run(tmp_path / "job.json", work) == 3
    assert capsys.readouterr().err == "error: DataError: shard 3 is damaged\n"
