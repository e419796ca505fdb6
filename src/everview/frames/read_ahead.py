"""Make items in a background thread, a bounded number of them ahead of the consumer."""

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


class _End:
    """The last thing in the queue: why there are no more items."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class ReadAhead(Generic[Item]):
    """An iterator over what another iterator yields in its own thread.

    The thread starts with the first item asked for. It ends when the items do, on `close()`, or
    when this object is forgotten; an exception in it is raised in the consumer, behind the items
    that were made before it.
    """

    def __init__(self, make_items: Callable[[], Iterator[Item]], *, capacity: int) -> None:
        """Prepare; `make_items` is called in the thread and must not refer to this object."""
        self._make_items = make_items
        self._queue: queue.Queue = queue.Queue(maxsize=capacity)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._finalizer = weakref.finalize(self, _ask_to_stop, self._stop, self._queue)

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        if self._thread is None and not self._stop.is_set():
            arguments = (self._make_items, self._queue, self._stop)
            self._thread = threading.Thread(
                target=_work, args=arguments, name="everview-read-ahead", daemon=True
            )
            self._thread.start()
        while not self._stop.is_set():
            try:
                item = self._queue.get(timeout=PATIENCE_SECONDS)
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
        return self._thread is not None and self._thread.is_alive()

    def close(self) -> None:
        """Stop the thread and wait for it; items that lie ready are dropped."""
        self._finalizer()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(JOIN_SECONDS)


def _work(
    make_items: Callable[[], Iterator[Item]], items: queue.Queue, stop: threading.Event
) -> None:
    end = _End()
    try:
        iterator = make_items()
        try:
            for item in iterator:
                if not _put(items, stop, item):
                    return
        finally:
            if hasattr(iterator, "close"):
                iterator.close()  # a generator lets go of its files here, in its own thread
    except BaseException as error:  # noqa: BLE001 - it is raised again in the consumer
        end = _End(error)
    _put(items, stop, end)


def _put(items: queue.Queue, stop: threading.Event, item: object) -> bool:
    """Wait for room; False if the consumer has gone."""
    while not stop.is_set():
        try:
            items.put(item, timeout=PATIENCE_SECONDS)
        except queue.Full:
            continue
        return True
    return False


def _ask_to_stop(stop: threading.Event, items: queue.Queue) -> None:
    stop.set()
    try:
        while True:
            items.get_nowait()  # makes room, so that a waiting thread wakes up at once
    except queue.Empty:
        return
