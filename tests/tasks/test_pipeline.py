"""Steps side by side: the device is held around a network's call alone, and nothing gets lost."""

import threading
import time
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.pipeline import IN_FLIGHT, Pipeline
from tasks.progress import Progress, StoppedError
from tasks.turns import Turns

SECONDS = 20
"""Longer than anything here takes."""


def a_pipeline(progress=None, **options) -> Pipeline:
    progress = progress or Progress()
    turns = Turns(lambda: progress.check("the wait"), name=lambda _device: "")
    return Pipeline(progress, "pairs of a", **{"hold": lambda: turns.turn("cpu"), **options})


@given(
    naps=st.lists(st.sampled_from([0, 0, 0.001, 0.003]), max_size=12),
    size=st.integers(1, 5),
    held=st.booleans(),
)
def test_results_come_in_order_whatever_a_step_takes(naps, size, held):
    told = []
    pipeline = a_pipeline(tell=told.append) if held else a_pipeline(hold=None, tell=told.append)

    def do(step):
        with pipeline.turn():
            found = [(index, nap) for index, nap in step]
        time.sleep(sum(nap for _, nap in step))
        return found

    steps = pipeline.run(enumerate(naps), size, do)
    assert [each for step in steps for each in step] == list(enumerate(naps))
    assert told == [min(end, len(naps)) for end in range(size, len(naps) + size, size)]


def test_a_network_computes_while_what_came_before_is_written():
    pipeline, second_computes = a_pipeline(), threading.Event()

    def do(step):
        with pipeline.turn():
            if step == [1]:
                second_computes.set()
        if step == [0]:
            assert second_computes.wait(SECONDS), "the device was kept"
        return step

    assert pipeline.run(range(2), 1, do) == [[0], [1]]


def test_a_step_is_read_while_another_computes_and_few_are_in_memory():
    pipeline, taken, first_read, begun = a_pipeline(), [], threading.Event(), []

    def items():
        for number in range(10):
            taken.append(number)
            if number == IN_FLIGHT - 1:
                first_read.set()
            yield number

    def do(step):
        begun.append(step[0])
        with pipeline.turn():
            assert first_read.wait(SECONDS), "nothing is read ahead"
            assert len(taken) <= begun[0] + len(begun) + IN_FLIGHT
        return step

    assert len(pipeline.run(items(), 1, do)) == 10


def test_networks_compute_one_after_the_other():
    pipeline, computing, order = a_pipeline(), threading.Lock(), []

    def do(step):
        with pipeline.turn():
            assert computing.acquire(blocking=False)
            order.append(step[0])
            time.sleep(0.001)
            computing.release()

    pipeline.run(range(20), 1, do)
    assert sorted(order) == list(range(20))


def test_only_the_network_counts_as_seconds_of_the_device():
    pipeline, inside = a_pipeline(), []

    def do(_step):
        with pipeline.turn():
            began = time.monotonic()
            time.sleep(0.05)
            inside.append(time.monotonic() - began)
        time.sleep(0.2)

    began = time.monotonic()
    pipeline.run(range(2), 1, do)
    assert sum(inside) <= pipeline.held_seconds < time.monotonic() - began - 0.15


def test_a_stop_lets_a_step_that_computes_end_and_none_begin():
    progress = Progress()
    told = []
    pipeline = a_pipeline(progress, tell=told.append)
    computed = []

    def do(step):
        with pipeline.turn():
            if step == [2, 3]:
                progress.stop()
            computed.append(step)
        return step

    assert pipeline.run(range(20), 2, do) == sorted(computed)
    assert [2, 3] in computed
    assert len(computed) <= IN_FLIGHT
    assert told == [2 * number for number in range(1, len(computed) + 1)]


def test_a_stop_before_the_first_step_makes_nothing():
    progress = Progress()
    progress.stop()
    assert a_pipeline(progress).run(iter(lambda: pytest.fail("read"), 0), 2, list) == []


def test_after_an_error_no_network_computes_any_more():
    pipeline, computed = a_pipeline(), []

    def do(step):
        with pipeline.turn():
            computed.append(step[0])
            if step == [1]:
                time.sleep(0.1)
                message = "no such thing"
                raise ValueError(message)
        return step

    with pytest.raises(ValueError, match="no such thing"):
        pipeline.run(range(20), 1, do)
    assert len(computed) <= 2 + IN_FLIGHT
    with (
        pytest.raises(StoppedError, match="pairs of a has failed in another step"),
        pipeline.turn(),
    ):
        pass


def test_an_error_of_what_is_read_is_told_and_steps_that_wait_are_given_up():
    held, progress = threading.Event(), Progress()

    @contextmanager
    def hold():
        held.wait(0.2)
        yield

    pipeline = a_pipeline(progress, hold=hold)

    def items():
        yield 0
        message = "damaged"
        raise OSError(message)

    computed = []

    def do(step):
        with pipeline.turn():
            computed.append(step)

    with pytest.raises(OSError, match="damaged"):
        pipeline.run(items(), 1, do)
    assert computed == []


def test_another_shard_computes_between_two_steps():
    progress = Progress()
    turns = Turns(lambda: progress.check("the wait"), name=lambda _device: "")
    between, may_go_on = threading.Event(), threading.Event()
    first = Pipeline(progress, "masks of a", lambda: turns.turn("cpu", of="a"))
    other = Pipeline(progress, "pairs of b", lambda: turns.turn("cpu", of="b"))

    def do(step):
        if step == [1]:
            assert may_go_on.wait(SECONDS)
        with first.turn():
            pass
        between.set()

    def beside(_step):
        assert between.wait(SECONDS)
        with other.turn():
            may_go_on.set()

    thread = threading.Thread(target=other.run, args=(range(1), 1, beside))
    thread.start()
    assert len(first.run(range(2), 1, do)) == 2
    thread.join()
