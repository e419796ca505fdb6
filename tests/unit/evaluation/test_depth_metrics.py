import json

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from everview.errors import ConfigError
from everview.evaluation.metrics import align_depth, depth_errors, mean_depth_errors
from everview.evaluation.metrics.depth_alignment import absolute_scale, median_scale

MODES = {"median": "median", "scale": "weiszfeld", "metric": "none"}
NAMES = {
    "abs_rel": "abs_rel", "sq_rel": "sq_rel", "rmse": "rmse", "log_rmse": "log_rmse",
    "d1": "delta1", "d2": "delta2", "d3": "delta3", "valid_pixels": "num_pixels", "scale": "scale",
}  # fmt: skip


@pytest.fixture(scope="module")
def values(golden):
    return np.load(golden / "metrics" / "depth_metrics.npz")


def _evaluate(values, case, alignment=None):
    options = json.loads(str(values[f"{case}/opt"]))
    truth = values[f"{case}/in/gt"]
    mask = truth < (options["max_depth"] or np.inf)
    low, high = options["post_clip_min"], options["post_clip_max"]
    limits = (-np.inf if low is None else low, np.inf if high is None else high)
    return depth_errors(
        values[f"{case}/in/pred"],
        truth,
        mask=mask,
        alignment=alignment or MODES[options["mode"]],
        clip=limits,
    )


CASES = [
    "mono_median_max70_clip70", "mono_median_nomax_sparse", "mono_median_even_count",
    "mono_median_negative_pred", "mono_metric_negative_pred_unclipped", "video_metric",
    "video_scale_max70_clip70", "video_scale_nomax_sparse", "video_scale_outliers",
    "agg_frame0", "agg_frame1", "agg_frame2", "agg_frame3",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_errors_are_those_of_the_published_evaluation(values, case):
    found = _evaluate(values, case)
    loose = f"{case}/out_double/scale" in values  # the reference iterates in float32
    for name, ours in NAMES.items():
        key = f"{case}/out/{name}"
        if key in values:
            expected = pytest.approx(float(values[key]), rel=2e-3 if loose else 1e-4)
            assert getattr(found, ours) == expected, name


@pytest.mark.parametrize("case", [case for case in CASES if "scale" in case])
def test_both_scales_are_right_in_double_precision(values, case):
    steps, best = _evaluate(values, case), _evaluate(values, case, "scale")
    prefix = f"{case}/out_double/"
    out = {key.removeprefix(prefix): float(values[key]) for key in values if key.startswith(prefix)}
    assert steps.scale == pytest.approx(out["scale"], rel=1e-9)
    assert steps.abs_rel == pytest.approx(out["abs_rel"], rel=1e-9)
    assert steps.delta1 == pytest.approx(out["d1"], rel=1e-9)
    assert best.scale == pytest.approx(out["scale_l1_optimum"], rel=1e-9)
    assert best.abs_rel == pytest.approx(out["abs_rel_l1_optimum"], rel=1e-9)
    assert best.delta1 == pytest.approx(out["d1_l1_optimum"], rel=1e-9)


def test_a_mask_picks_the_pixels_that_count(values):
    case = "mono_scale_custom_mask"  # the reference aligns on all pixels and only then masks
    depth, truth, mask = (values[f"{case}/in/{name}"] for name in ("pred", "gt", "custom_mask"))
    scale = float(values[f"{case}/out/scale"])
    found = depth_errors(depth * scale, truth, mask=mask & (truth < 70), alignment="none")
    for name, ours in NAMES.items():
        if name != "scale":
            expected = float(values[f"{case}/out/{name}"])
            assert getattr(found, ours) == pytest.approx(expected, rel=1e-4)
    everywhere = depth_errors(depth, truth, mask=truth < 70, alignment="weiszfeld")
    assert everywhere.scale == pytest.approx(float(values[f"{case}/out_double/scale"]), rel=1e-9)


def test_averages_are_weighted_by_valid_pixels(values):
    frames = [_evaluate(values, f"agg_frame{i}") for i in range(4)]
    mean = mean_depth_errors(frames)
    for name, ours in NAMES.items():
        if f"agg/out/{name}" in values:
            assert getattr(mean, ours) == pytest.approx(float(values[f"agg/out/{name}"]), rel=1e-4)


def test_aligning_each_frame_averages_the_frames_weighted_by_their_pixels():
    truth = torch.rand(3, 6, 8) + 1
    depth = truth * torch.tensor([1.0, 2.0, 3.0])[:, None, None] * (1 + 0.1 * torch.rand(3, 6, 8))
    truth[1, :3] = 0
    truth[2] = torch.nan
    one_by_one = mean_depth_errors([depth_errors(depth[i], truth[i]) for i in range(2)])
    found = depth_errors(depth, truth, per_frame=True)
    assert found == one_by_one
    assert found.num_pixels == 48 + 24
    assert found.abs_rel < depth_errors(depth, truth).abs_rel


def test_a_prediction_right_up_to_scale_has_no_error():
    truth = torch.rand(2, 5, 7) + 0.5
    for alignment in ("median", "scale", "weiszfeld"):
        found = depth_errors(truth * 0.4, truth, alignment=alignment)
        assert found.abs_rel == pytest.approx(0, abs=1e-6)
        assert found.delta1 == 1
        assert found.scale == pytest.approx(2.5, rel=1e-6)
    assert depth_errors(truth * 0.4, truth, alignment="none").abs_rel == pytest.approx(0.6)


@settings(deadline=None, max_examples=40)
@example([(0.0, 1.0), (2.225073858507e-311, 1.0), (1.0, 1.0)])
@given(
    st.lists(st.tuples(st.floats(-2, 5), st.floats(0.1, 5)), min_size=1, max_size=9).filter(
        lambda pairs: any(p > 0.01 for p, _ in pairs)
    )
)
def test_no_scale_has_a_smaller_absolute_error_than_the_exact_one(pairs):
    p, g = torch.tensor(pairs, dtype=torch.float64).T
    candidates = torch.cat([g[p > 0] / p[p > 0], torch.zeros(1).double()])  # kinks of the sum
    candidates = candidates[candidates.isfinite()]  # a subnormal p has none
    best = min(float((s * p - g).abs().sum()) for s in candidates)
    found = absolute_scale(p.contiguous(), g.contiguous())
    assert float((found * p - g).abs().sum()) == pytest.approx(best, rel=1e-9)


def test_the_median_of_an_even_number_of_values_is_the_lower_middle_one():
    p, g = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([8.0, 6.0, 4.0, 2.0])
    assert median_scale(p, g) == 2.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, g, m: (p, g * 0, m), "no pixel is valid"),
        (lambda p, g, m: (p, g, m & False), "no pixel is valid"),
        (lambda p, g, m: (p * torch.nan, g, m), "30 of 30 valid pixels have a prediction"),
        (lambda p, g, m: (-p, g, m), "the median of the predicted depth is -1"),
        (lambda p, g, m: (p[:, :4], g, m[:, :4]), r"mask must have one shape"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_words(change, message):
    full = torch.ones(1, 5, 6)
    depth, truth, mask = change(full, full.clone(), full.bool())
    with pytest.raises(ConfigError, match=message):
        depth_errors(depth, truth, mask=mask)


def test_pixels_without_a_prediction_can_be_left_out():
    truth = torch.ones(4, 4)
    depth = truth.clone()
    depth[0] = torch.nan
    found = depth_errors(depth, truth, mask=depth.isfinite())
    assert found.num_pixels == 12
    assert found.abs_rel == 0


def test_a_sequence_without_any_valid_pixel_is_no_perfect_one(values):
    with pytest.raises(ConfigError, match="no pixel is valid"):
        _evaluate(values, "no_valid_pixel")
    with pytest.raises(ConfigError, match="no result to average"):
        mean_depth_errors([])


def test_an_unknown_alignment_is_named():
    with pytest.raises(ConfigError, match=r"must be none, median, scale, .*'mean'"):
        depth_errors(torch.ones(2, 2), torch.ones(2, 2), alignment="mean")


ROBUST = ("median", "scale", "scale_l2", "scale_shift", "scale_shift_l2")


def _noisy(seed, size=(2, 6, 7)):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.5, 8, size)
    return 0.3 * truth * rng.lognormal(0, 0.2, size) + 0.05, truth


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.sampled_from(ROBUST))
def test_after_alignment_the_unit_of_the_prediction_does_not_matter(seed, unit, alignment):
    depth, truth = _noisy(seed)
    one, other = (depth_errors(d, truth, alignment=alignment) for d in (depth, depth * unit))
    for name in ("abs_rel", "sq_rel", "rmse", "log_rmse", "delta1"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-5, abs=1e-9)
    assert other.scale * unit == pytest.approx(one.scale, rel=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.floats(-0.5, 5), st.floats(0.1, 10))
def test_after_scale_and_shift_neither_of_them_matters(seed, shift, unit):
    depth, truth = _noisy(seed)
    for alignment in ("scale_shift", "scale_shift_l2"):
        one, other = (
            depth_errors(d, truth, alignment=alignment) for d in (depth, depth * unit + shift)
        )
        assert other.abs_rel == pytest.approx(one.abs_rel, rel=1e-5, abs=1e-9)
        assert other.rmse == pytest.approx(one.rmse, rel=1e-5, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(-2, 5), st.floats(0.1, 5)), min_size=2, max_size=9))
def test_no_line_has_a_smaller_absolute_error_than_the_exact_one(pairs):
    """A best line goes through two of the points, or is level through one."""
    p, g = (values.contiguous() for values in torch.tensor(pairs, dtype=torch.float64).T)
    lines = [(0.0, float(t)) for t in g]
    for i, j in zip(*np.triu_indices(len(p), 1), strict=True):
        if abs(p[i] - p[j]) > 1e-9:
            slope = float((g[i] - g[j]) / (p[i] - p[j]))
            lines.append((slope, float(g[i]) - slope * float(p[i])))
    best = min(float((s * p + t - g).abs().sum()) for s, t in lines)
    found = align_depth(p, g, "scale_shift")
    ours = float((found.scale * p + found.shift - g).abs().sum())
    assert ours <= best * (1 + 1e-6) + 1e-9


def test_the_search_that_starts_from_a_sample_ends_at_the_best_line_of_all():
    rng = np.random.default_rng(0)
    p = torch.from_numpy(rng.uniform(0.1, 3, 250_001))
    g = 2 * p + 0.7 + torch.from_numpy(rng.laplace(0, 0.05, len(p)))
    g[::4] = torch.from_numpy(rng.uniform(0, 9, len(g[::4])))  # a quarter is nonsense
    found = align_depth(p, g, "scale_shift")
    assert found.scale == pytest.approx(2, rel=0.02)
    assert found.shift == pytest.approx(0.7, rel=0.05)

    def loss(scale, shift):
        return float((scale * p + shift - g).abs().sum())

    least = loss(found.scale, found.shift)
    for ds, dt in ((1e-4, 0), (-1e-4, 0), (0, 1e-4), (0, -1e-4), (1e-4, -1e-4), (-1e-4, 1e-4)):
        assert loss(found.scale + ds, found.shift + dt) > least


def test_predictions_that_are_all_equal_are_moved_to_the_middle_of_the_truth():
    truth = torch.tensor([[1.0, 2.0, 6.0]])
    for alignment, middle in (("scale_shift", 2), ("scale_shift_l2", 3)):
        found = depth_errors(torch.full((1, 3), 0.4), truth, alignment=alignment)
        assert found.scale == 1
        assert 0.4 + found.shift == pytest.approx(middle)


def test_inverse_depth_is_aligned_to_the_inverse_of_the_truth():
    truth = torch.rand(4, 5, dtype=torch.float64) + 0.5
    disparity = (1 / truth - 0.1) / 3
    found = depth_errors(disparity, truth, alignment="scale_shift", disparity=True)
    assert found.abs_rel == pytest.approx(0, abs=1e-6)
    assert found.scale == pytest.approx(3, rel=1e-6)
    assert found.shift == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize(
    ("alignment", "depth", "message"),
    [
        ("scale_l2", -1.0, "does not grow with the true one"),
        ("weiszfeld", 0.0, "the mean of the predicted depth is 0"),
        ("scale_shift_adam", 0.0, "the median of the predicted depth is 0"),
        ("scale", 0.0, "no predicted depth is positive"),
    ],
)
def test_an_alignment_that_does_not_exist_is_refused(alignment, depth, message):
    with pytest.raises(ConfigError, match=message):
        depth_errors(torch.full((2, 2), depth), torch.ones(2, 2), alignment=alignment)


def test_an_infinite_error_is_an_error_in_words():
    truth = torch.tensor([[1.0, 5e-324]], dtype=torch.float64)
    with pytest.raises(ConfigError, match="abs_rel is inf: the true depth goes from 4"):
        depth_errors(torch.ones(1, 2), truth, alignment="none")
    with pytest.raises(ConfigError, match="nothing to align"):
        align_depth(torch.ones(0).double(), torch.ones(0).double(), "scale")
