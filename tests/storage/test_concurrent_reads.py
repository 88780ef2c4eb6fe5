import threading
import time

import pytest

from storage.concurrent_reads import read_in_order
from storage.objects import open_objects


def test_many_objects_come_in_order_and_those_that_vanished_as_none(root):
    objects = open_objects(root)
    paths = [f"a/{number:03}" for number in range(100)]
    for path in paths[::2]:
        objects.write_new(path, path.encode())
    wanted = [(path, path.encode() if path in paths[::2] else None) for path in paths]
    assert list(objects.read_many(paths)) == wanted
    assert list(objects.read_many(paths, workers=1)) == wanted
    assert list(objects.read_many([])) == []


def test_reads_are_side_by_side_and_their_number_is_bounded():
    lock, reading, most, begun = threading.Lock(), 0, 0, 0

    def read(path: str) -> bytes:
        nonlocal reading, most, begun
        with lock:
            reading, begun = reading + 1, begun + 1
            most = max(most, reading)
        time.sleep(0.002)
        with lock:
            reading -= 1
        return path.encode()

    results = read_in_order(read, [str(number) for number in range(1000)], 4)
    assert next(results) == ("0", b"0")
    time.sleep(0.3)
    assert begun <= 32 * 4 + 16  # a caller that is slow does not fill the memory
    assert [path for path, _ in results] == [str(number) for number in range(1, 1000)]
    assert most == 4


def test_an_error_arrives_and_ends_the_reading():
    begun: list[str] = []

    def read(path: str) -> bytes:
        begun.append(path)
        if path == "3":
            raise ValueError(path)
        return b""

    with pytest.raises(ValueError, match="3"):
        list(read_in_order(read, [str(number) for number in range(10_000)], 2))
    assert len(begun) < 200
