import itertools
import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everview.errors import ConfigError
from everview.training.datasets.declaration import SamplingRules
from everview.training.datasets.frame_choice import (
    choose_frames,
    linked_positions,
    ordered_positions,
    shuffled,
    walk,
)
from everview.training.datasets.view import Links


@dataclass
class Listed:
    """A scene of which nothing is read."""

    length: int
    num_ordered: int
    links: Links | None = None
    max_gap: int | None = None
    name: str = "listed"

    def __len__(self):
        return self.length

    def views(self, positions):
        raise AssertionError("choosing frames reads nothing")


def _video(length, **more):
    return Listed(length, length, **more)


def _choose(scene, start, num_views, seed=0, **rules):
    dice = random.Random(seed)
    return choose_frames(scene, start, num_views=num_views, rules=SamplingRules(**rules), dice=dice)


@given(st.data())
def test_positions_are_sorted_different_and_inside(data):
    num_views = data.draw(st.integers(1, 12))
    length = data.draw(st.integers(num_views, 60))
    start = data.draw(st.integers(0, length - num_views))
    max_gap = data.draw(st.integers(1, 30))
    is_fixed = data.draw(st.booleans())
    found = ordered_positions(
        start, length=length, num_views=num_views, max_gap=max_gap, has_fixed_gap=is_fixed,
        dice=random.Random(data.draw(st.integers(0, 1000))),
    )  # fmt: skip
    assert len(found) == num_views
    assert found[0] == start
    assert list(found) == sorted(set(found))
    assert found[-1] < length
    if is_fixed and num_views > 1:
        gaps = {b - a for a, b in itertools.pairwise(found)}
        assert len(gaps) == 1
        assert gaps.pop() <= max_gap


def test_gaps_are_uniform_up_to_the_largest():
    counts = Counter()
    for seed in range(400):
        found = ordered_positions(
            0, length=1000, num_views=6, max_gap=5, has_fixed_gap=False, dice=random.Random(seed)
        )
        counts.update(b - a for a, b in itertools.pairwise(found))
    assert set(counts) == {1, 2, 3, 4, 5}
    assert all(320 < number < 480 for number in counts.values())  # 400 each, sigma 18


def test_gaps_reach_twice_the_mean_that_the_rest_allows():
    gaps = set()
    for seed in range(300):
        found = ordered_positions(
            10, length=21, num_views=6, max_gap=25, has_fixed_gap=False, dice=random.Random(seed)
        )  # rest 10, 5 steps: at most 2 * 10 / 5 = 4
        gaps.add(found[1] - found[0])
        assert found[-1] <= 20
    assert gaps == {1, 2, 3, 4}


def test_a_fixed_gap_is_at_most_what_fits():
    gaps = {
        ordered_positions(
            2, length=13, num_views=4, max_gap=9, has_fixed_gap=True, dice=random.Random(seed)
        )[1] - 2
        for seed in range(60)
    }  # fmt: skip
    assert gaps == {1, 2, 3}


def test_a_start_near_the_end_moves_back_until_all_frames_fit():
    assert _choose(_video(8), 7, 8, video=1.0).positions == tuple(range(8))
    assert _choose(_video(1), 0, 1, video=1.0).positions == (0,)  # one frame: no division by zero
    assert _choose(_video(4), 0, 5) is None


def test_the_share_of_videos_is_that_of_the_set_and_only_videos_are_sorted():
    choices = [_choose(_video(100), 3, 6, seed, video=0.7, max_gap=4) for seed in range(200)]
    share = sum(choice.is_video for choice in choices) / len(choices)
    assert share == pytest.approx(0.7, abs=0.1)
    for choice in choices:
        if choice.is_video:
            assert list(choice.positions) == sorted(choice.positions)
    unsorted = [c for c in choices if list(c.positions) != sorted(c.positions)]
    assert len(unsorted) > 0.25 * len(choices)


def test_blocks_are_shuffled_within_and_keep_their_place():
    positions = tuple(range(40))
    found = shuffled(positions, 16, dice=random.Random(1))
    assert [sorted(found[i : i + 16]) for i in (0, 16, 32)] == [
        list(range(16)), list(range(16, 32)), list(range(32, 40))
    ]  # fmt: skip
    assert found != positions
    assert sorted(shuffled(positions, None, dice=random.Random(1))[:16]) != list(range(16))


def test_a_scene_with_a_gap_of_its_own_keeps_to_it():
    for seed in range(40):
        found = _choose(_video(100, max_gap=2), 0, 5, seed, video=1.0, max_gap=8).positions
        assert max(b - a for a, b in itertools.pairwise(found)) <= 2


def test_a_walk_follows_edges_and_visits_each_once():
    ring = {i: ((i - 1) % 9, (i + 1) % 9) for i in range(9)}
    for seed in range(20):
        found = walk(ring, 4, 9, dice=random.Random(seed))
        assert found[0] == 4
        assert sorted(found) == list(range(9))
        for number, position in enumerate(found[1:], start=1):
            assert set(ring[position]) & set(found[:number])
    assert walk(ring, 4, 10, dice=random.Random(0)) is None
    assert walk({}, 4, 2, dice=random.Random(0)) is None


def test_stored_sets_that_hold_the_start_are_preferred():
    links = Links(sets=((0, 1, 2), (5, 6, 7, 8), (9,)))
    for seed in range(20):
        dice = random.Random(seed)
        assert set(linked_positions(links, 6, 4, dice=dice)) == {5, 6, 7, 8}
        assert linked_positions(links, 1, 3, dice=dice)[0] == 1
    assert linked_positions(links, 0, 5, dice=random.Random(0)) is None


def test_the_share_of_ordered_samples_is_that_of_the_set():
    scene = Listed(20, 10, links=Links(sets=(tuple(range(10, 20)),)))
    rules = {"ordered_share": 0.7, "video": 1.0}
    choices = [_choose(scene, 15, 4, seed, **rules) for seed in range(200)]
    ordered = [choice for choice in choices if max(choice.positions) < 10]
    assert len(ordered) / len(choices) == pytest.approx(0.7, abs=0.1)
    assert all(choice.is_video for choice in ordered)
    others = [choice for choice in choices if choice not in ordered]
    assert all(min(choice.positions) >= 10 and not choice.is_video for choice in others)
    assert all(choice.positions[0] == 15 for choice in others)


def test_a_collection_without_links_is_no_video():
    choice = _choose(Listed(12, 0), 3, 4, video=1.0)
    assert not choice.is_video
    assert len(set(choice.positions)) == 4


def test_rules_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="max_gap and block must be 1 or more; got 0"):
        SamplingRules(max_gap=0)
    with pytest.raises(ConfigError, match=r"lie in \[0, 1\]"):
        SamplingRules(video=1.5)
