import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from everview.frames.read_ahead import ReadAhead

pytestmark = pytest.mark.usefixtures("no_thread_left")


class Made:
    """An iterator of numbers that counts what was made, and knows whether it was closed."""

    def __init__(self, stop: int = 10**9, error: Exception | None = None) -> None:
        self.num_made, self.is_closed = 0, threading.Event()
        self._stop, self._error = stop, error

    def numbers(self) -> Iterator[int]:
        try:
            while self.num_made < self._stop:
                self.num_made += 1
                yield self.num_made - 1
            if self._error:
                raise self._error
        finally:
            self.is_closed.set()


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def test_items_come_in_order_and_end():
    assert list(ReadAhead(Made(stop=100).numbers, capacity=3)) == list(range(100))


def test_no_thread_starts_before_the_first_item_is_asked_for():
    made = Made()
    items = ReadAhead(made.numbers, capacity=3)
    assert not items.is_running
    items.close()
    assert list(items) == []
    assert made.num_made == 0


def test_it_runs_ahead_but_not_farther_than_its_capacity():
    made = Made()
    items = ReadAhead(made.numbers, capacity=4)
    assert next(items) == 0
    assert wait_until(lambda: made.num_made == 6)  # 1 taken, 4 ready, 1 in hand
    time.sleep(0.15)
    assert made.num_made == 6
    items.close()


def test_close_ends_the_thread_at_once_and_closes_the_iterator():
    made = Made()
    items = ReadAhead(made.numbers, capacity=2)
    next(items)
    start = time.monotonic()
    items.close()
    assert time.monotonic() - start < 1
    assert not items.is_running
    assert made.is_closed.is_set()
    assert list(items) == []
    items.close()


def test_a_forgotten_reader_ends_its_thread():
    made = Made()
    for _ in ReadAhead(made.numbers, capacity=2):
        break
    gc.collect()
    assert made.is_closed.wait(5)
    assert wait_until(lambda: not any("read-ahead" in t.name for t in threading.enumerate()))


def test_an_exception_comes_after_the_items_before_it():
    items = ReadAhead(Made(stop=3, error=ValueError("torn")).numbers, capacity=8)
    received = []
    with pytest.raises(ValueError, match="torn"):
        received.extend(items)  # the items before the break are kept
    assert received in ([], [0, 1, 2])
    items = ReadAhead(Made(stop=3, error=ValueError("torn")).numbers, capacity=1)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="torn"):
        next(items)
    assert list(items) == []


def test_an_exception_of_the_consumer_leaves_no_thread():
    made = Made()

    def consume():
        for number in ReadAhead(made.numbers, capacity=2):
            if number == 3:
                raise RuntimeError("consumer")

    with pytest.raises(RuntimeError, match="consumer"):
        consume()
    gc.collect()
    assert made.is_closed.wait(5)
    assert wait_until(lambda: not any("read-ahead" in t.name for t in threading.enumerate()))


def test_a_maker_that_fails_at_once_is_told_to_the_consumer():
    def fail():
        raise OSError("no camera")

    with pytest.raises(OSError, match="no camera"):
        next(ReadAhead(fail, capacity=2))


def test_the_end_of_the_program_waits_for_the_thread():
    script = (
        "import itertools, time\n"
        "from everview.frames.read_ahead import ReadAhead\n"
        "def numbers():\n"
        "    try: yield from itertools.count()\n"
        "    finally: time.sleep(0.2); print('closed')\n"
        "items = ReadAhead(numbers, capacity=2)\n"
        "assert next(items) == 0\n"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, "closed\n", "")


def test_many_readers_come_and_go():
    for capacity in range(1, 9):
        made = Made()
        items = ReadAhead(made.numbers, capacity=capacity)
        assert next(items) == 0
        items.close()
        assert made.is_closed.is_set()
