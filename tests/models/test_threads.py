"""Work that is spread over threads."""

import os
import threading

import pytest

from models.threads import in_threads, usable_cores


def test_results_come_in_the_order_of_the_items():
    assert in_threads(lambda number: number**2, range(100)) == [n**2 for n in range(100)]


def test_nothing_to_do_and_one_thing_need_no_thread():
    here = threading.get_ident()
    assert in_threads(lambda _: threading.get_ident(), []) == []
    assert in_threads(lambda _: threading.get_ident(), ["one"]) == [here]


@pytest.mark.skipif(usable_cores() < 2, reason="one core has nobody to meet")
def test_several_are_worked_on_at_once():
    both = threading.Barrier(2, timeout=30)
    assert sorted(in_threads(lambda _: both.wait(), "ab")) == [0, 1]


def test_an_error_of_one_item_is_raised():
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda number: 1 // number, [1, 0, 1])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_cores_that_a_process_may_not_use_do_not_count():
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(own)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, own)
    assert usable_cores() == len(own)
