import pytest
from hypothesis import given
from hypothesis import strategies as st

from everview.errors import ConfigError
from everview.frames.selection import Picker, Selection


def taken(selection: Selection, positions: list[float]) -> list[float]:
    picker, result = Picker(selection), []
    for position in positions:
        decision = picker.decide(position)
        if decision == "stop":
            break
        if decision == "take":
            result.append(position)
    return result


def test_every_counts_from_the_first_frame_of_the_stretch():
    positions = [float(n) for n in range(10)]
    assert taken(Selection(every=3), positions) == [0, 3, 6, 9]
    assert taken(Selection(every=3, start=2), positions) == [2, 5, 8]
    assert taken(Selection(every=3, start=2, end=8), positions) == [2, 5]


def test_the_frame_at_the_end_is_left_out():
    assert taken(Selection(start=0.5, end=1.0), [0.0, 0.5, 0.99, 1.0]) == [0.5, 0.99]


def test_fps_thins_by_time_not_by_count():
    thirty = [n / 30 for n in range(30)]
    assert len(taken(Selection(fps=10), thirty)) == 10
    assert len(taken(Selection(fps=20), thirty)) == 20
    assert len(taken(Selection(fps=100), thirty)) == 30
    uneven = [0.0, 0.01, 0.02, 0.5, 0.51, 3.0]
    assert taken(Selection(fps=2), uneven) == [0.0, 0.5, 3.0]


def test_fps_is_not_fooled_by_times_rounded_to_milliseconds():
    assert len(taken(Selection(fps=10), [round(n / 30, 3) for n in range(300)])) == 100


@given(
    num=st.integers(1, 200),
    every=st.integers(1, 9),
    start=st.integers(0, 50),
    length=st.integers(1, 100),
)
def test_the_expected_number_is_exact_for_images(num, every, start, length):
    selection = Selection(every=every, start=start, end=start + length)
    assert selection.about(num, 1.0) == len(taken(selection, list(range(num))))


def test_the_expected_number_of_a_video_follows_its_rate():
    assert Selection().about(300, None) == 300
    assert Selection(every=2).about(300, None) is None
    assert Selection().about(None, 30.0) is None
    assert Selection(start=2.0, end=4.0).about(300, 30.0) == 60
    assert Selection(fps=10.0).about(300, 30.0) == 100
    assert Selection(start=100.0).about(300, 30.0) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": 0}, "every must be 1 or more; got 0"),
        ({"fps": 0.0}, "fps must be above 0; got 0"),
        ({"fps": float("nan")}, "fps must be above 0; got nan"),
        ({"fps": 5.0, "every": 2}, "every=2 and fps=5 both thin"),
        ({"start": -1.0}, "start must be 0 or more; got -1"),
        ({"start": 2.0, "end": 1.0}, "end must be after start=2; got 1"),
        ({"end": 0.0}, "end must be after start=0; got 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Selection(**settings)
