"""One at a time: threads, processes, and a holder that is killed."""

import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from storage.errors import InputError, LeaseHeldError
from storage.locks import hold_file, hold_folder, refuse_other_files

HOLDER = """
import sys, time
from pathlib import Path
from storage.locks import hold_file, hold_folder, refuse_other_files
with hold_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder `run`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_folder_that_another_process_holds_is_refused_with_its_name_and_a_way_out(
    tmp_path, holder
):
    folder = tmp_path / "run"
    expected = f"somebody is at work in {folder}: .* held by process {holder.pid} on .* wait for it"
    with pytest.raises(LeaseHeldError, match=expected) as error, hold_folder(folder):
        pass
    assert re.search("stop that process, or choose another folder$", str(error.value))


def test_the_lock_of_a_process_that_is_killed_is_free(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with hold_folder(tmp_path / "run"):
        pass


def test_two_threads_of_a_process_exclude_each_other(tmp_path):
    inside, most, refused = [], [], []
    barrier = threading.Barrier(8)

    def work():
        barrier.wait()
        for _ in range(50):
            try:
                with hold_folder(tmp_path):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except LeaseHeldError:
                refused.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert len(most) + len(refused) == 400


def test_a_folder_that_cannot_be_made_is_wrong_input(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written to"), hold_folder(tmp_path / "file"):
        pass


def test_a_file_is_written_by_one_who_leaves_no_lock(tmp_path):
    page = tmp_path / "new" / "page.html"
    with hold_file(page):
        with pytest.raises(LeaseHeldError, match=f"held by process {os.getpid()}"), hold_file(page):
            pass
        with hold_file(page.with_name("other.html")):
            pass
    assert not any(page.parent.iterdir())


def test_folders_of_others_are_refused_and_ours_are_not(tmp_path):
    def check(folder):
        refuse_other_files(folder, "a run", marks=("done-*",), early=("begun",))

    folder = tmp_path / "run"
    check(folder)  # it is made later
    with hold_folder(folder):
        check(folder)
    (folder / ".done-1.0badcafe.tmp").touch()
    (folder / "logs").mkdir()
    (folder / "begun").touch()
    check(folder)
    (folder / "notes.txt").touch()
    with pytest.raises(InputError, match=r"such as 'notes.txt'\), expected a run or an empty"):
        check(folder)
    (folder / "done-1").touch()
    check(folder)  # notes about a run of ours
