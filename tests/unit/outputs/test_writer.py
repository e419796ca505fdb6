import threading

import pytest

from everview.outputs.writer import BackgroundWriter


class Slow:
    """A sink that waits for permission, and fails on demand."""

    def __init__(self, *, fails_at=None):
        self.taken, self.may_go, self.fails_at = [], threading.Semaphore(0), fails_at

    def write(self, result):
        self.may_go.acquire()
        if result.frame.index == self.fails_at:
            raise OSError("disk gone")
        self.taken.append(result.frame.index)

    def flush(self):
        self.taken.append("flushed")


def test_results_arrive_in_order_and_flush_waits_for_them(results):
    sink = Slow()
    with BackgroundWriter(sink) as writer:
        for result in results(5):
            writer.write(result)
        threading.Timer(0.05, sink.may_go.release, [5]).start()
        writer.flush()
        assert sink.taken == [0, 1, 2, 3, 4, "flushed"]


def test_closing_writes_what_is_queued(results):
    sink = Slow()
    sink.may_go.release(3)
    with BackgroundWriter(sink) as writer:
        for result in results(3):
            writer.write(result)
    assert sink.taken == [0, 1, 2]
    writer.close()  # may be called again


def test_a_full_queue_makes_the_network_wait(results):
    sink = Slow()
    frames = results(4)
    with BackgroundWriter(sink, capacity=2) as writer:
        for result in frames[:3]:  # one in the thread's hand, two in the queue
            writer.write(result)
        late = threading.Thread(target=writer.write, args=(frames[3],))
        late.start()
        late.join(0.1)
        assert late.is_alive()
        sink.may_go.release(4)
        late.join(2)
        assert not late.is_alive()
    assert sink.taken == [0, 1, 2, 3]


@pytest.mark.parametrize("call", ["write", "flush", "close"])
def test_what_goes_wrong_in_the_thread_is_raised_by_the_next_call(results, call):
    sink = Slow(fails_at=1)
    sink.may_go.release(10)
    writer = BackgroundWriter(sink)
    for result in results(2):
        writer.write(result)
    writer._queue.join()
    with pytest.raises(OSError, match="disk gone"):
        writer.write(results(3)[2]) if call == "write" else getattr(writer, call)()
    assert sink.taken == [0]
    with pytest.raises(OSError, match="disk gone"):
        writer.close()


def test_an_error_of_the_body_counts_more_than_one_of_the_thread(results):
    sink = Slow(fails_at=0)
    sink.may_go.release(1)
    writer = BackgroundWriter(sink)
    writer.write(results(1)[0])
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)  # does not raise its own
    assert not writer._thread.is_alive()
    with pytest.raises(OSError, match="disk gone"):
        writer.__exit__(None, None, None)
