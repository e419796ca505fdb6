import math

import pytest
import torch

from everview.world import cast as cast_module
from everview.world.cast import Cameras, Grid, cast, cast_pixels
from everview.world.entry import FAR
from everview.world.solids import (
    BOX,
    CONE,
    CYLINDER,
    ROOM,
    SPHERE,
    TRIANGLE,
    join_solids,
    make_solids,
    turn_about_x,
    turn_about_y,
)

MIDDLE = (0.0, -1.5, 0.0)
ROOM_PART = make_solids(ROOM, torch.tensor([[0, -1.5, 0.0]]), torch.tensor([[3, 1.5, 4.0]]))
INTRINSICS = torch.tensor([[20.0, 0, 14], [0, 20, 10.5], [0, 0, 1]])


def _solid(shape, centre, half, yaw=0.0):
    turn = turn_about_y(torch.tensor([yaw]))
    return make_solids(shape, torch.tensor([centre]), torch.tensor([half]), turn=turn)


def _looking_at(direction):
    """A rotation whose z axis points there."""
    z = torch.nn.functional.normalize(torch.tensor(direction, dtype=torch.float32), dim=0)
    helper = torch.tensor([0.0, 0, 1]) if abs(float(z[1])) > 0.9 else torch.tensor([0.0, 1, 0])
    x = torch.nn.functional.normalize(torch.linalg.cross(helper, z), dim=0)
    return torch.stack([x, torch.linalg.cross(z, x), z], dim=1)


def _cameras(direction=(0, 0, 1), origin=MIDDLE, bodies=None):
    pose = torch.eye(4)
    pose[:3, :3], pose[:3, 3] = _looking_at(direction), torch.tensor(origin)
    bodies = torch.eye(4).expand(1, 1, 4, 4) if bodies is None else bodies
    return Cameras(
        place_from_camera=pose[None], intrinsics=INTRINSICS[None], place_from_body=bodies
    )


def _distance(parts, direction, origin=MIDDLE):
    """Metres to the nearest surface straight ahead, and its shape."""
    solids = join_solids([ROOM_PART, *parts])
    hits = cast_pixels(solids, _cameras(direction, origin), INTRINSICS[:2, 2].reshape(1, 1, 2))
    return float(hits.distance), int(solids.shape[hits.solid[hits.row]])


def _crowd(seed):
    """Some of every shape, turned every way, in and around a room."""
    generator = torch.Generator().manual_seed(seed)
    parts = [ROOM_PART]
    for shape in (BOX, SPHERE, CYLINDER, CONE, TRIANGLE):
        random = torch.rand(6, 8, generator=generator)
        centre = (random[:, :3] * 2 - 1) * torch.tensor([3, 1.5, 4]) + torch.tensor(MIDDLE)
        turn = turn_about_y(random[:, 6] * 6) @ turn_about_x(random[:, 7] * 6)
        parts.append(make_solids(shape, centre, random[:, 3:6] * 0.5 + 0.05, turn=turn))
    return join_solids(parts)


@pytest.mark.parametrize(
    ("direction", "distance"),
    [((0, 0, 1), 4), ((0, 0, -1), 4), ((1, 0, 0), 3), ((0, 1, 0), 1.5), ((0, -1, 0), 1.5),
     ((1, 0, 1), 3 * 2**0.5)],
)  # fmt: skip
def test_walls_are_where_they_are(direction, distance):
    assert _distance([], direction) == (pytest.approx(distance, rel=1e-5), ROOM)


def test_a_wall_seen_straight_on_has_the_same_depth_everywhere():
    grid = Grid(size=(21, 28))
    hits = cast(ROOM_PART, _cameras(origin=(0.0, -1.5, 1.9)), grid)
    depth = grid.image(hits.distance)[0]
    torch.testing.assert_close(depth, torch.full((21, 28), 2.1))


def test_a_sphere_is_met_at_its_near_side():
    ball = [_solid(SPHERE, (0, -1.5, 3), (0.5, 0.5, 0.5))]
    assert _distance(ball, (0, 0, 1)) == (pytest.approx(2.5), SPHERE)
    beside = 3 - math.sqrt(0.5**2 - 0.3**2)
    assert _distance(ball, (0, 0, 1), (0.3, -1.5, 0))[0] == pytest.approx(beside, rel=1e-5)
    assert _distance(ball, (0, 0, 1), (0.51, -1.5, 0)) == (pytest.approx(4), ROOM)
    assert _distance(ball, (0, 0, -1)) == (pytest.approx(4), ROOM)  # it is not behind


def test_an_ellipsoid_is_a_stretched_sphere():
    egg = [_solid(SPHERE, (0, -1.5, 3), (0.5, 0.5, 1.5))]
    assert _distance(egg, (0, 0, 1))[0] == pytest.approx(1.5)


def test_a_turned_box_is_met_at_its_edge():
    straight = [_solid(BOX, (0, -1.5, 3), (0.5, 0.5, 0.5))]
    turned = [_solid(BOX, (0, -1.5, 3), (0.5, 0.5, 0.5), yaw=math.pi / 4)]
    assert _distance(straight, (0, 0, 1)) == (pytest.approx(2.5), BOX)
    assert _distance(turned, (0, 0, 1))[0] == pytest.approx(3 - math.sqrt(0.5), rel=1e-5)
    assert _distance(turned, (0, 0, 1), (0.6, -1.5, 0))[1] == BOX  # the corner sticks out
    assert _distance(straight, (0, 0, 1), (0.6, -1.5, 0))[1] == ROOM


def test_yaw_turns_from_forward_to_the_right():
    plank = [_solid(BOX, (0, -1.5, 2), (0.01, 0.2, 1.0), yaw=0.5)]
    ahead = (math.sin(0.5) * 0.9, -1.5, 0.0)
    assert _distance(plank, (0, 0, 1), ahead)[1] == BOX
    assert _distance(plank, (0, 0, 1), (-ahead[0], -1.5, 1.9))[1] == ROOM


def test_a_cylinder_has_a_round_side_and_a_flat_top():
    barrel = [_solid(CYLINDER, (0, -0.5, 2), (0.4, 0.5, 0.4))]  # 1 m high, on the floor
    assert _distance(barrel, (0, 0, 1), (0, -0.7, 0)) == (pytest.approx(1.6, rel=1e-5), CYLINDER)
    side = 2 - math.sqrt(0.4**2 - 0.2**2)
    assert _distance(barrel, (0, 0, 1), (0.2, -0.7, 0))[0] == pytest.approx(side, rel=1e-5)
    assert _distance(barrel, (0, 1, 0), (0.1, -1.5, 2)) == (pytest.approx(0.5, rel=1e-5), CYLINDER)
    assert _distance(barrel, (0, 0, 1))[1] == ROOM  # passes above


def test_a_cone_gets_wider_downwards_and_has_a_base():
    hat = [_solid(CONE, (0, -1.5, 2), (1.0, 0.5, 1.0))]  # apex at y = -2, base at y = -1
    assert _distance(hat, (0, 0, 1), (0, -1.5, 0)) == (pytest.approx(1.5, rel=1e-4), CONE)
    assert _distance(hat, (0, 0, 1), (0, -1.2, 0))[0] == pytest.approx(2 - 0.8, rel=1e-4)
    assert _distance(hat, (0, -1, 0), (0.5, -0.2, 2)) == (pytest.approx(0.8, rel=1e-4), CONE)
    assert _distance(hat, (0, 0, 1), (0, -2.1, 0))[1] == ROOM
    assert _distance(hat, (0, 0, 1), (0, -0.9, 0))[1] == ROOM


def test_a_triangle_is_seen_from_both_sides_and_ends_at_its_edges():
    flag = [_solid(TRIANGLE, (0, -1.5, 2), (1.0, 1.0, 1.0))]
    for origin, way, distance in (((0.3, -1.2, 0.0), 1, 2.0), ((0.3, -1.2, 3.0), -1, 1.0)):
        assert _distance(flag, (0, 0, way), origin) == (pytest.approx(distance), TRIANGLE)
    assert _distance(flag, (0, 0, 1), (0.6, -1.0, 0))[1] == ROOM
    assert _distance(flag, (0, 0, 1), (-0.1, -1.2, 0))[1] == ROOM


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [(21, 28), (10, 33)])
def test_tiles_see_what_asking_every_solid_sees(seed, size):
    solids, grid = _crowd(seed), Grid(size=size)
    for direction in ((0, 0, 1), (1, 0.3, -0.2), (0.1, 1, 0)):
        cameras = _cameras(direction, (0.2, -1.4, -0.5))
        fast = cast(solids, cameras, grid)
        slow = cast_pixels(solids, cameras, grid.pixels(torch.device("cpu"))[None])
        torch.testing.assert_close(fast.distance, slow.distance, rtol=1e-4, atol=1e-4)
        same = fast.solid[fast.row] == slow.solid[slow.row]
        assert same.float().mean() > 0.999


def test_how_many_pairs_are_worked_on_at_once_changes_nothing(monkeypatch):
    solids, grid = _crowd(5), Grid(size=(21, 28))
    whole = cast(solids, _cameras(), grid)
    monkeypatch.setattr(cast_module, "_PAIRS_AT_ONCE", 7)
    parts = cast(solids, _cameras(), grid)
    torch.testing.assert_close(parts.distance, whole.distance, rtol=1e-6, atol=0)
    assert torch.equal(parts.solid[parts.row], whole.solid[whole.row])


def test_solids_move_with_their_body():
    ball = make_solids(SPHERE, torch.zeros(1, 3), torch.full((1, 3), 0.5), body=1)
    solids, grid = join_solids([ROOM_PART, ball]), Grid(size=(21, 28))
    bodies = torch.eye(4).repeat(1, 2, 1, 1)
    bodies[0, 1, :3, 3] = torch.tensor([0, -1.5, 3])
    there = cast(solids, _cameras(bodies=bodies), grid)
    still = join_solids([ROOM_PART, _solid(SPHERE, (0, -1.5, 3), (0.5, 0.5, 0.5))])
    expected = cast(still, _cameras(), grid)
    torch.testing.assert_close(there.distance, expected.distance, rtol=1e-5, atol=1e-5)
    assert float(there.distance.min()) < 2.6


def test_where_nothing_is_the_distance_is_far():
    ball, grid = _solid(SPHERE, (0, -1.5, 3), (0.5, 0.5, 0.5)), Grid(size=(21, 28))
    depth = grid.image(cast(ball, _cameras(), grid).distance)[0]
    assert float(depth[0, 0]) == FAR
    assert float(depth[10, 14]) == pytest.approx(2.5, rel=1e-2)
    assert (cast(ball, _cameras((0, 0, -1)), grid).distance == FAR).all()


def test_tiles_are_put_back_in_the_order_of_the_image():
    for size in ((14, 28), (10, 33), (3, 5)):
        grid = Grid(size=size)
        x, y = grid.image(grid.pixels(torch.device("cpu")).T)
        assert torch.equal(x, torch.arange(float(size[1])).expand(size))
        assert torch.equal(y, torch.arange(float(size[0]))[:, None].expand(size))
