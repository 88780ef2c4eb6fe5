import os
import signal
import threading
import time

import pytest

from storage.errors import LeaseHeldError
from storage.leases import take_lease
from storage.objects import open_objects

PATH = ".engine/leases/prompts/0badcafe-000000.lock"


def test_a_second_holder_is_refused_and_told_who_has_it(root):
    objects = open_objects(root)
    lease = take_lease(objects, PATH)
    with pytest.raises(LeaseHeldError, match=rf"held by process {os.getpid()} on .* for 0 s"):
        take_lease(open_objects(root), PATH)
    lease.check()
    lease.release()


def test_a_released_lease_can_be_taken_again(root):
    objects = open_objects(root)
    for _ in range(3):
        take_lease(objects, PATH).release()


def test_leases_on_other_outputs_do_not_disturb(root):
    objects = open_objects(root)
    leases = [take_lease(objects, f"{PATH}{number}") for number in range(3)]
    for lease in leases:
        lease.release()


HOLD = """
import sys
from storage.leases import take_lease
from storage.objects import open_objects
lease = take_lease(open_objects(sys.argv[1]), sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


def test_a_killed_holder_frees_a_local_lease_at_once(tmp_path, in_process):
    process = in_process(HOLD, str(tmp_path), PATH)
    assert process.stdout.readline() == "held\n"
    objects = open_objects(tmp_path)
    with pytest.raises(LeaseHeldError, match=f"process {process.pid} on"):
        take_lease(objects, PATH)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    take_lease(objects, PATH).release()


def test_a_renewed_lease_outlives_its_lifetime():
    objects = open_objects("memory://renewed")
    lease = take_lease(objects, PATH, lifetime=1.0)
    time.sleep(1.5)
    lease.check()
    with pytest.raises(LeaseHeldError):
        take_lease(objects, PATH)
    lease.release()


def test_an_expired_lease_is_taken_over_and_its_old_holder_notices(monkeypatch):
    objects = open_objects("memory://expired")
    sleeper = take_lease(objects, PATH)
    later = {clock: getattr(time, clock)() + 1000 for clock in ("time", "monotonic")}
    with monkeypatch.context() as asleep:  # a machine that slept renewed nothing
        for clock, value in later.items():
            asleep.setattr(time, clock, lambda value=value: value)
        heir = take_lease(objects, PATH)
        with pytest.raises(LeaseHeldError, match="nothing was committed"):
            sleeper.check()
    sleeper.release()
    heir.check()
    with pytest.raises(LeaseHeldError):
        take_lease(objects, PATH)
    heir.release()


def test_a_stolen_lease_is_noticed_at_the_next_renewal():
    objects = open_objects("memory://stolen")
    lease = take_lease(objects, PATH, lifetime=0.3)
    objects.replace(PATH, b"{}")
    time.sleep(0.4)
    with pytest.raises(LeaseHeldError, match="lost"):
        lease.check()
    lease.release()
    assert objects.read(PATH) == b"{}"


def test_a_renewal_whose_answer_was_lost_does_not_lose_the_lease():
    objects = open_objects("memory://lost-answer")
    lease = take_lease(objects, PATH, lifetime=1.0)
    objects.replace(PATH, objects.read(PATH))  # same holder, newer version
    time.sleep(1.5)
    lease.check()
    lease.release()
    take_lease(objects, PATH).release()


def test_of_many_threads_one_gets_the_lease(root):
    objects = open_objects(root)
    start = threading.Barrier(6)
    leases, refused = [], []

    def take() -> None:
        start.wait()
        try:
            leases.append(take_lease(objects, PATH))
        except LeaseHeldError as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(leases), len(refused)) == (1, 5)
    leases[0].release()


COUNT = """
import sys
from pathlib import Path
from storage.errors import LeaseHeldError
from storage.leases import take_lease
from storage.objects import open_objects
counter, done = Path(sys.argv[1], "counter"), 0
while done < 100:
    try:
        lease = take_lease(open_objects(sys.argv[1]), sys.argv[2])
    except LeaseHeldError:
        continue
    counter.write_text(str(int(counter.read_text()) + 1))
    lease.release()
    done += 1
"""


def test_two_processes_never_hold_a_lease_at_once(tmp_path, in_process):
    (tmp_path / "counter").write_text("0")
    processes = [in_process(COUNT, str(tmp_path), PATH) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert (tmp_path / "counter").read_text() == "200"
