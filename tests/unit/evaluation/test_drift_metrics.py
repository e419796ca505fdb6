"""Drift by length, over time and at revisits: paths whose error is known; seconds and bytes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everview.errors import ConfigError
from everview.evaluation.metrics import (
    drift_by_length,
    drift_over_time,
    latency,
    memory_use,
    percentile,
    revisit_errors,
)
from everview.geometry.rotations import rigid


def turned(degrees):
    """Rotations about y."""
    a = torch.as_tensor(degrees, dtype=torch.float64).deg2rad()
    c, s, zero, one = a.cos(), a.sin(), a * 0, a * 0 + 1
    return torch.stack([c, zero, s, zero, one, zero, -s, zero, c], dim=-1).reshape(-1, 3, 3)


def straight(frames=21, step=1.0, scale=1.0, degrees_per_frame=0.0):
    """A walk along z, `scale` too long, that turns its head."""
    place = torch.zeros(frames, 3, dtype=torch.float64)
    place[:, 2] = torch.arange(frames, dtype=torch.float64) * step * scale
    return rigid(turned(torch.arange(frames) * degrees_per_frame), place)


def test_a_scale_of_five_percent_is_a_drift_of_five_percent_at_any_length():
    found = drift_by_length(straight(scale=1.05), straight(), [2.0, 5.0, 10.0])
    assert [d.translation_share for d in found] == pytest.approx([0.05] * 3)
    assert [d.rotation_degrees for d in found] == pytest.approx([0] * 3, abs=1e-6)
    assert [d.segments for d in found] == [19, 16, 11]


def test_a_steady_turn_is_a_drift_per_length():
    found = drift_by_length(straight(degrees_per_frame=0.5), straight(), [4.0], every=10)
    assert found[0].rotation_degrees == pytest.approx(0.5)
    assert found[0].segments == 2


def test_lengths_beyond_the_path_are_left_out_and_none_is_an_error():
    found = drift_by_length(straight(), straight(), [5.0, 500.0])
    assert [d.length for d in found] == [5.0]
    with pytest.raises(ConfigError, match="too short"):
        drift_by_length(straight(), straight(), [500.0])
    with pytest.raises(ConfigError, match="must be positive"):
        drift_by_length(straight(), straight(), [0.0])


def test_the_error_of_a_growing_offset_grows_with_its_slope():
    true = straight(40)
    estimated = true.clone()
    estimated[:, 0, 3] += 0.02 * torch.arange(40)
    found = drift_over_time(estimated, true, window=10, alignment="none")
    assert found.frames.tolist() == [10] * 4
    assert found.position_slope == pytest.approx(0.02)
    offsets = 0.02 * np.arange(40).reshape(4, 10)
    np.testing.assert_allclose(found.position, np.sqrt((offsets**2).mean(axis=1)))
    assert np.all(found.rotation_degrees < 1e-6)


def test_windows_without_a_frame_are_left_out():
    stamps = np.array([0.0, 0.1, 5.0, 5.1, 5.2])
    found = drift_over_time(straight(5), straight(5), window=1.0, timestamps=stamps)
    assert found.start.tolist() == [0.0, 5.0]
    assert found.frames.tolist() == [2, 3]
    assert np.all(found.position < 1e-9)


def test_windows_and_timestamps_are_checked():
    with pytest.raises(ConfigError, match="window above 0"):
        drift_over_time(straight(5), straight(5), window=0.0)
    with pytest.raises(ConfigError, match="not finite"):
        drift_over_time(straight(2), straight(2), window=1.0, timestamps=np.array([0.0, math.nan]))


def test_a_place_seen_again_has_the_error_of_the_motion_between_both_visits():
    true = torch.cat([straight(6), straight(6).flip(0)])
    estimated = true.clone()
    estimated[6:, 0, 3] += 0.3  # the way back is shifted
    found = revisit_errors(estimated, true, apart=6, nearby=0.1)
    assert len(found.translation) > 0
    assert found.translation.tolist() == pytest.approx([0.3] * len(found.translation))
    assert found.rotation_degrees.tolist() == pytest.approx([0] * len(found.translation), abs=1e-6)


def test_a_path_that_never_returns_has_no_revisit():
    found = revisit_errors(straight(), straight(), apart=5, nearby=0.5)
    assert found.translation.shape == (0,)
    with pytest.raises(ConfigError, match="at least one frame apart"):
        revisit_errors(straight(), straight(), apart=0, nearby=0.5)


@pytest.mark.parametrize(
    "measure",
    [
        lambda a, b: drift_by_length(a, b, [1.0]),
        lambda a, b: drift_over_time(a, b, window=1.0),
        lambda a, b: revisit_errors(a, b, apart=1, nearby=1.0),
    ],
)
def test_poses_that_are_no_numbers_or_too_few_are_refused(measure):
    broken = straight()
    broken[3, 0, 3] = torch.nan
    with pytest.raises(ConfigError, match="finite"):
        measure(broken, straight())
    with pytest.raises(ConfigError):
        measure(straight(1), straight(1))


def test_percentiles_are_values_that_occurred():
    seconds = np.arange(1, 101) / 100
    found = latency(seconds)
    assert (found.p90, found.p95, found.p99, found.longest) == (0.9, 0.95, 0.99, 1.0)
    assert found.median == pytest.approx(0.505)
    assert found.frames_per_second == pytest.approx(100 / seconds.sum())
    assert found.first_third < found.last_third
    assert latency([9.0, 0.5, 0.5], warm_up=1).longest == 0.5


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(0.001, 10), min_size=1, max_size=30), st.floats(0.1, 100, exclude_min=True)
)
def test_a_percentile_is_the_smallest_value_that_the_share_does_not_exceed(values, share):
    found = percentile(values, share)
    below = [v for v in values if v < found]
    assert sum(v <= found for v in values) / len(values) >= share / 100 - 1e-9
    assert len(below) / len(values) < share / 100


def test_memory_that_grows_has_its_slope_and_bounded_memory_has_none():
    found = memory_use([100.0, 110.0, 120.0], frames=[0, 10, 20])
    assert (found.peak, found.first, found.last, found.slope) == (120, 100, 120, 1)
    assert memory_use([5.0] * 9).slope == 0
    assert memory_use([7.0]).slope == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: latency([]), "there is no value"),
        (lambda: latency([1.0], warm_up=1), "after a warm-up of 1"),
        (lambda: latency([0.0, 1.0]), "must be positive"),
        (lambda: latency([math.nan]), "not finite"),
        (lambda: latency([1.0], warm_up=-1), "must not be negative"),
        (lambda: percentile([1.0], 0), "percentile lies in"),
        (lambda: memory_use([1.0, 2.0], frames=[1.0]), "1 frames and 2 measurements"),
        (lambda: memory_use([math.inf]), "not finite"),
    ],
)
def test_measurements_that_say_nothing_are_refused(call, words):
    with pytest.raises(ConfigError, match=words):
        call()
