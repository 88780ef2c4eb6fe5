import os
import signal
import threading
import time

import pytest

from storage.errors import LeaseHeldError
from storage.leases import take_lease, wait_for_lease
from storage.objects import open_objects

PATH = ".engine/leases/prompts/0badcafe-000000.lock"


def test_a_second_holder_is_refused_and_told_who_has_it(root):
    objects = open_objects(root)
    lease = take_lease(objects, PATH)
    who = rf"held by process {os.getpid()} on .* for 0 s"
    with pytest.raises(LeaseHeldError, match=who) as held:
        take_lease(open_objects(root), PATH)
    if "://" in root:  # nobody can stop a process of another host, and its lease runs out
        assert "if that process has died, for at most 92 s more" in str(held.value)
        assert "stop that process" not in str(held.value)
    else:
        assert "wait for it, or stop that process" in str(held.value)
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


SHIFTED = """
import sys, time
from storage.errors import LeaseHeldError
from storage.leases import take_lease, wait_for_lease
from storage.objects import open_objects
real, shift = time.time, float(sys.argv[3])
time.time = lambda: real() + shift
objects, path, lifetime = open_objects(sys.argv[1]), sys.argv[2], float(sys.argv[4])
"""
SHIFTED_HOLDER = f"""{SHIFTED}
lease = take_lease(objects, path, lifetime=lifetime)
print("held", flush=True)
sys.stdin.readline()
try:
    lease.check()
except LeaseHeldError as error:
    print(error, flush=True)
lease.release()
"""
SHIFTED_TAKER = f"""{SHIFTED}
end = time.monotonic() + 1.0
while time.monotonic() < end:
    try:
        take_lease(objects, path, lifetime=lifetime)
        print("stolen")
    except LeaseHeldError as error:
        said = str(error)
print(said, flush=True)
sys.stdin.readline()
start = time.monotonic()
wait_for_lease(objects, path, lambda: None, lifetime=lifetime).release()
print(time.monotonic() - start, flush=True)
"""


@pytest.mark.parametrize("shift", [3600.0, -3600.0])
def test_a_wrong_clock_neither_steals_a_live_lease_nor_waits_for_ever(bucket, in_process, shift):
    lifetime = 1.5
    holder = in_process(SHIFTED_HOLDER, bucket.root, PATH, str(-shift), str(lifetime))
    assert holder.stdout.readline() == "held\n"
    taker = in_process(SHIFTED_TAKER, bucket.root, PATH, str(shift), str(lifetime))
    assert f"held by process {holder.pid} on" in (said := taker.stdout.readline()), said
    os.kill(holder.pid, signal.SIGSTOP)  # it lives, but renews nothing
    taker.stdin.write("\n")
    taker.stdin.flush()
    waited = float(taker.stdout.readline())
    assert waited < lifetime + 4.0  # dates of servers are whole seconds
    os.kill(holder.pid, signal.SIGCONT)
    output, errors = holder.communicate("\n", timeout=30)
    assert "nothing was committed, another worker may have it" in output, errors
    taker.communicate(timeout=30)
    take_lease(open_objects(bucket.root), PATH).release()


def test_a_dead_holder_is_told_by_watching_where_the_server_dates_nothing(bucket, in_process):
    bucket.clock = lambda: 0.0
    lifetime = 1.0
    holder = in_process(SHIFTED_HOLDER, bucket.root, PATH, "0", str(lifetime))
    assert holder.stdout.readline() == "held\n"
    objects = open_objects(bucket.root)
    end = time.monotonic() + 1.5 * lifetime

    def check() -> None:
        if time.monotonic() > end:
            raise TimeoutError

    with pytest.raises(TimeoutError):  # it is renewed, so nobody gets it
        wait_for_lease(objects, PATH, check, lifetime=lifetime)
    holder.kill()
    start = time.monotonic()
    wait_for_lease(objects, PATH, lambda: None, lifetime=lifetime).release()
    assert lifetime < time.monotonic() - start < 6 * lifetime


def test_who_waits_gets_a_lease_when_it_is_given_back(root):
    objects = open_objects(root)
    lease = take_lease(objects, PATH)
    threading.Timer(0.4, lease.release).start()
    start = time.monotonic()
    checks: list[float] = []
    wait_for_lease(objects, PATH, lambda: checks.append(time.monotonic())).release()
    assert 0.3 < time.monotonic() - start < 3
    assert len(checks) > 2


def test_who_waits_can_be_stopped(root):
    objects = open_objects(root)
    lease = take_lease(objects, PATH)
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wait_for_lease(objects, PATH, check)
    lease.release()
    take_lease(objects, PATH).release()


def test_a_renewal_is_another_version(bucket):
    # the same bytes would have the same version, and a dead lease could not be told from a live one
    objects = open_objects(bucket.root)
    lease = take_lease(objects, PATH, lifetime=0.9)
    versions = set()
    end = time.monotonic() + 0.8
    while time.monotonic() < end:
        versions.add(objects.read_version(PATH)[1]["e_tag"])
    assert len(versions) >= 2
    lease.check()
    lease.release()


def test_a_lease_outlives_trouble_that_is_shorter_than_its_lifetime(bucket):
    objects = open_objects(bucket.root)
    lease = take_lease(objects, PATH, lifetime=1.5)
    bucket.trouble = (503, "SlowDown")
    time.sleep(1.1)
    bucket.trouble = None
    time.sleep(1.1)
    lease.check()
    lease.release()


def test_a_holder_whose_rights_end_loses_the_lease_in_words(bucket, caplog):
    objects = open_objects(bucket.root)
    lease = take_lease(objects, PATH, lifetime=0.6)
    bucket.trouble = (403, "AccessDenied", "no")
    time.sleep(0.8)
    with pytest.raises(LeaseHeldError, match="nothing was committed"):
        lease.check()
    lease.release()  # what the holder has done is not undone by it
    assert "not renewed, will try again" in caplog.text
    assert "not given back, free in 1 s" in caplog.text
    bucket.trouble = None
    wait_for_lease(objects, PATH, lambda: None, lifetime=0.6).release()


def test_what_is_no_lease_is_respected_until_it_is_old(bucket):
    objects = open_objects(bucket.root)
    objects.replace(PATH, b"{}")
    with pytest.raises(LeaseHeldError, match="held by another worker"):
        take_lease(objects, PATH)
    bucket.times[f"some/prefix/{PATH}"] -= 100
    take_lease(objects, PATH).release()


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
