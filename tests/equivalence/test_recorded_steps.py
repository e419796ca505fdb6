"""A step that is recorded once and run again gives the bits of a step that is taken.

Recording bakes in every Python number, as a CUDA graph does: what changes from frame to frame must
be in tensors that are written in place.
"""

from itertools import chain

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from everview.errors import ConfigError
from everview.memory import POLICIES, parse
from everview.model.capture import CapturedStream, record_on_gpu
from everview.model.network import build
from everview.model.presets import presets

BOUNDED = [name for name in POLICIES if name != "full"]
P, H, D = 6, 2, 32


def frame(seed):
    draws = torch.Generator().manual_seed(seed)
    return [torch.randn(1, H, P, D, generator=draws) for _ in range(3)]


def taken(memory, q, k, v):
    memory.append(k, v)
    heads = memory.attend(q)
    memory.settle()
    return heads


class Tape(TorchDispatchMode):
    """Takes operations down as a CUDA graph does: numbers as they are, tensors by their place."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        places = {t.untyped_storage().data_ptr() for t in tree_leaves(args) if torch.is_tensor(t)}
        results = [t for t in tree_leaves(result) if torch.is_tensor(t)]
        is_view = all(t.untyped_storage().data_ptr() in places for t in results)
        if func._schema.is_mutable or not is_view:
            self.operations.append((func, args, kwargs or {}, results))
        return result

    def replay(self):
        for func, args, kwargs, results in self.operations:
            again = [t for t in tree_leaves(func(*args, **kwargs)) if torch.is_tensor(t)]
            if not func._schema.is_mutable:
                for place, new in zip(results, again, strict=True):
                    place.copy_(new)


@pytest.mark.parametrize("bits", ["", ",bits=8", ",bits=4"])
@pytest.mark.parametrize("name", BOUNDED)
def test_a_recorded_frame_of_one_layer_is_an_eager_one_to_the_bit(name, bits):
    recorded, eager = (parse(f"{name}:tokens=31{bits}").layer_memory(1) for _ in range(2))
    for i in range(9):
        taken(recorded, *frame(i))
        taken(eager, *frame(i))
    assert recorded.is_routine
    layout = recorded.layout()
    inputs = frame(9)
    with Tape() as tape:  # takes the frame
        found = taken(recorded, *inputs)
    taken(eager, *frame(9))
    for i in range(10, 30):
        for buffer, new in zip(inputs, frame(i), strict=True):
            buffer.copy_(new)
        tape.replay()
        recorded.count_again()
        assert torch.equal(found, taken(eager, *frame(i)))
    held, expected = recorded.tensors(), eager.tensors()
    assert all(torch.equal(held[key], expected[key]) for key in expected)
    assert recorded.layout() == layout
    for i in range(30, 34):  # and steps can be taken again
        assert torch.equal(taken(recorded, *frame(i)), taken(eager, *frame(i)))


@pytest.mark.parametrize("name", BOUNDED)
def test_a_memory_that_is_not_full_is_not_routine(name):
    memory = parse(f"{name}:tokens=30").layer_memory(1)
    for i in range(5):
        assert not memory.is_routine
        taken(memory, *frame(i))  # all slots are taken, but nothing was forgotten yet
    assert not memory.is_routine
    taken(memory, *frame(5))
    assert memory.is_routine


class Recorder:
    """In the place of CUDA graphs: takes a step down, undoes it, and can run it again."""

    def __init__(self, state):
        self.state, self.recordings, self.replays = state, 0, 0

    def __call__(self, step):
        held = list(chain.from_iterable(map(written, self.state.memories().values())))
        before = [tensor.clone() for tensor in held]
        with Tape() as tape:
            answer = step()
        for tensor, old in zip(held, before, strict=True):
            tensor.copy_(old)
        self.recordings += 1

        def replay():
            self.replays += 1
            tape.replay()

        return replay, answer


def written(memory):
    """All that a step writes to."""
    beside = (memory.arrived, memory.unit_sum, memory.score)
    return [*memory._held.values(), *memory._extra.values(), *filter(torch.is_tensor, beside)]


def captured(stream):
    recorder = Recorder(stream._state)
    return CapturedStream(stream, recorder), recorder


def assert_same(found, expected):
    for name, value in vars(expected).items():
        if torch.is_tensor(value):
            assert torch.equal(getattr(found, name), value), name


TEXTS = [f"{name}:frames=3,camera=3" for name in BOUNDED] + [
    "late_merge:frames=3,camera=3,bits=8",
    "key_diversity:frames=3,camera=3,bits=4",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_stream_with_recorded_steps_is_one_without_to_the_bit(tiny, tmp_path, text):
    images = torch.rand(12, 3, 28, 42)
    (stream, recorder), eager = captured(tiny.stream(text)), tiny.stream(text)
    for image in images[:9]:
        assert_same(stream.step(image), eager.step(image))
    assert (recorder.recordings, recorder.replays) == (1, 4)
    assert stream.report() == eager.report()
    stream.save(tmp_path / "s.safetensors")
    other = tiny.resume(tmp_path / "s.safetensors")
    for image in images[9:]:
        expected = eager.step(image)
        assert_same(stream.step(image), expected)
        assert_same(other.step(image), expected)
    assert recorder.replays == 7


def test_where_the_host_has_something_to_do_steps_are_taken(tiny, monkeypatch):
    monkeypatch.setattr("everview.memory.policies.diversity.REFRESHED_EVERY", 9)
    monkeypatch.setattr("everview.memory.policies.diversity.SHARED_EVERY", 12)
    text = "key_diversity:frames=3,camera=3,budget=adaptive"
    (stream, recorder), eager = captured(tiny.stream(text)), tiny.stream(text)
    replayed = []
    for i, image in enumerate(torch.rand(22, 3, 28, 42), start=1):
        before = recorder.replays
        assert_same(stream.step(image), eager.step(image))
        if recorder.replays > before:
            replayed.append(i)
    assert not {9, 12, 18} & set(replayed)
    assert {8, 11, 17, 22} <= set(replayed)
    assert recorder.recordings > 1  # budgets have changed
    assert stream.report() == eager.report()


def test_steps_without_dense_maps_have_a_recording_of_their_own(tiny):
    text = "late_merge:frames=3,camera=3"
    (stream, recorder), eager = captured(tiny.stream(text)), tiny.stream(text)
    for i, image in enumerate(torch.rand(16, 3, 28, 42)):
        found, expected = (one.step(image, dense=not i % 3) for one in (stream, eager))
        assert (found.depth is None) == bool(i % 3)
        assert_same(found, expected)
    assert (recorder.recordings, recorder.replays) == (2, 10)


def test_tracks_prefill_and_a_failed_step_go_on_from_a_replayed_one(tiny):
    text = "merge:frames=3,camera=3"
    (stream, recorder), eager = captured(tiny.stream(text)), tiny.stream(text)
    images = torch.rand(14, 3, 28, 42)
    for image in images[:7]:
        stream.step(image)
        eager.step(image)
    assert_same(stream.prefill(images[None, 7:10]), eager.prefill(images[None, 7:10]))
    with pytest.raises(ConfigError, match="floating point"):
        stream.step((images[10] * 255).to(torch.uint8))
    with pytest.raises(ConfigError, match="batch 1"):
        stream.step(images[:2])
    assert_same(stream.step(images[10]), eager.step(images[10]))
    for one in (stream, eager):
        one.track(torch.tensor([[4.0, 5.0]]))
    replays = recorder.replays
    for image in images[11:]:
        assert_same(stream.step(image), eager.step(image))
    assert recorder.replays == replays > 0


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: nothing works"), MemoryError()])
def test_a_recording_that_fails_changes_nothing(tiny, error):
    def failing(step):
        step_counts.append(1)
        raise error

    step_counts = []
    text = "window:frames=3,camera=3"
    stream, eager = CapturedStream(tiny.stream(text), failing), tiny.stream(text)
    for image in torch.rand(8, 3, 28, 42):
        expected = eager.step(image)
        try:
            found = stream.step(image)
        except RuntimeError:
            found = stream.step(image)
        assert_same(found, expected)
    assert len(step_counts) == 1
    assert stream.report() == eager.report()


def test_a_shortage_beside_a_replay_takes_no_frame_twice(tiny, monkeypatch):
    text = "late_merge:frames=3,camera=3"
    (stream, recorder), eager = captured(tiny.stream(text)), tiny.stream(text)
    for i, image in enumerate(torch.rand(12, 3, 28, 42)):
        expected = eager.step(image)
        with monkeypatch.context() as patch:
            if i == 9:  # what is given away finds no room
                for name in ("clone", "new_empty"):
                    patch.setattr(torch.Tensor, name, failing_once(getattr(torch.Tensor, name)))
                patch.setattr(torch, "empty_like", failing_once(torch.empty_like))
            assert_same(stream.step(image), expected)
    assert recorder.replays > 4
    assert stream.report() == eager.report()


def failing_once(function):
    errors = iter([RuntimeError("CUDA out of memory")])

    def run(*args, **options):
        for error in errors:
            raise error
        return function(*args, **options)

    return run


def test_full_and_the_published_order_take_every_step(tiny):
    for text in ("full", "key_diversity:frames=3,camera=3,reference=true"):
        stream, recorder = captured(tiny.stream(text))
        for image in torch.rand(8, 3, 28, 42):
            stream.step(image)
        assert recorder.recordings == 0


def test_without_a_gpu_nothing_is_recorded(tiny):
    with pytest.raises(ConfigError, match="load it with device='cuda'"):
        CapturedStream(tiny.stream("window:frames=3"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("text", TEXTS)
def test_on_a_gpu_a_replayed_step_gives_what_a_step_gives(text):
    """To rounding: a graph may choose other matrix kernels; the choice of slots is the same."""
    network = build(presets["tiny"], seed=1).to("cuda")
    replays = []

    def record(step):
        replay, answer = record_on_gpu(step)
        return lambda: replays.append(replay()), answer

    stream, eager = CapturedStream(network.stream(text), record), network.stream(text)
    for image in torch.rand(70, 3, 56, 84, device="cuda"):  # the sums are taken anew at the 64th
        found, expected = stream.step(image), eager.step(image)
        torch.testing.assert_close(found.depth, expected.depth, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(
            found.pose_encoding, expected.pose_encoding, rtol=1e-3, atol=1e-3
        )
    assert len(replays) >= 60
    assert stream.report() == eager.report()
    ours, theirs = (one._state.layers[0].tensors()["order"] for one in (stream, eager))
    assert torch.equal(ours, theirs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_a_replayed_step_waits_for_nothing():
    network = build(presets["tiny"], seed=1).to("cuda")
    stream = CapturedStream(network.stream("late_merge:frames=3,camera=3"))
    images = torch.rand(12, 3, 56, 84, device="cuda")
    for image in images[:8]:
        stream.step(image)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for image in images[8:]:
            stream.step(image)
    finally:
        torch.cuda.set_sync_debug_mode("default")
