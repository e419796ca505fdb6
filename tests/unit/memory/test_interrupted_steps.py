"""A step that fails at any operation leaves a stream as before, or with a smaller budget."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from everview.memory import POLICIES
from everview.memory.layer_memory import LayerMemory
from everview.memory.state import StreamState
from everview.model.stream import Stream

TEXTS = [
    *(f"{name}:frames=4,camera=3" for name in POLICIES if name != "full"),
    "merge:frames=4,bits=8,camera=3",
    "late_merge:frames=4,budget=adaptive",
]
POINTS = 4
"""Operations of a step at which it is made to fail, spread over all."""


class Failing(TorchDispatchMode):
    """Raises once, instead of one operation."""

    def __init__(self, at, error):
        super().__init__()
        self.left, self.count, self.error = at, 0, error

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        if self.left == 0:
            self.left = None
            raise self.error
        self.left = None if self.left is None else self.left - 1
        return func(*args, **(kwargs or {}))


def shortage():
    return RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")


def failing(patch, method, at, error):
    """Make one operation fail within a method of the state."""
    mode, function = Failing(at, error), getattr(StreamState, method)

    def run(state):
        with mode:
            return function(state)

    patch.setattr(StreamState, method, run)
    return mode


def failing_append(patch, errors):
    """Storing tokens in one layer raises these errors, one after the other; None: it does not."""
    append, errors = LayerMemory.append, iter(errors)

    def run(memory, keys, values):
        is_counted = getattr(memory, "layer", 0) == 1 and memory.policy.name != "camera"
        error = next(errors, None) if is_counted else None
        if error is not None:
            raise error
        append(memory, keys, values)

    patch.setattr(LayerMemory, "append", run)


def begun(tiny, text, frames):
    stream = tiny.stream(text)
    for image in frames:
        stream.step(image, dense=False)
    return stream


def operations(stream, image, monkeypatch):
    """Some of those by which this frame is settled."""
    with monkeypatch.context() as patch:
        mode = failing(patch, "settle", None, None)
        twin(stream).step(image, dense=False)
    return sorted({round(i * (mode.count - 1) / (POINTS - 1)) for i in range(POINTS)})


def twin(stream):
    return Stream(stream._network, copy.deepcopy(stream._state))


def check_equal(stream, other, images):
    other = twin(other)
    ours, theirs = (replace(one.report(), state_bytes=0) for one in (stream, other))
    assert ours == theirs  # room that was given up is made by the next step
    arrived = {m.num_arrived for m in stream._state.layers if hasattr(m, "num_arrived")}
    assert arrived in (set(), {stream.num_frames * 11})
    for image in images:
        ours, theirs = (one.step(image, dense=False) for one in (stream, other))
        assert torch.equal(ours.pose_encoding, theirs.pose_encoding)
    assert stream.report() == other.report()


@pytest.fixture
def images():
    return torch.rand(8, 3, 28, 42, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("text", TEXTS)
def test_an_interrupt_while_a_frame_is_settled_leaves_the_stream_whole(
    tiny, images, text, monkeypatch
):
    before, other = (begun(tiny, text, images[:n]) for n in (5, 6))
    for at in operations(before, images[5], monkeypatch):
        stream = twin(before)
        with monkeypatch.context() as patch:
            failing(patch, "settle", at, KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                stream.step(images[5], dense=False)
        if stream.num_frames == 5:  # else it came when all was decided
            stream.step(images[5], dense=False)
        check_equal(stream, other, images[6:])


@pytest.mark.parametrize("text", TEXTS)
def test_a_shortage_while_a_frame_is_settled_cuts_the_stream_or_changes_nothing(
    tiny, images, text, monkeypatch
):
    before, unharmed = (begun(tiny, text, images[:n]) for n in (5, 6))
    cut = twin(before)
    with monkeypatch.context() as patch:
        failing_append(patch, [shortage()])
        cut.step(images[5], dense=False)
    shortages = set()
    for at in operations(before, images[5], monkeypatch):
        stream = twin(before)
        with monkeypatch.context() as patch:
            failing(patch, "settle", at, shortage())
            stream.step(images[5], dense=False)
        shortages.add(stream.report().shortages)
        check_equal(stream, cut if stream.report().shortages else unharmed, images[6:])
    assert shortages == {0, 1}  # at the end all is decided


@pytest.mark.parametrize("error", [shortage(), KeyboardInterrupt()])
@pytest.mark.parametrize("text", ["key_diversity:frames=6", "late_merge:frames=6,bits=4"])
def test_a_cut_that_is_left_half_done_is_done_before_the_next_step(
    tiny, images, text, error, monkeypatch
):
    before = begun(tiny, text, images[:7])
    for at in range(5, 150, 36):
        stream = twin(before)
        with monkeypatch.context() as patch:
            failing_append(patch, [shortage()])
            prepare = stream._state.prepare
            failing(patch, "prepare", at, error)
            try:
                stream.step(images[7], dense=False)
            except KeyboardInterrupt:
                assert stream.num_frames == 7
                prepare()
        layers, report = stream._state.layers, stream.report()
        assert {memory.policy.text for memory in layers} == {report.policy}
        assert {memory.budget for memory in layers} == {stream._state.policy.tokens}
        assert {memory.num_tokens for memory in layers} == {report.tokens}
        assert report.shortages == 1 + isinstance(error, RuntimeError)
        stream.step(images[7], dense=False)


@pytest.mark.parametrize("text", ["key_diversity:frames=4", "late_merge:frames=4,bits=8"])
def test_a_prefill_that_fails_after_a_shortage_has_its_budget_back(tiny, images, text, monkeypatch):
    stream = begun(tiny, text, images[:5])
    other = twin(stream)
    with monkeypatch.context() as patch:
        failing_append(patch, [None, shortage(), None, ValueError("something else")])
        with pytest.raises(ValueError, match="something else"):
            stream.prefill(images[None, 5:])
    check_equal(stream, other, images[5:])
