"""Learning rates against numbers of the reference (README_metrics.md beside this file)."""

import json

import numpy as np
import pytest

from everview.training.schedule import SCHEDULES, CosineSchedule


@pytest.fixture(scope="module")
def rates(golden):
    with np.load(golden / "metrics" / "lr_schedule.npz") as file:
        return dict(file)


@pytest.mark.parametrize("case", ["release", "paper", "no_warmup"])
def test_the_learning_rate_is_the_published_one(rates, case):
    options = json.loads(str(rates[f"{case}/opt"]))
    schedule = CosineSchedule(
        peak=options["lr"],
        floor=options["min_lr"],
        warm_up=options["warmup_epochs"],
        length=options["epochs"],
    )
    found = [schedule.rate(epoch) for epoch in rates[f"{case}/in/epoch"]]
    np.testing.assert_allclose(found, rates[f"{case}/out/lr"], rtol=1e-12, atol=0)
    if case != "no_warmup":
        name = {"release": "streamvggt-released", "paper": "streamvggt-paper"}[case]
        assert schedule == SCHEDULES[name]
