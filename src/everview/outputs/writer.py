"""Writing in the background, with a short queue between the network and the disk."""

import queue
import threading

from everview.pipeline.results import FrameResult, Sink


class BackgroundWriter:
    """A sink that hands results to another sink in a thread of its own.

    The queue is short: when the disk is slower than the network, `write` waits, and the results of
    a few frames are all that is ever held. What the thread runs into is raised by the next call;
    results that were waiting then are dropped, those written before stay.
    """

    def __init__(self, sink: Sink, *, capacity: int = 8) -> None:
        """Start the thread.

        Args:
            capacity: results that may wait.
        """
        self._sink = sink
        self._queue: queue.Queue[FrameResult | None] = queue.Queue(capacity)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="everview-writer", daemon=True)
        self._thread.start()

    def write(self, result: FrameResult) -> None:
        """Queue a result; waits while the queue is full."""
        self._raise_error()
        self._queue.put(result)

    def flush(self) -> None:
        """Return when all queued results are on disk."""
        self._queue.join()
        self._raise_error()
        self._sink.flush()

    def close(self) -> None:
        """Write what is queued and end the thread; raises what went wrong in it."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        self._raise_error()

    def __enter__(self) -> "BackgroundWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write what is queued, also when the body failed; its error then counts, not ours."""
        try:
            self.close()
        except Exception:
            if kind is None:
                raise

    def _work(self) -> None:
        while (result := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._sink.write(result)
                except BaseException as error:  # noqa: BLE001  -- handed to the other thread
                    self._error = error
            del result  # or it would stay in memory until the next one comes
            self._queue.task_done()
        self._queue.task_done()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
