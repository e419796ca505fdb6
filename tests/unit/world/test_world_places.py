import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everview.errors import ConfigError
from everview.world import Options, sequence
from everview.world.bank import NUM_PATTERNS, SIDE, SLOT_ROWS, texture_bank
from everview.world.cast import cast_pixels
from everview.world.dice import Dice
from everview.world.kinds import KINDS, make_place
from everview.world.motion import MOTIONS, spline, stop_and_go
from everview.world.movers import body_poses
from everview.world.places import GROUP
from everview.world.render import cameras_at
from everview.world.route import Route
from everview.world.textures import sample

PINNED = [0.503819, 0.49492, 0.572476, 0.949936]
INTRINSICS = torch.tensor([[20.0, 0, 20], [0, 20, 20], [0, 0, 1]])
OUTLINE = torch.cartesian_prod(torch.linspace(0, 40, 9), torch.linspace(0, 40, 9))
REAL_KINDS = KINDS[1:]


def _place(seed, kind, motion="any", movers=False, speed=1.0):
    return make_place(Dice(seed), kind, speed=speed, motion=motion, movers=movers)[1]


def _degrees(rotation):
    turn = (rotation[:-1].mT @ rotation[1:]).diagonal(dim1=1, dim2=2).sum(-1)
    return torch.rad2deg(torch.acos(((turn - 1) / 2).clamp(-1, 1)))


@pytest.mark.parametrize("kind", REAL_KINDS)
def test_cameras_keep_clear_of_everything(kind):
    for seed in range(6):
        place = _place(seed, kind, movers=True, speed=2.0)
        for first in (0, 5 * GROUP):
            times = torch.arange(first, first + GROUP, 5).float()
            cameras = cameras_at(place, times, INTRINSICS, first // GROUP)
            scene = place.scene(first // GROUP)
            hits = cast_pixels(scene.solids, cameras, OUTLINE.expand(len(times), -1, -1))
            assert float(hits.distance.min()) > 0.1, (seed, first)


@pytest.mark.parametrize("kind", REAL_KINDS)
@pytest.mark.parametrize("motion", MOTIONS)
def test_paths_are_smooth_and_their_rotations_proper(kind, motion):
    for seed in range(3):
        poses = _place(seed, kind, motion).cameras(torch.arange(30.0))
        rotation, places = poses[:, :3, :3], poses[:, :3, 3]
        eye = torch.eye(3, dtype=poses.dtype).expand(30, 3, 3)
        torch.testing.assert_close(rotation @ rotation.mT, eye, rtol=0, atol=1e-5)
        assert float(places.diff(dim=0).norm(dim=-1).max()) < 0.9, seed
        assert float(_degrees(rotation).max()) < 25, seed


@pytest.mark.parametrize("kind", REAL_KINDS)
def test_a_path_does_not_depend_on_how_much_of_it_is_asked_for(kind):
    whole = _place(4, kind).cameras(torch.arange(40.0))
    for part in (slice(0, 7), slice(30, 31), slice(25, 40)):
        again = _place(4, kind).cameras(torch.arange(40.0)[part])
        torch.testing.assert_close(again, whole[part], rtol=0, atol=1e-9)


def test_turning_on_the_spot_turns_and_stays():
    for kind in REAL_KINDS:
        poses = _place(1, kind, "rotate").cameras(torch.arange(12.0))
        assert float(poses[:, :3, 3].std(dim=0).max()) < 0.05
        assert float(_degrees(poses[:, :3, :3]).median()) > 0.5


def test_stop_and_go_time_stands_still_but_never_runs_back():
    for seed in range(10):
        times = stop_and_go(torch.arange(0, 120, 0.25), Dice(seed))
        rate = times.diff() / 0.25
        assert float(rate.min()) > 0
        assert float(rate.min()) < 0.1
        assert float(rate.max()) > 1.5


def test_a_kind_or_motion_that_is_unknown_is_refused_in_words():
    with pytest.raises(ConfigError, match=r"kind 'cave' .* known: any, room, corridor"):
        sequence(1, 1, size=(14, 14), kind="cave")
    with pytest.raises(ConfigError, match=r"motion 'hop' is unknown; known: any, hand-held"):
        sequence(1, 1, size=(14, 14), options=Options(motion="hop"))


def test_any_kind_is_mostly_rooms_and_corridors():
    names = [
        make_place(Dice(s), "any", speed=1.0, motion="any", movers=False)[0] for s in range(80)
    ]
    assert set(names) == set(REAL_KINDS)
    assert 0.55 < (names.count("room") + names.count("corridor")) / len(names) < 0.85


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**40), pitch=st.floats(8, 40), aside=st.floats(-3, 3))
def test_a_route_has_no_jumps_and_keeps_its_distance(seed, pitch, aside):
    route = Route(dice=Dice(seed), pitch=pitch, radius=3.5, sides=None)
    distance = torch.arange(0, 10 * pitch, 0.05, dtype=torch.float64)
    x, z, yaw = route.at(distance, aside)
    step = torch.stack([x, z]).diff(dim=1)
    assert 0.05 * (1 - abs(aside) / 3.5) - 1e-6 <= float(step.norm(dim=0).min())
    assert float(step.norm(dim=0).max()) <= 0.05 * (1 + abs(aside) / 3.5) + 1e-6
    ahead = torch.stack([yaw.sin(), yaw.cos()])
    along = (step * (ahead[:, 1:] + ahead[:, :-1])).sum(dim=0) / 2
    torch.testing.assert_close(along, step.norm(dim=0), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("sides", [(1, 1), (2, 1), (1, 3)])
def test_a_loop_comes_back_to_where_it_began(sides):
    route = Route(dice=Dice(0), pitch=20.0, radius=4.0, sides=sides)
    distance = torch.linspace(5, 15, 7).double()
    x, z, yaw = route.at(distance, 1.0)
    later_x, later_z, later_yaw = route.at(distance + 2 * route.lap(), 1.0)
    torch.testing.assert_close(torch.stack([later_x, later_z]), torch.stack([x, z]))
    torch.testing.assert_close((later_yaw - yaw).cos(), torch.ones_like(yaw))


@pytest.mark.parametrize("kind", REAL_KINDS)
def test_things_move_rigidly_and_steadily(kind):
    moved = 0
    for seed in range(8):
        place = _place(seed, kind, movers=True)
        poses = body_poses(place.bodies, torch.arange(20.0))
        rotation = poses[..., :3, :3]
        eye = torch.eye(3, dtype=poses.dtype).expand_as(rotation)
        torch.testing.assert_close(rotation @ rotation.mT, eye, rtol=0, atol=1e-9)
        assert torch.equal(poses[:, 0], torch.eye(4, dtype=poses.dtype).expand(20, 4, 4))
        moved += len(place.bodies) > 1
        steps = poses[:, :, :3, 3].diff(dim=0).norm(dim=-1)
        assert float(steps.max()) < 3, seed
    assert moved >= 4


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(-(2**63), 2**63), stride=st.floats(0.02, 3))
def test_a_spline_stays_within_its_knots_and_does_not_depend_on_its_length(seed, stride):
    times = torch.arange(20) * stride
    curve = spline(Dice(seed), "x", times, 2)
    assert float(curve.abs().max()) <= 1 + 1e-5
    torch.testing.assert_close(spline(Dice(seed), "x", times[:7], 2), curve[:7])


def test_dice_give_the_same_numbers_on_every_machine():
    numbers = Dice(7).uniform("pinned", (4,))
    assert numbers.tolist() == Dice(7).uniform("pinned", (4,)).tolist()
    assert [round(value, 6) for value in numbers.tolist()] == PINNED
    assert Dice(7).number("pinned") == numbers[0]


def test_dice_depend_on_seed_and_label_not_on_the_order_of_asking():
    first, second = Dice(1), Dice(1)
    a, b = first.number("a"), first.number("b")
    assert second.number("b") == b
    assert second.number("a") == a != b
    assert Dice(2).number("a") != a
    assert Dice(1).child(2, 3).number("a") != Dice(1).child(3, 2).number("a")


def test_dice_are_fair():
    numbers = Dice(0).uniform("many", (20_000,), -1, 3)
    assert float(numbers.min()) >= -1
    assert float(numbers.max()) < 3
    assert float(numbers.mean()) == pytest.approx(1, abs=0.03)
    assert float(numbers.std()) == pytest.approx(4 / 12**0.5, abs=0.02)
    counts = torch.bincount(Dice(0).pick("die", (6000,), 6), minlength=6)
    assert len(counts) == 6
    assert int(counts.min()) > 850


def test_patterns_are_grey_values_of_some_contrast():
    bank = texture_bank()[0, 0].unflatten(0, (NUM_PATTERNS, SLOT_ROWS))
    finest = bank[:, 1 : SIDE + 1, 1 : SIDE + 1]
    assert float(finest.min()) >= 0
    assert float(finest.max()) <= 1
    assert float(finest.flatten(1).std(dim=1).min()) > 0.01


def test_patterns_repeat_without_a_seam_and_fade_to_their_mean():
    line = torch.linspace(-0.02, 0.02, 41)[None]
    at = torch.full_like(line, 0.3)
    for slot in (0.0, 3.0, 17.0):  # noise
        values = sample(slot, line, at, torch.full_like(line, 1e-3))
        assert float(values.diff().abs().max()) < 0.06
        assert torch.equal(sample(slot, line + 4, at, at * 0), sample(slot, line + 4, at, at * 0))
        far = sample(slot, torch.linspace(0, 1, 50)[None], torch.zeros(1, 50), torch.ones(1, 50))
        assert float(far.std()) < 0.01


def test_a_pattern_changes_steadily_with_the_distance():
    width = torch.exp(torch.linspace(math.log(1e-3), math.log(0.5), 400))[None]
    for slot in (5.0, 30.0, 80.0):
        values = sample(slot, torch.full_like(width, 0.37), torch.full_like(width, 0.61), width)
        assert float(values.diff().abs().max()) < 0.05
