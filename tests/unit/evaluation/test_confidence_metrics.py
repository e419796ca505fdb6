"""Calibration of confidence: laws, values worked by hand, and what has no curve."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from everview.errors import ConfigError
from everview.evaluation.metrics import probability_curve, reliability_curve, sparsification


def test_an_error_of_alpha_over_confidence_has_the_exponent_of_the_loss():
    confidence = np.random.default_rng(0).uniform(1, 50, 50_000)
    found = reliability_curve(confidence, 0.3 / confidence, bins=200)
    assert found.exponent == pytest.approx(-1, abs=0.02)
    assert found.rank_correlation == pytest.approx(1)
    assert np.all(np.diff(found.confidence) > 0)
    assert np.all(np.diff(found.error) < 0)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_bins_hold_all_values_and_their_means(seed, bins):
    rng = np.random.default_rng(seed)
    confidence, error = np.round(rng.uniform(1, 5, 200), 1), rng.exponential(1, 200)
    found = reliability_curve(confidence, error, bins=bins)
    assert found.count.sum() == 200
    assert len(found.count) <= bins
    assert (found.count * found.error).sum() == pytest.approx(error.sum())
    assert (found.count * found.confidence).sum() == pytest.approx(confidence.sum())
    expected = spearmanr(confidence, -error).statistic
    assert found.rank_correlation == pytest.approx(expected, abs=1e-9)


def test_constant_confidence_is_one_bin_without_order_or_exponent():
    found = reliability_curve(np.ones(10), np.arange(10.0))
    assert found.count.tolist() == [10]
    assert found.rank_correlation == 0
    assert found.exponent is None


def test_perfect_predictions_have_no_exponent_and_no_infinity():
    found = reliability_curve(np.arange(1.0, 101), np.zeros(100))
    assert found.exponent is None
    assert found.rank_correlation == 0
    assert np.all(found.error == 0)
    curve = sparsification(np.arange(1.0, 101), np.zeros(100))
    assert (curve.ause, curve.aurg) == (0, 0)


def test_probabilities_that_come_true_have_no_expected_error():
    probability = np.repeat([0.05, 0.25, 0.95], 100)
    outcome = np.concatenate([np.arange(100) < n for n in (5, 25, 95)])
    found = probability_curve(probability, outcome)
    assert found.expected_error == pytest.approx(0, abs=1e-12)
    assert found.frequency.tolist() == pytest.approx([0.05, 0.25, 0.95])
    assert found.brier == pytest.approx(np.mean([0.05 * 0.95, 0.25 * 0.75, 0.95 * 0.05]))


def test_errors_of_calibration_are_weighted_by_count():
    found = probability_curve(np.array([0.9] * 3 + [0.1]), np.array([True, False, False, False]))
    assert found.expected_error == pytest.approx((3 * (0.9 - 1 / 3) + 0.1) / 4)
    assert found.largest_error == pytest.approx(0.9 - 1 / 3)
    ends = probability_curve(np.array([1.0, 0.0]), np.array([True, False]), bins=4)
    assert ends.count.tolist() == [1, 1]


def test_the_right_order_is_the_oracle_and_the_reverse_is_worse_than_chance():
    error = np.random.default_rng(1).exponential(1, 400)
    right, wrong = sparsification(-error, error), sparsification(error, error)
    assert right.ause == pytest.approx(0, abs=1e-12)
    assert right.aurg > 0.3
    assert wrong.aurg < -0.3
    np.testing.assert_allclose(right.error, right.oracle)


def test_equal_confidences_gain_nothing_on_chance():
    error = np.random.default_rng(2).exponential(1, 100)
    found = sparsification(np.ones(100), error)
    np.testing.assert_allclose(found.error, error.mean())
    assert found.aurg == pytest.approx(0, abs=1e-12)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_no_order_is_better_than_the_oracle(seed):
    rng = np.random.default_rng(seed)
    found = sparsification(rng.uniform(1, 3, 60), rng.exponential(1, 60))
    assert np.all(found.oracle <= found.error + 1e-12)
    assert found.error[0] == pytest.approx(found.oracle[0])


@pytest.mark.parametrize("function", [reliability_curve, sparsification])
@pytest.mark.parametrize(
    ("confidence", "error", "words"),
    [
        ([], [], "there is no value"),
        ([1.0, np.nan], [1.0, 1.0], "not finite"),
        ([1.0, 2.0], [np.inf, 1.0], "not finite"),
        ([1.0, 2.0], [-1.0, 1.0], "negative"),
        ([1.0], [1.0, 2.0], "1 values of confidence and 2 errors"),
    ],
)
def test_what_has_no_curve_is_refused_in_words(function, confidence, error, words):
    with pytest.raises(ConfigError, match=words):
        function(np.array(confidence), np.array(error))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: reliability_curve(np.ones(2), np.ones(2), bins=0), "at least one bin"),
        (lambda: sparsification(np.ones(2), np.ones(2), steps=0), "at least one step"),
        (lambda: probability_curve(np.array([2.0]), np.array([True])), "apply a sigmoid"),
        (lambda: probability_curve(np.array([0.5]), np.array([True, False])), "2 outcomes"),
        (lambda: probability_curve(np.array([]), np.array([], bool)), "there is no value"),
    ],
)
def test_settings_that_mean_nothing_are_refused(call, words):
    with pytest.raises(ConfigError, match=words):
        call()
