import pytest
import torch

from everview.errors import ConfigError
from everview.geometry.cameras import fov_from_intrinsics, project_points
from everview.geometry.rotations import invert_rigid
from everview.world import render as render_module
from everview.world import sequence, training_seed
from everview.world.clip import Options
from everview.world.solids import turn_about_x

SIZE = (42, 56)


@pytest.fixture(scope="module")
def walk():
    """A clip to look at; do not change it."""
    return sequence(3, 6, size=SIZE, kind="room")


def _tensors(clip):
    return {
        name: getattr(clip, name)
        for name in ("images", "depth", "world_from_camera", "intrinsics", "points")
    }


def test_the_same_seed_gives_the_same_bytes(walk):
    again = _tensors(sequence(3, 6, size=SIZE))
    for name, value in _tensors(walk).items():
        assert torch.equal(value, again[name]), name


def test_a_tilted_camera_sees_the_same_from_the_same_places(walk):
    tilted = sequence(3, 6, size=SIZE, kind="room", options=Options(tilt=-20.0))
    angle = torch.deg2rad(torch.tensor(-20.0)).double()
    turn = torch.eye(4, dtype=torch.float64)
    turn[:3, :3] = turn_about_x(angle)
    assert turn[1, 2] > 0.3, "its axis points down"
    right = invert_rigid(turn) @ walk.world_from_camera.double() @ turn
    torch.testing.assert_close(tilted.world_from_camera.double(), right, rtol=0, atol=1e-6)
    camera = invert_rigid(tilted.world_from_camera.double())
    points = walk.points.double().flatten(1, 2) @ turn[:3, :3]  # in the world of the tilted one
    seen = points @ camera[:, :3, :3].mT + camera[:, None, :3, 3]
    pixels, depth = project_points(seen, tilted.intrinsics.double()), seen[..., 2]
    column, row = pixels.round().long().unbind(-1)
    inside = (column >= 0) & (column < SIZE[1]) & (row >= 0) & (row < SIZE[0]) & (depth > 0)
    frame = torch.arange(6)[:, None].expand_as(row)[inside]
    found = tilted.depth[frame, row[inside], column[inside]]
    assert inside.float().mean() > 0.2
    assert ((found - depth[inside]).abs() < 0.03 * found).float().mean() > 0.9


def test_other_seeds_give_other_rooms(walk):
    others = [sequence(seed, 1, size=SIZE).depth[0] for seed in (0, 1, 2, 2**47)]
    assert len({float(depth.mean()) for depth in [walk.depth[0], *others]}) == 5


def test_a_longer_clip_begins_like_a_shorter_one(walk):
    longer = _tensors(sequence(3, 9, size=SIZE))
    for name, value in _tensors(walk).items():
        torch.testing.assert_close(longer[name][:6], value, rtol=0, atol=0, msg=name)


def test_frames_do_not_depend_on_how_many_are_rendered_at_once(walk, monkeypatch):
    monkeypatch.setattr(render_module, "_RAYS_AT_ONCE", {"cpu": 1})
    one_by_one = sequence(3, 6, size=SIZE)
    torch.testing.assert_close(one_by_one.depth, walk.depth, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(one_by_one.images, walk.images, rtol=0, atol=1e-4)


def test_shapes_and_ranges_are_those_of_the_contract(walk):
    assert walk.images.shape == (6, 3, *SIZE)
    assert 0 <= float(walk.images.min()) <= float(walk.images.max()) <= 1
    assert walk.images.std() > 0.05
    assert walk.depth.shape == (6, *SIZE)
    assert float(walk.depth.min()) > 0
    assert float(walk.depth.max()) < 20
    assert torch.equal(walk.world_from_camera[0], torch.eye(4))
    rotation = walk.world_from_camera[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(6, 3, 3))
    torch.testing.assert_close(torch.det(rotation), torch.ones(6))


def test_the_longer_side_spans_the_angle_that_was_asked_for():
    for size in ((28, 42), (42, 28)):
        angles = torch.stack(
            [
                fov_from_intrinsics(sequence(s, 1, size=size, fov=(50, 60)).intrinsics[0], size)
                for s in range(4)
            ]
        )
        longer = torch.rad2deg(angles.amax(dim=1))
        assert 50 <= float(longer.min()) < float(longer.max()) <= 60.001


def test_a_larger_image_shows_the_same_room_in_finer_steps(walk):
    finer = sequence(3, 1, size=(84, 112))
    torch.testing.assert_close(finer.depth[0, ::2, ::2], walk.depth[0], rtol=1e-4, atol=1e-4)


def test_points_are_the_depth_unprojected_into_the_first_camera(walk):
    in_camera = walk.points[2] @ walk.world_from_camera[2, :3, :3]
    in_camera = in_camera - walk.world_from_camera[2, :3, 3] @ walk.world_from_camera[2, :3, :3]
    torch.testing.assert_close(in_camera[..., 2], walk.depth[2], rtol=1e-4, atol=1e-4)
    pixels = project_points(in_camera.flatten(0, 1), walk.intrinsics[2]).unflatten(0, SIZE)
    rows, columns = torch.meshgrid(torch.arange(42.0), torch.arange(56.0), indexing="ij")
    torch.testing.assert_close(pixels, torch.stack([columns, rows], dim=-1), rtol=0, atol=1e-3)


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_one_frames_depth_seen_from_another_agrees_with_the_depth_there(seed):
    clip = sequence(seed, 3, size=SIZE)
    camera = invert_rigid(clip.world_from_camera[2])
    moved = clip.points[0].flatten(0, 1) @ camera[:3, :3].T + camera[:3, 3]
    pixels = project_points(moved, clip.intrinsics[2]).round()
    limit = torch.tensor([55.0, 41.0])
    inside = (moved[:, 2] > 0.1) & (pixels >= 0).all(1) & (pixels <= limit).all(1)
    assert inside.float().mean() > 0.3
    column, row = pixels[inside].long().T
    error = (moved[inside, 2] / clip.depth[2, row, column] - 1).abs()  # half a pixel off at most
    assert float(error.median()) < 0.01
    assert float((error < 0.05).float().mean()) > 0.85


def test_tracks_agree_with_depth_and_pose(walk):
    queries = torch.tensor([[5.0, 7.0], [40.0, 30.0], [20.0, 20.0], [55.0, 41.0]])
    pixels, visible = walk.tracks(queries)
    column, row = queries.long().T
    points = walk.points[0, row, column]
    camera = invert_rigid(walk.world_from_camera)
    in_camera = points @ camera[:, :3, :3].mT + camera[:, None, :3, 3]
    expected = project_points(in_camera, walk.intrinsics)
    torch.testing.assert_close(pixels, expected, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(pixels[0], queries, rtol=0, atol=1e-3)
    assert visible[0].all()


def test_a_visible_point_lies_in_the_image_on_the_surface_that_is_seen_there():
    seen, lost = 0, 0
    for seed in range(4):
        clip = sequence(seed, 4, size=SIZE, speed=4)
        queries = torch.rand(40, 2) * torch.tensor([55.0, 41.0])
        pixels, visible = clip.tracks(queries)
        lost += int((~visible).sum())
        inside = pixels[visible]
        assert (inside >= -0.5).all()
        assert (inside < torch.tensor([55.5, 41.5])).all()
        seen += int(visible[3].sum())
    assert seen > 0
    assert lost > 0


def test_speed_multiplies_the_motion_between_frames():
    def step(speed):
        clips = [sequence(seed, 2, size=(14, 14), speed=speed) for seed in range(8)]
        return torch.stack([c.world_from_camera[1, :3, 3].norm() for c in clips]).mean()

    assert 2 < float(step(3.0) / step(1.0)) < 4


def test_noise_can_be_switched_off():
    clean, noisy = (sequence(3, 1, size=SIZE, noise=noise).images for noise in (0.0, 0.05))
    assert 0.01 < float((clean - noisy).std()) < 0.09


@pytest.mark.parametrize("arguments", [(1, 0, (14, 14)), (1, 2, (1, 14)), (1, -3, (14, 14))])
def test_impossible_sizes_are_refused_in_words(arguments):
    seed, frames, size = arguments
    with pytest.raises(ConfigError, match=r"frames >= 1 and sides >= 2"):
        sequence(seed, frames, size=size)


def test_seeds_of_training_are_distinct_and_never_plain():
    seeds = [training_seed(index) for index in range(20_000)]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 2**48
    assert max(seeds) < 2**49
