import pytest

from everview.errors import ConfigError
from everview.training.schedule import SCHEDULES, CosineSchedule

SCHEDULE = CosineSchedule(peak=1.0, floor=0.1, start=0.2, warm_up=2, length=10)


def test_the_rate_climbs_linearly_then_falls_as_a_cosine_and_stays_at_the_floor():
    assert SCHEDULE.rate(0) == pytest.approx(0.2)
    assert SCHEDULE.rate(1) == pytest.approx(0.6)
    assert SCHEDULE.rate(2) == pytest.approx(1.0)
    assert SCHEDULE.rate(6) == pytest.approx(0.55)  # half-way down
    assert SCHEDULE.rate(10) == SCHEDULE.rate(50) == pytest.approx(0.1)


def test_the_unit_of_progress_is_free():
    steps = CosineSchedule(peak=1.0, floor=0.1, start=0.2, warm_up=200, length=1000)
    for progress in (0, 0.5, 1.99, 2, 3.7, 9.9):
        assert steps.rate(100 * progress) == pytest.approx(SCHEDULE.rate(progress))


@pytest.mark.parametrize("name", SCHEDULES)
def test_published_schedules_never_rise_after_the_warm_up(name):
    schedule = SCHEDULES[name]
    rates = [schedule.rate(schedule.length * i / 200) for i in range(201)]
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[top] == pytest.approx(schedule.peak, rel=1e-2)


def test_a_warm_up_as_long_as_the_run_is_refused():
    with pytest.raises(ConfigError, match=r"0 <= warm_up < length, got warm_up=3, length=3"):
        CosineSchedule(peak=1.0, warm_up=3, length=3)


def test_a_floor_above_the_peak_is_refused():
    with pytest.raises(ConfigError, match=r"within \[0, peak\], got start=0.0, floor=2.0"):
        CosineSchedule(peak=1.0, floor=2.0, warm_up=0, length=3)
