from collections import Counter

import pytest

from everview.errors import ConfigError
from everview.training.datasets.mixture import (
    RESOLUTIONS,
    MixtureSettings,
    Share,
    parse_mixture,
    plan_epoch,
)

LENGTHS = {"small": 10, "large": 1000}

FIRST_BATCHES = [((294, 518), 6, [54, 9]), ((336, 518), 5, [935, 8])]
"""Kept from one machine: size, views and starts of the first batches of an epoch."""


def _settings(**more):
    return MixtureSettings(shares=parse_mixture("25 @ small + 40 @ large"), **more)


def _samples(batches):
    return [sample for batch in batches for sample in batch.samples]


def test_a_mixture_is_read_from_text():
    assert parse_mixture("4500 @ co3d + 2_250@waymo") == (
        Share(dataset="co3d", samples=4500), Share(dataset="waymo", samples=2250)
    )  # fmt: skip


@pytest.mark.parametrize("text", ["", "co3d", "0 @ co3d", "5 @", "5 @ a + ", "-5 @ a"])
def test_a_text_that_is_no_mixture_says_what_one_looks_like(text):
    with pytest.raises(ConfigError, match="4500 @ co3d"):
        parse_mixture(text)


def test_a_set_that_is_named_twice_is_refused():
    with pytest.raises(ConfigError, match="names a twice"):
        parse_mixture("1 @ a + 2 @ a")


def test_an_epoch_holds_so_many_samples_of_each_set_and_repeats_a_permutation():
    samples = _samples(plan_epoch(_settings(), LENGTHS, epoch=0))
    counts = Counter(sample.dataset for sample in samples)
    assert counts == {"small": 25, "large": 40}
    small = Counter(sample.start for sample in samples if sample.dataset == "small")
    assert set(small) == set(range(10))
    assert set(small.values()) == {2, 3}  # 25 = 2 * 10 + 5
    large = [sample.start for sample in samples if sample.dataset == "large"]
    assert len(set(large)) == 40
    assert max(large) < 1000


def test_sets_are_shuffled_together():
    names = [s.dataset for s in _samples(plan_epoch(_settings(), LENGTHS, epoch=0))]
    assert "small" in names[:12]
    assert "large" in names[:12]


def test_an_epoch_is_a_function_of_seed_and_number():
    first = plan_epoch(_settings(), LENGTHS, epoch=3)
    assert first == plan_epoch(_settings(), LENGTHS, epoch=3)
    assert first != plan_epoch(_settings(), LENGTHS, epoch=4)
    assert first != plan_epoch(_settings(seed=1), LENGTHS, epoch=3)


def test_the_plan_is_the_same_on_every_machine():
    plan = plan_epoch(_settings(batch_size=2, num_views=(2, 8)), LENGTHS, epoch=1)
    seen = [(b.size, b.num_views, [s.start for s in b.samples]) for b in plan[:2]]
    assert seen == FIRST_BATCHES


def test_ranks_share_the_batches_of_one_process_evenly():
    settings = _settings(batch_size=2)
    alone = plan_epoch(settings, LENGTHS, epoch=0)
    assert len(alone) == 32  # 65 samples: the last one fills no batch
    ranks = [plan_epoch(settings, LENGTHS, epoch=0, rank=r, num_ranks=3) for r in range(3)]
    assert [len(plan) for plan in ranks] == [10, 10, 10]
    merged = [batch for step in zip(*ranks, strict=True) for batch in step]
    assert merged == alone[:30]


def test_all_samples_of_a_batch_have_one_shape_and_one_length():
    plan = plan_epoch(_settings(batch_size=4, num_views=(2, 6)), LENGTHS, epoch=0)
    assert {batch.num_views for batch in plan} == {2, 3, 4, 5, 6}
    assert all(len(batch.samples) == 4 for batch in plan)
    assert len({batch.size for batch in plan}) > 3


def test_the_first_five_resolutions_come_twice_as_often():
    settings = MixtureSettings(shares=(Share(dataset="large", samples=3000),))
    plan = plan_epoch(settings, LENGTHS, epoch=0)
    counts = Counter((batch.size[1], batch.size[0]) for batch in plan)
    assert set(counts) == set(RESOLUTIONS)
    for shape, weight in RESOLUTIONS.items():
        assert counts[shape] == pytest.approx(3000 * weight / 15, rel=0.25)
    assert sum(RESOLUTIONS.values()) == 15


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"num_views": (3, 2)}, "num_views"),
        ({"extra_pixels": -1}, "extra_pixels >= 0"),
        ({"resolutions": {(0, 14): 1.0}}, "resolutions need sides"),
    ],
)
def test_settings_that_give_no_batch_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        _settings(**change)


def test_an_unknown_or_empty_set_and_a_wrong_rank_are_refused():
    with pytest.raises(ConfigError, match="'small' of the mixture is unknown: known are large"):
        plan_epoch(_settings(), {"large": 10}, epoch=0)
    with pytest.raises(ConfigError, match="'small' of the mixture is empty"):
        plan_epoch(_settings(), {"small": 0, "large": 10}, epoch=0)
    with pytest.raises(ConfigError, match=r"rank must be 0 \.\. 1 for 2 ranks; got 2"):
        plan_epoch(_settings(), LENGTHS, epoch=0, rank=2, num_ranks=2)
