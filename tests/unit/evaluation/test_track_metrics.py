"""Errors of point tracks: worked by hand, against a loop, and what cannot be compared."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everview.errors import ConfigError
from everview.evaluation.metrics import track_errors

SIZE = (256, 256)


def tracks(seed, frames=6, points=5):
    """Predicted and true pixels, predicted and true visibility; each point is seen once later."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(0, 256, (frames, points, 2))
    really = rng.random((frames, points)) < 0.7
    really[-1, 0] = True
    ours = true + rng.normal(0, 6, true.shape)
    return ours, true, rng.random((frames, points)) < 0.7, really


def plain(ours, true, seen, really, query, mode, threshold):
    """Share within a threshold and Jaccard, pair by pair."""
    near = hits = false = visible = 0
    for f, p in np.ndindex(really.shape):
        if f <= query[p] if mode == "first" else f == query[p]:
            continue
        is_near = np.linalg.norm(ours[f, p] - true[f, p]) < threshold
        visible += really[f, p]
        near += really[f, p] and is_near
        hits += seen[f, p] and really[f, p] and is_near
        false += seen[f, p] and not (really[f, p] and is_near)
    return near / visible, hits / (visible + false)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from(["first", "strided"]))
def test_shares_are_those_of_counting_pair_by_pair(seed, mode):
    values = tracks(seed)
    query = np.random.default_rng(seed).integers(0, 3, 5)
    found = track_errors(*values, size=SIZE, query_frames=query, mode=mode)
    expected = {t: plain(*values, query, mode, t) for t in (1.0, 2.0, 4.0, 8.0, 16.0)}
    for threshold, (within, jaccard) in expected.items():
        assert found.within[threshold] == pytest.approx(within)
        assert found.jaccard[threshold] == pytest.approx(jaccard)
    assert found.delta_average == pytest.approx(np.mean([w for w, _ in expected.values()]))
    assert found.average_jaccard == pytest.approx(np.mean([j for _, j in expected.values()]))


def test_the_truth_scores_perfectly():
    _, true, _, really = tracks(3)
    found = track_errors(true, true, really, really, size=SIZE)
    assert (found.delta_average, found.occlusion_accuracy, found.average_jaccard) == (1, 1, 1)


def test_distances_are_taken_on_a_raster_of_256_pixels():
    true = torch.zeros(2, 1, 2)
    ours = true + torch.tensor([7.0, 0.0])  # of 512 x 1024 pixels: 1.75 of the raster
    seen = torch.ones(2, 1, dtype=torch.bool)
    found = track_errors(ours, true, seen, seen, size=(512, 1024))
    assert found.within == {1.0: 0.0, 2.0: 1.0, 4.0: 1.0, 8.0: 1.0, 16.0: 1.0}
    assert found.delta_average == pytest.approx(0.8)


def test_a_distance_of_the_threshold_itself_is_outside():
    seen = torch.ones(2, 1, dtype=torch.bool)
    found = track_errors(torch.ones(2, 1, 2) * torch.tensor([2.0, 0]), torch.zeros(2, 1, 2),
                         seen, seen, size=SIZE)  # fmt: skip
    assert found.within[2.0] == 0
    assert found.within[4.0] == 1


def test_saying_hidden_everywhere_has_no_jaccard_and_accuracy_by_share():
    _, true, _, really = tracks(4)
    found = track_errors(true, true, np.zeros_like(really), really, size=SIZE)
    assert found.average_jaccard == 0
    assert found.delta_average == 1
    assert found.occlusion_accuracy == pytest.approx(1 - really[1:].mean())


def test_values_of_hidden_points_do_not_matter():
    ours, true, seen, really = tracks(5)
    one = track_errors(ours, true, seen, really, size=SIZE)
    true[~really], ours[~really] = np.nan, np.nan
    assert track_errors(ours, true, seen, really, size=SIZE) == one


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"really": np.zeros((6, 5), bool)}, "no point is visible"),
        ({"ours": np.full((6, 5, 2), np.nan)}, r"predicted pixels are not finite.*frame 1"),
        ({"true": np.full((6, 5, 2), np.inf)}, "true pixels are not finite"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_words(change, words):
    ours, true, seen, _ = tracks(6)
    given = {"ours": ours, "true": true, "seen": seen, "really": np.ones((6, 5), bool)} | change
    with pytest.raises(ConfigError, match=words):
        track_errors(given["ours"], given["true"], given["seen"], given["really"], size=SIZE)


def test_unknown_modes_and_a_single_frame_are_refused():
    ours, true, seen, really = tracks(7)
    with pytest.raises(ConfigError, match="first or strided"):
        track_errors(ours, true, seen, really, size=SIZE, mode="last")
    with pytest.raises(ConfigError, match="no point is visible"):
        track_errors(ours[:1], true[:1], seen[:1], really[:1], size=SIZE)
