"""Frame by frame equals all at once: the promise that a causal network is built on."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everview.model.config import Config
from everview.model.network import build
from everview.model.presets import TINY, TINY_TRACKER, _small, presets

FIELDS = ("depth", "depth_confidence", "points", "points_confidence", "pose_encoding")


def assert_equal(streamed, batch, *, atol, rtol):
    for name in FIELDS:
        torch.testing.assert_close(
            torch.cat([getattr(frame, name) for frame in streamed], dim=1),
            getattr(batch, name),
            atol=atol,
            rtol=rtol,
            msg=lambda text, name=name: f"{name}: {text}",
        )
    rounds = [frame.pose_encoding_iterations for frame in streamed]
    torch.testing.assert_close(
        torch.cat(rounds, dim=2), batch.pose_encoding_iterations, atol=atol, rtol=rtol
    )


def awake(network):
    """Large random values everywhere, so that every branch and every parameter has a say."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in network.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        if name.endswith("gamma"):
            parameter.data.copy_(0.5 + 0.1 * noise)
        elif parameter.ndim == 1:
            parameter.data.add_(0.1 * noise)
        elif "head" not in name or "camera_head" in name:
            parameter.data.copy_(noise / parameter[0].numel() ** 0.5)
    return network


@st.composite
def sizes(draw):
    heads = draw(st.sampled_from([1, 2, 4]))
    depth = draw(st.integers(1, 4))
    return {
        "width": heads * draw(st.sampled_from([4, 8, 12])),
        "heads": heads,
        "depth": depth,
        "encoder_depth": draw(st.integers(1, 2)),
        "layers": tuple(draw(st.integers(0, depth - 1)) for _ in range(4)),
    }


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    size=sizes(),
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    batch=st.integers(1, 2),
    num_frames=st.integers(1, 5),
    stop=st.integers(0, 3),
    double=st.booleans(),
)
def test_streaming_gives_what_the_causal_batch_gives(size, grid, batch, num_frames, stop, double):
    """The first frames as a prefill, then saved and resumed, then step by step."""
    dtype = torch.float64 if double else torch.float32
    network = awake(build(_small(replace(TINY, **size), TINY_TRACKER), seed=0).to(dtype))
    images = torch.rand(batch, num_frames, 3, 14 * grid[0], 14 * grid[1], dtype=dtype)
    stream = network.stream("full", batch=batch)
    split = min(stop, num_frames)
    streamed = [stream.prefill(images[:, :split])] if split else []
    with TemporaryDirectory() as folder:
        stream.save(Path(folder) / "state.safetensors")
        stream = network.resume(Path(folder) / "state.safetensors")
    streamed += [stream.step(images[:, i]) for i in range(split, num_frames)]
    atol, rtol = (1e-10, 0.0) if double else (1e-5, 1e-5)
    assert_equal(streamed, network(images), atol=atol, rtol=rtol)


@settings(max_examples=8, deadline=None)
@given(parts=st.lists(st.integers(1, 3), min_size=1, max_size=3), batch=st.integers(1, 2))
def test_prefill_gives_what_steps_give(parts, batch):
    network = awake(build(presets["tiny"], seed=0).double())
    images = torch.rand(batch, sum(parts), 3, 28, 42, dtype=torch.float64)
    stream = network.stream(batch=batch)
    streamed = [stream.prefill(chunk) for chunk in images.split(parts, dim=1)]
    assert_equal(streamed, network(images), atol=1e-10, rtol=0)
    assert stream.report().frames == sum(parts)


def test_prefill_with_a_shared_camera_cache_gives_what_steps_give(clip):
    network = awake(build(presets["tiny"], seed=0))
    one, other = (network.stream(camera_cache="shared") for _ in range(2))
    filled = one.prefill(clip)
    steps = [other.step(clip[:, i]) for i in range(5)]
    assert_equal(steps, filled, atol=0, rtol=0)


def test_the_past_is_seen(clip):
    """Or the equalities above would hold for a network that looks at single frames only."""
    network = awake(build(presets["tiny"], seed=0))
    changed = clip.clone()
    changed[:, 0] = torch.rand_like(changed[:, 0])
    one, other = network(clip), network(changed)
    assert (one.depth[:, 1:] - other.depth[:, 1:]).abs().max() > 1e-4
    assert (one.pose_encoding[:, 1:] - other.pose_encoding[:, 1:]).abs().max() > 1e-3


def test_the_future_is_not_seen(clip):
    network = awake(build(presets["tiny"], seed=0))
    changed = clip.clone()
    changed[:, 4] = 0
    one, other = network(clip), network(changed)
    for name in FIELDS:
        torch.testing.assert_close(
            getattr(one, name)[:, :4], getattr(other, name)[:, :4], rtol=0, atol=0
        )


def test_streams_on_one_network_do_not_mix():
    network = awake(build(presets["tiny"], seed=0))
    clips = torch.rand(3, 4, 3, 28, 42)
    alone = [[s.step(frame) for frame in clip] for clip in clips for s in [network.stream()]]
    streams = [network.stream() for _ in clips]
    mixed = [[s.step(clip[t]) for s, clip in zip(streams, clips, strict=True)] for t in range(4)]
    for k in range(3):
        for t in range(4):
            for name in FIELDS:
                one, other = getattr(alone[k][t], name), getattr(mixed[t][k], name)
                torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_resumed_stream_goes_on_as_if_it_had_never_stopped(tmp_path, clip):
    network = awake(build(presets["tiny"], seed=0))
    with network.stream() as whole, network.stream() as first:
        expected = [whole.step(clip[:, i]) for i in range(5)]
        for i in range(3):
            first.step(clip[:, i])
        first.save(tmp_path / "state.safetensors")
    resumed = network.resume(tmp_path / "state.safetensors")
    assert resumed.report().frames == 3
    for i in (3, 4):
        got = resumed.step(clip[:, i])
        for name in FIELDS:
            torch.testing.assert_close(
                getattr(got, name), getattr(expected[i], name), rtol=0, atol=0
            )


def test_frames_may_change_size_within_a_stream(tiny):
    stream = tiny.stream()
    stream.step(torch.rand(3, 28, 42))
    assert stream.step(torch.rand(3, 42, 28)).depth.shape == (1, 1, 42, 28)


def test_global_attention_lets_all_frames_see_each_other_in_any_order(clip):
    config = presets["tiny"]
    network = awake(build(Config.from_dict(config.to_dict() | {"attention": "global"}), seed=0))
    swapped = clip[:, [0, 2, 1, 3, 4]]
    torch.testing.assert_close(
        network(clip).depth[:, [0, 2, 1, 3, 4]], network(swapped).depth, rtol=1e-4, atol=1e-4
    )


@pytest.mark.gpu
def test_a_step_never_waits_for_the_device():
    network = awake(build(presets["tiny"], seed=0)).cuda()
    stream = network.stream()
    frame = torch.rand(3, 56, 84, device="cuda")
    stream.step(frame)
    torch.cuda.set_sync_debug_mode("error")
    try:
        stream.step(frame)
    finally:
        torch.cuda.set_sync_debug_mode("default")
