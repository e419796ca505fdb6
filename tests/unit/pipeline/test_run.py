from types import SimpleNamespace

import pytest
import torch

from everview.errors import ConfigError, InputError, NotEnoughMemoryError
from everview.frames.frame import Frame
from everview.geometry.prediction import Prediction
from everview.pipeline.config import RunConfig
from everview.pipeline.results import FrameResult, Observer, Sink
from everview.pipeline.run import (
    FrameStream,
    MemoryGuard,
    Recorded,
    batch_results,
    bytes_as_text,
    pass_on,
    stream_results,
)


def _frame(index, *flags):
    image = torch.zeros(3, 4, 6)
    return Frame(image=image, timestamp=0.0, index=index, original_size=(4, 6), flags=tuple(flags))


def _prediction(count):
    pose = torch.arange(float(count))[None, :, None].expand(1, count, 9)
    return Prediction(pose_encoding=pose, pose_encoding_iterations=pose[None], network_size=(4, 6))


class Stream:
    def __init__(self):
        self.seen = []

    def step(self, image):
        self.seen.append(image.index)
        return _prediction(1)

    def report(self):
        return SimpleNamespace(
            state_bytes=100 * len(self.seen), taken_bytes=70 * len(self.seen), fixed_bytes=40,
            is_bounded=False, shortages=0,
        )  # fmt: skip


class Notes:
    """A sink and an observer at once."""

    def __init__(self):
        self.written, self.told = [], []

    def write(self, result):
        self.written.append(result.frame.index)

    def flush(self):
        pass

    def begin(self, num_frames):
        pass

    def frame(self, result, *, is_new):
        self.told.append((result.frame.index, is_new))

    def phase(self, name):
        pass


def test_the_helpers_of_these_tests_offer_what_the_pipeline_asks_for():
    assert isinstance(Stream(), FrameStream)
    assert isinstance(Notes(), Sink)
    assert isinstance(Notes(), Observer)


def test_bad_frames_pass_by_the_network():
    stream = Stream()
    frames = [_frame(0), _frame(1, "black"), _frame(2)]
    found = list(stream_results(stream, frames))
    assert stream.seen == [0, 2]
    assert [result.prediction is None for result in found] == [False, True, False]
    assert [result.memory for result in found] == [100, 0, 200]
    assert [result.fixed_memory for result in found] == [40, 0, 40]
    assert found[0].latency > 0


def test_a_result_comes_before_the_next_frame_is_asked_for():
    asked = []

    def frames():
        for index in range(3):
            asked.append(index)
            yield _frame(index)

    next(stream_results(Stream(), frames()))
    assert asked == [0]


def test_frames_that_a_saved_stream_has_seen_are_not_given_to_it_again():
    stream = Stream()
    frames = [_frame(0), _frame(1, "black"), _frame(2), _frame(3)]
    found = list(stream_results(stream, frames, num_seen=2))
    assert stream.seen == [3]
    assert [result.prediction is None for result in found] == [True, True, True, False]


def test_all_at_once_gives_each_frame_its_own_prediction():
    given = []

    def network(frames):
        given.extend(frame.index for frame in frames)
        return _prediction(len(frames))

    found = list(batch_results(network, [_frame(0), _frame(1, "black"), _frame(2)]))
    assert given == [0, 2]
    assert [r.prediction and r.prediction.pose_encoding[0, 0, 0] for r in found] == [0, None, 1]


def test_all_at_once_with_nothing_usable_tells_the_reasons():
    with pytest.raises(InputError, match="none of 2 frames is usable: black; other size"):
        list(batch_results(_prediction, [_frame(0, "black"), _frame(1, "other size")]))


def test_a_stream_with_nothing_usable_passes_all_on_and_then_tells_the_reasons():
    results = stream_results(Stream(), [_frame(0, "black"), _frame(1, "black")])
    assert [result.frame.index for result in (next(results), next(results))] == [0, 1]
    with pytest.raises(InputError, match=r"none of 2 frames is usable: black$"):
        next(results)
    assert list(stream_results(Stream(), [])) == []


def _results(*frames):
    return [FrameResult(frame=frame, prediction=None) for frame in frames]


def test_what_was_recorded_is_not_written_again():
    notes = Notes()
    found = _results(_frame(0), _frame(1, "black"), _frame(2))
    earlier = [Recorded(0, False), Recorded(1, True)]
    assert list(pass_on(found, notes, notes, recorded=earlier)) == found
    assert notes.written == [2]
    assert notes.told == [(0, False), (1, False), (2, True)]


@pytest.mark.parametrize(
    ("earlier", "message"),
    [
        ([Recorded(0, False), Recorded(7, False)], "had frame 7, there is now frame 1"),
        ([Recorded(0, True)], r"had frame 0 \(skipped\), there is now frame 0"),
        ([Recorded(i, False) for i in range(3)], "now ends before frame 2"),
    ],
)
def test_a_source_that_has_changed_is_refused(earlier, message):
    notes = Notes()
    with pytest.raises(InputError, match=message):
        list(pass_on(_results(_frame(0), _frame(1)), notes, notes, recorded=earlier))


def _after(memory, fixed=0):
    prediction = _prediction(1)
    frame = _frame(5)
    return FrameResult(
        frame=frame, prediction=prediction, memory=memory, taken_memory=memory, fixed_memory=fixed
    )


@pytest.mark.parametrize(
    ("num_frames", "limit", "fitting"),
    [(100, 12_799, 64), (100, 12_800, None), (2, 199, 1), (1, 99, 0), (64, 6400, None)],
)
def test_the_forecast_counts_storage_that_doubles(num_frames, limit, fitting):
    guard = MemoryGuard(limit, num_frames)
    if fitting is None:
        guard.check(_after(100))
        return
    with pytest.raises(NotEnoughMemoryError, match=f"enough for {fitting} frames"):
        guard.check(_after(100))


@pytest.mark.parametrize(
    ("num_frames", "limit", "fitting"),
    [(100, 13_699, 64), (100, 13_700, None), (2, 1099, 1), (1, 999, 0), (64, 7300, None)],
)
def test_the_forecast_leaves_out_what_does_not_grow(num_frames, limit, fitting):
    guard, result = MemoryGuard(limit, num_frames), _after(1000, fixed=900)
    if fitting is None:
        guard.check(result)
        return
    with pytest.raises(NotEnoughMemoryError, match=f"enough for {fitting} frames"):
        guard.check(result)


def test_the_forecast_is_what_a_real_stream_takes_in_the_end(tiny):
    images = torch.rand(5, 3, 28, 42)
    frames = [
        Frame(image=image, timestamp=0.0, index=i, original_size=(28, 42))
        for i, image in enumerate(images)
    ]
    with tiny.stream("full") as stream:
        results = list(stream_results(stream, frames))
    needed = results[-1].memory
    MemoryGuard(needed, 5).check(results[0])
    with pytest.raises(NotEnoughMemoryError, match="enough for 4 frames"):
        MemoryGuard(needed - 1, 5).check(results[0])


def test_small_amounts_are_not_rounded_to_nothing():
    with pytest.raises(NotEnoughMemoryError, match=r"need 40\.0 kB .* the limit is 200 bytes"):
        MemoryGuard(200, 1).check(_after(40_000))


def test_a_live_source_is_stopped_when_the_limit_is_passed():
    guard = MemoryGuard(1000, None)
    guard.check(_after(600))
    guard.check(_results(_frame(1, "black"))[0])
    with pytest.raises(NotEnoughMemoryError, match=r"after frame 5, .*; all frames so far are"):
        guard.check(_after(1200))
    with pytest.raises(NotEnoughMemoryError, match="nothing has been written yet") as caught:
        guard.check(_after(1200), is_saved=False)
    assert "--resume" not in str(caught.value)
    MemoryGuard(None, 10**9).check(_after(10**12))


def test_amounts_are_told_in_units_that_people_read():
    assert bytes_as_text(999) == "999 bytes"
    assert bytes_as_text(1_000) == "1.0 kB"
    assert bytes_as_text(40_000) == "40.0 kB"
    assert bytes_as_text(1_500_000) == "1.5 MB"
    assert bytes_as_text(2_340_000_000) == "2.3 GB"


def test_settings_that_exclude_each_other_are_refused():
    with pytest.raises(ConfigError, match="memory-limit must be > 0, got 0"):
        RunConfig(memory_limit=0)
    with pytest.raises(ConfigError, match="checkpoint-every concerns a stream; with batch"):
        RunConfig(checkpoint_every=5, batch=True)
    assert "memory_limit" not in RunConfig().numbers()
    assert RunConfig(every=3).numbers()["every"] == 3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"memory": "magic"}, "memory policy 'magic' is unknown"),
        ({"size": 50}, "size must be a positive multiple of 14; got 50: use 56"),
        ({"size": 0}, "size must be a positive multiple of 14; got 0: use 14"),
        ({"every": 0}, "every must be 1 or more; got 0"),
        ({"every": 2, "fps": 3.0}, "give one"),
        ({"start": -1.0}, "start must be 0 or more"),
        ({"start": 3.0, "end": 2.0}, "end must be after start=3"),
        ({"stream": -1}, "stream must be 0 or more; got -1"),
    ],
)
def test_settings_that_are_out_of_range_are_refused_before_a_model_is_loaded(settings, words):
    with pytest.raises(ConfigError, match=words):
        RunConfig(**settings)
