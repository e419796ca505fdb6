import numpy as np
import pytest

from everview.outputs.codes import CONFIDENCE_CODE, DEPTH_CODE, LogCode


@pytest.mark.parametrize("code", [DEPTH_CODE, CONFIDENCE_CODE])
def test_the_relative_error_is_as_promised_near_and_far(code):
    values = np.geomspace(code.low, code.high, 20001).astype(np.float32)
    error = np.abs(code.decode(code.encode(values)) / values - 1).max()
    assert error <= code.relative_error * 1.02  # float32 rounding comes on top
    assert error > code.relative_error * 0.9  # the promise is not idle


def test_depth_is_kept_to_better_than_two_parts_in_ten_thousand():
    assert DEPTH_CODE.relative_error < 1.5e-4
    assert CONFIDENCE_CODE.relative_error < 0.02


def test_what_is_no_depth_becomes_code_0_and_comes_back_as_nan():
    values = np.array([np.nan, np.inf, -np.inf, 0.0, -1.0, 2.0], np.float32)
    codes = DEPTH_CODE.encode(values)
    assert codes.tolist()[:5] == [0] * 5
    assert np.isnan(DEPTH_CODE.decode(codes)).tolist() == [True] * 5 + [False]


def test_values_beyond_the_range_get_its_ends():
    codes = DEPTH_CODE.encode(np.array([1e-9, 1e9], np.float32))
    assert codes.tolist() == [1, 65535]
    np.testing.assert_allclose(DEPTH_CODE.decode(codes), [1e-4, 1e4], rtol=2e-4)


def test_the_stored_description_suffices_to_decode():
    code = LogCode(low=0.5, high=8.0, bits=8)
    stored = code.as_dict()
    codes = code.encode(np.array([0.5, 2.0, 8.0], np.float32))
    by_hand = np.exp(stored["offset"] + (codes.astype(float) - 1) * stored["scale"])
    np.testing.assert_allclose(by_hand, [0.5, 2.0, 8.0], rtol=stored["relative_error"])
