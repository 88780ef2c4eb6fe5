import fcntl
import sys

import pytest

from storage.errors import InputError, LeaseHeldError
from tasks.children import ChildFailedError, run_child


def script(text):
    return [sys.executable, "-c", text]


def test_the_output_of_a_child_is_kept_in_a_file(tmp_path):
    run_child(script("print('hello')"), tmp_path / "run", "child.log")
    run_child(script("print('again')"), tmp_path / "run", "child.log")
    assert (tmp_path / "run" / "child.log").read_text() == "hello\nagain\n"


def test_a_child_that_refuses_its_input_is_believed(tmp_path):
    text = "import sys; sys.stderr.write('error: steps is -1\\n'); sys.exit(2)"
    with pytest.raises(InputError, match=r"^steps is -1$"):
        run_child(script(text), tmp_path, "child.log")


@pytest.mark.parametrize("text", ["1/0", "import os; os.kill(os.getpid(), 9)"])
def test_a_child_that_breaks_names_its_log(tmp_path, text):
    with pytest.raises(ChildFailedError, match=r"child\.log"):
        run_child(script(text), tmp_path, "child.log")


def test_a_second_child_in_the_same_folder_is_refused(tmp_path):
    with (tmp_path / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LeaseHeldError, match="another process is at work"):
            run_child(script("pass"), tmp_path, "child.log")
