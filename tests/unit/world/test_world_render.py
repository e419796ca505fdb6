import math

import pytest
import torch

from everview.world.dice import Dice
from everview.world.render import cast, pixel_rays, shade
from everview.world.scene import Primitives, Scene, make_scene


def _solids(*rows):
    """Rows of centre 3, half size 3, yaw."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 7)
    return Primitives(centre=table[:, :3], half=table[:, 3:6], yaw=table[:, 6])


def _scene(boxes=(), spheres=(), cylinders=()):
    """An empty room of 6 x 3 x 8 m around (0, -1.5, 0), with these solids."""
    dressed = make_scene(Dice(1))
    count = 1 + len(boxes) + len(spheres) + len(cylinders)
    return Scene(
        room=_solids((0, -1.5, 0, 3, 1.5, 4, 0)),
        boxes=_solids(*boxes),
        spheres=_solids(*spheres),
        cylinders=_solids(*cylinders),
        face_material=torch.zeros(count, 6, dtype=torch.long),
        materials=dressed.materials,
        lights=dressed.lights,
        ambient=dressed.ambient,
        zone_centre=dressed.zone_centre,
        zone_half=dressed.zone_half,
    )


def _distance(scene, direction, origin=(0.0, -1.5, 0.0)):
    hits = cast(scene, torch.tensor([origin]), torch.tensor([[direction]], dtype=torch.float32))
    return float(hits.distance), int(hits.primitive)


@pytest.mark.parametrize(
    ("direction", "distance"),
    [((0, 0, 1), 4), ((0, 0, -1), 4), ((1, 0, 0), 3), ((0, 1, 0), 1.5), ((0, -1, 0), 1.5),
     ((1, 0, 1), 3), ((3, 1.5, 4), 1), ((0, 0, 2), 2)],
)  # fmt: skip
def test_walls_are_where_they_are(direction, distance):
    assert _distance(_scene(), direction) == (pytest.approx(distance, rel=1e-6), 0)


def test_a_wall_seen_straight_on_has_the_same_depth_everywhere():
    intrinsics = torch.tensor([[[20.0, 0, 14], [0, 20, 10.5], [0, 0, 1]]])
    rows, columns = torch.meshgrid(torch.arange(21.0), torch.arange(28.0), indexing="ij")
    pixels = torch.stack([columns, rows], -1).reshape(1, -1, 2)
    rays = pixel_rays(pixels, intrinsics)
    hits = cast(_scene(), torch.tensor([[0.0, -1.5, 1.9]]), rays)
    straight = (rays[..., 0].abs() * 2.1 < 3) & (rays[..., 1].abs() * 2.1 < 1.5)
    torch.testing.assert_close(hits.distance[straight], torch.full((int(straight.sum()),), 2.1))
    assert straight.float().mean() > 0.9


def test_a_sphere_is_met_at_its_near_side():
    scene = _scene(spheres=[(0, -1.5, 3, 0.5, 0.5, 0.5, 0)])
    assert _distance(scene, (0, 0, 1)) == (pytest.approx(2.5), 1)
    offset = 0.3  # parallel rays that miss the centre by this much
    expected = 3 - math.sqrt(0.5**2 - offset**2)
    assert _distance(scene, (0, 0, 1), (offset, -1.5, 0))[0] == pytest.approx(expected, rel=1e-5)
    assert _distance(scene, (0, 0, 1), (0.51, -1.5, 0)) == (pytest.approx(4), 0)
    assert _distance(scene, (0, 0, -1)) == (pytest.approx(4), 0)  # it is not behind


def test_a_turned_box_is_met_at_its_edge():
    straight = _scene(boxes=[(0, -1.5, 3, 0.5, 0.5, 0.5, 0)])
    turned = _scene(boxes=[(0, -1.5, 3, 0.5, 0.5, 0.5, math.pi / 4)])
    assert _distance(straight, (0, 0, 1)) == (pytest.approx(2.5), 1)
    assert _distance(turned, (0, 0, 1))[0] == pytest.approx(3 - math.sqrt(0.5), rel=1e-5)
    assert _distance(turned, (0, 0, 1), (0.6, -1.5, 0))[1] == 1  # the corner sticks out
    assert _distance(straight, (0, 0, 1), (0.6, -1.5, 0))[1] == 0


def test_a_flat_box_turns_the_way_its_yaw_says():
    """A yaw of +a turns the box's own x axis (1, 0, 0) to (cos a, 0, -sin a): right-handed."""
    plank = (0, -1.5, 2, 1.0, 0.2, 0.01, 0.5)
    end = (0.9 * math.cos(0.5), -1.5, 2 - 0.9 * math.sin(0.5))
    distance, which = _distance(_scene(boxes=[plank]), (0, 0, 1), (end[0], -1.5, 0.0))
    assert which == 1
    assert distance == pytest.approx(end[2], abs=0.02)


def test_a_cylinder_has_a_round_side_and_a_flat_top():
    scene = _scene(cylinders=[(0, -0.5, 2, 0.4, 0.5, 0.4, 0)])  # 1 m high, on the floor
    assert _distance(scene, (0, 0, 1), (0, -0.7, 0)) == (pytest.approx(1.6, rel=1e-5), 1)
    side = 2 - math.sqrt(0.4**2 - 0.2**2)
    assert _distance(scene, (0, 0, 1), (0.2, -0.7, 0))[0] == pytest.approx(side, rel=1e-5)
    assert _distance(scene, (0, 1, 0), (0.1, -1.5, 2)) == (pytest.approx(0.5, rel=1e-5), 1)
    assert _distance(scene, (0, 0, 1))[1] == 0  # passes above


def test_the_nearest_of_several_is_seen_whatever_their_order():
    near, far = (0, -1.5, 2, 0.3, 0.3, 0.3, 0), (0, -1.5, 3, 0.5, 0.5, 0.5, 0)
    for order in ([near, far], [far, near]):
        assert _distance(_scene(boxes=order), (0, 0, 1))[0] == pytest.approx(1.7)
    assert _distance(_scene(boxes=[far], spheres=[near]), (0, 0, 1)) == (pytest.approx(1.7), 2)


def test_colours_depend_on_the_place_not_on_the_viewer():
    """Same surface point, same distance and angle, seen from two sides: same colour."""
    scene = _scene()
    origin = torch.tensor([[-0.5, -1.5, 0.0], [0.5, -1.5, 0.0]])
    rays = torch.tensor([[[0.5, 0, 4.0]], [[-0.5, 0, 4.0]]])
    hits = cast(scene, origin, rays)
    colour = shade(scene, hits, origin, rays, torch.tensor([100.0, 100.0]))
    torch.testing.assert_close(colour[0], colour[1], rtol=1e-4, atol=1e-4)
    assert colour.std() > 0
