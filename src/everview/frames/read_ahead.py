"""Make items in a background thread, a bounded number of them ahead of the consumer."""

import atexit
import contextlib
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")

PATIENCE_SECONDS = 0.05
"""How often a thread that waits on the queue looks whether the other side has gone."""

JOIN_SECONDS = 15.0
"""Longer than any source may stay silent, so that `close` never waits for ever."""


class ReadAhead(Generic[Item]):
    """An iterator over what another iterator yields in its own thread.

    The thread starts with the first item asked for. It ends when the items do, on `close()`, when
    this object is forgotten, or with the program; an exception in it is raised in the consumer,
    behind the items that were made before it.
    """

    def __init__(self, make_items: Callable[[], Iterator[Item]], *, capacity: int) -> None:
        """Prepare; `make_items` is called in the thread and must not refer to this object."""
        self._worker = _Worker(make_items, capacity)
        # no more than a flag: a collector may run this anywhere, even inside the worker's queue
        self._finalizer = weakref.finalize(self, self._worker.stop.set)

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        worker = self._worker
        if worker.ident is None and not worker.stop.is_set():
            worker.start()
        while not worker.stop.is_set():
            try:
                item = worker.items.get(timeout=PATIENCE_SECONDS)
            except queue.Empty:
                continue
            if not isinstance(item, _End):
                return item
            self.close()
            if item.error is not None:
                raise item.error
        raise StopIteration

    @property
    def is_running(self) -> bool:
        """Whether the thread has been started and has not ended."""
        return self._worker.is_alive()

    def close(self) -> None:
        """Stop the thread and wait for it; items that lie ready are dropped."""
        self._finalizer()
        with contextlib.suppress(queue.Empty):
            while True:
                self._worker.items.get_nowait()  # makes room, so that the thread wakes up at once
        if self.is_running:
            self._worker.join(JOIN_SECONDS)


class _End:
    """The last thing in the queue: why there are no more items."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Worker(threading.Thread):
    """Fills the queue until the items end or `stop` is set."""

    def __init__(self, make_items: Callable[[], Iterator], capacity: int) -> None:
        super().__init__(name="everview-read-ahead", daemon=True)
        self.items: queue.Queue = queue.Queue(maxsize=capacity)
        self.stop = threading.Event()
        self._make_items = make_items
        _workers.add(self)

    def run(self) -> None:
        end = _End()
        try:
            iterator = self._make_items()
            try:
                for item in iterator:
                    if not self._put(item):
                        return
            finally:
                if hasattr(iterator, "close"):
                    iterator.close()  # a generator lets go of its files here, in its own thread
        except BaseException as error:  # noqa: BLE001 - it is raised again in the consumer
            end = _End(error)
        self._put(end)

    def _put(self, item: object) -> bool:
        """Wait for room; False if the consumer has gone."""
        while not self.stop.is_set():
            try:
                self.items.put(item, timeout=PATIENCE_SECONDS)
            except queue.Full:
                continue
            return True
        return False


_workers: weakref.WeakSet[_Worker] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """Wait for threads: one that the ending interpreter cuts off inside C++ aborts the program."""
    running = [worker for worker in _workers if worker.is_alive()]
    for worker in running:
        worker.stop.set()
    for worker in running:
        worker.join(JOIN_SECONDS)
