"""What must hold between images, depth, poses, tracks and masks, whatever the place."""

import itertools
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everview.errors import ConfigError
from everview.geometry.cameras import project_points
from everview.geometry.rotations import invert_rigid
from everview.world import NO_EFFECTS, Effects, Options, sequence
from everview.world.kinds import KINDS
from everview.world.places import GROUP
from everview.world.stream import stream

SIZE = (35, 49)
KIND = st.sampled_from(KINDS[1:])
SEED = st.integers(0, 2**40)
FIELDS = ("images", "depth", "valid", "world_from_camera", "intrinsics", "points", "moving")


def _pixels():
    rows, columns = torch.meshgrid(torch.arange(35.0), torch.arange(49.0), indexing="ij")
    return torch.stack([columns, rows], dim=-1).flatten(0, 1)


def _depth_at(clip, frame, pixels):
    column, row = pixels.round().long().T
    return clip.depth[frame, row.clamp(0, 34), column.clamp(0, 48)]


@settings(deadline=None, max_examples=10)
@given(seed=SEED, kind=KIND)
def test_points_seen_from_another_frame_have_the_depth_that_is_there(seed, kind):
    clip = sequence(seed, 3, size=SIZE, kind=kind, options=Options(moving=0))
    camera = invert_rigid(clip.world_from_camera[2])
    moved = clip.points[0].flatten(0, 1) @ camera[:3, :3].T + camera[:3, 3]
    pixels = project_points(moved, clip.intrinsics[2]).round()
    inside = clip.valid[0].flatten() & (moved[:, 2] > 0.1)
    inside &= ((pixels >= 0) & (pixels <= torch.tensor([48.0, 34.0]))).all(dim=1)
    # Nothing is nearer than what is seen in the pixel and its neighbours: far ground is at very
    # different depths in pixels side by side.
    around = [pixels[inside] + torch.tensor([x, y]) for x in (-1, 0, 1) for y in (-1, 0, 1)]
    seen = torch.stack([_depth_at(clip, 2, places) for places in around]).amin(dim=0)
    nearer = moved[inside, 2] < 0.9 * seen
    assert float(nearer.float().mean()) < 0.03


@settings(deadline=None, max_examples=12)
@given(seed=SEED, kind=KIND, moving=st.booleans(), tilt=st.sampled_from((0.0, -30.0)))
def test_tracks_agree_with_depth_where_they_are_seen(seed, kind, moving, tilt):
    options = Options(moving=float(moving), tilt=tilt)
    clip = sequence(seed, 4, size=SIZE, kind=kind, speed=1.5, options=options)
    queries = _pixels()[::23]
    pixels, visible = clip.tracks(queries)
    known = clip.valid[0].flatten()[::23]
    assert torch.equal(visible[0], known)
    torch.testing.assert_close(pixels[0][known], queries[known], rtol=0, atol=2e-3)
    inside = pixels[visible]
    assert (inside >= -0.5).all()
    assert (inside < torch.tensor([48.5, 34.5])).all()
    still = known & ~clip.moving[0].flatten()[::23]
    points = clip.points[0].flatten(0, 1)[::23]
    for frame in range(4):
        camera = invert_rigid(clip.world_from_camera[frame])
        in_camera = points @ camera[:3, :3].T + camera[:3, 3]
        ok = still & (in_camera[:, 2] > 0.05)
        expected = project_points(in_camera, clip.intrinsics[frame])
        torch.testing.assert_close(pixels[frame][ok], expected[ok], rtol=2e-3, atol=2e-2)
        seen = visible[frame] & ok
        if int(seen.sum()) > 8:
            error = (in_camera[seen, 2] / _depth_at(clip, frame, pixels[frame][seen]) - 1).abs()
            assert float(error.median()) < 0.06  # half a pixel off, on sloping ground


def _with_something_moving(kind, frames, **settings):
    """A clip of this kind in which much of the first image moves."""
    for seed in range(60):
        clip = sequence(seed, frames, size=SIZE, kind=kind, options=Options(moving=1.0), **settings)
        if 0.02 < float(clip.moving[0].float().mean()) < 0.5:
            return clip
    raise AssertionError("no such clip")


@pytest.mark.parametrize("kind", KINDS[1:])
def test_tracks_go_with_what_moves(kind):
    """A tracked point of a moving thing is, where visible, at the depth of the moving thing."""
    clip = _with_something_moving(kind, 3)
    on_it = clip.moving[0].flatten().nonzero()[:, 0]
    queries = _pixels()[on_it]
    pixels, visible = clip.tracks(queries)
    camera = invert_rigid(clip.world_from_camera[2])
    in_camera = clip.points[0].flatten(0, 1)[on_it] @ camera[:3, :3].T + camera[:3, 3]
    as_if_still = project_points(in_camera, clip.intrinsics[2])
    assert visible[0].all()
    assert float((pixels[2] - as_if_still).norm(dim=1).max()) > 0.5
    column, row = pixels[2][visible[2]].round().long().clamp(min=0).T
    shown = clip.moving[2, row.clamp(max=34), column.clamp(max=48)]
    if len(shown) > 3:
        assert float(shown.float().mean()) > 0.6


def test_what_stands_still_is_not_marked_as_moving():
    for kind in KINDS[1:]:
        assert not sequence(5, 2, size=SIZE, kind=kind, options=Options(moving=0)).moving.any()


def test_sky_has_no_depth_no_point_and_no_track():
    clip = sequence(2, 2, size=SIZE, kind="terrain")
    sky = ~clip.valid[0]
    assert 0.05 < float(sky.float().mean()) < 0.95
    assert (clip.depth[0][sky] == 0).all()
    assert (clip.points[0][sky] == 0).all()
    assert clip.points.isfinite().all()
    _, visible = clip.tracks(_pixels()[sky.flatten()])
    assert not visible.any()


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_longer_clip_begins_like_a_shorter_one_of_any_kind(kind):
    options = Options(moving=1.0)
    short = sequence(8, 3, size=SIZE, kind=kind, options=options)
    longer = sequence(8, GROUP + 2, size=SIZE, kind=kind, options=options)
    for name in FIELDS:
        ours, theirs = getattr(short, name).float(), getattr(longer, name)[:3].float()
        torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-4 if name != "images" else 4e-3)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_stream_gives_the_frames_of_a_clip_whatever_the_chunks(kind):
    options = Options(moving=1.0)
    whole = sequence(3, 21, size=(14, 21), kind=kind, options=options, speed=2.0)
    for chunk in (5, 7):
        parts = list(itertools.islice(
            stream(3, chunk=chunk, size=(14, 21), kind=kind, options=options, speed=2.0), 3
        ))  # fmt: skip
        for name in FIELDS:
            joined = torch.cat([getattr(part, name) for part in parts]).float()
            ours = getattr(whole, name)[: 3 * chunk].float()
            tolerance = 4e-3 if name == "images" else 1e-3
            torch.testing.assert_close(joined, ours, rtol=1e-5, atol=tolerance)


@pytest.mark.parametrize("kind", ["corridor", "street"])
def test_a_loop_shows_the_start_again(kind):
    options = Options(motion="loop", moving=0, effects=NO_EFFECTS)
    clip = sequence(6, 1, size=SIZE, kind=kind, options=options, noise=0)
    place = clip.place
    lap = place.route.lap() / place.step
    before = place.cameras(torch.tensor([0.0]))[0, :3, 3]
    after = place.cameras(torch.tensor([lap]))[0, :3, 3]
    assert float((after - before)[[0, 2]].norm()) < 1.0  # but for the hand that wanders


def test_a_stream_keeps_only_what_is_near():
    options = Options(motion="drive", moving=0)
    endless = stream(1, chunk=4, size=(14, 14), kind="street", speed=40.0, options=options)
    for _ in range(12):
        part = next(endless)
    assert part.start == 44
    assert len(part.place._blocks) <= 64
    assert len(part.place._scenes) <= 3
    assert float(part.world_from_camera[0, :3, 3].norm()) > 50


def test_chunks_of_no_frames_are_refused():
    with pytest.raises(ConfigError, match="chunk >= 1; got 0"):
        next(stream(1, chunk=0))


@pytest.mark.parametrize("arguments", [{"fov": (90.0, 45.0)}, {"speed": 0.0}, {"noise": -1.0}])
def test_impossible_cameras_are_refused_in_words(arguments):
    with pytest.raises(ConfigError, match=r"speed > 0 and noise >= 0; got"):
        sequence(1, 1, size=(14, 14), **arguments)


def test_effects_are_shares():
    with pytest.raises(ConfigError, match=r"Effects.blurred must be between 0 and 1; got 2"):
        Effects(blurred=2)
    with pytest.raises(ConfigError, match=r"Options.moving must be between 0 and 1"):
        Options(moving=-0.5)
    with pytest.raises(ConfigError, match=r"Options.tilt must be between -90 and 90 degrees"):
        Options(tilt=100)


def _image(**effects):
    options = Options(effects=Effects(**{**vars(NO_EFFECTS), **effects}), moving=0)
    return sequence(3, 3, size=SIZE, kind="room", noise=0, speed=6, options=options).images


def test_every_effect_does_something_and_none_by_default_does_nothing():
    clean = _image()
    assert torch.equal(_image(), clean)
    for effect in ({"exposure": 0.5}, {"white_balance": 0.5}, {"vignette": 1.0},
                   {"blurred": 1.0, "shutter": 1.0}, {"compressed": 1.0}):  # fmt: skip
        assert float((_image(**effect) - clean).abs().max()) > 0.005, effect


def test_blur_smooths_along_the_motion_and_keeps_the_mean():
    clean, blurred = _image(), _image(blurred=1.0, shutter=1.0)
    assert float(blurred.diff(dim=-1).abs().mean()) < float(clean.diff(dim=-1).abs().mean())
    assert float((blurred.mean() - clean.mean()).abs()) < 0.02


PINNED = {
    "room": (0.38919, 2.51701),
    "corridor": (0.3564, 5.0838),
    "street": (0.30334, 11.90079),
    "terrain": (0.34163, 14.48286),
}
"""Kind -> mean colour and mean depth of a clip; a change here is a change of the world."""


@pytest.mark.parametrize("kind", PINNED)
def test_the_world_is_the_same_as_ever(kind):
    clip = sequence(11, 2, size=SIZE, kind=kind, options=Options(moving=1.0))
    means = float(clip.images.mean()), float(clip.depth.mean())
    assert means == pytest.approx(PINNED[kind], rel=1e-3), means


@pytest.mark.slow
def test_other_vector_instructions_give_the_same_world(tmp_path):
    code = (
        "import sys, torch; from everview.world import sequence, Options, Effects; torch.save("
        "[(c.images, c.depth) for s in range(8) for c in [sequence(s, 2, size=(70, 98),"
        " options=Options(moving=1.0, effects=Effects(compressed=0)))]], sys.argv[1])"
    )
    clips = []
    for number, capability in enumerate(("default", "avx2")):
        path = tmp_path / f"{number}.pt"
        environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability}
        subprocess.run([sys.executable, "-c", code, str(path)], check=True, env=environment)
        clips.append(torch.load(path))
    for (image, depth), (other_image, other_depth) in zip(*clips, strict=True):
        same = (image - other_image).abs().amax(dim=1) <= 1 / 255
        same &= (depth - other_depth).abs() <= 1e-4 * depth.clamp(min=1)
        assert float(same.float().mean()) > 0.999


@pytest.mark.gpu
@pytest.mark.parametrize("kind", PINNED)
def test_a_gpu_gives_what_the_cpu_gives(kind):
    here, there = (
        sequence(11, 3, size=SIZE, kind=kind, options=Options(moving=1.0, device=device))
        for device in ("cpu", "cuda")
    )
    for name in ("images", "depth", "points"):
        error = (getattr(there, name).cpu() - getattr(here, name)).abs()
        tolerance = 1 / 255 if name == "images" else 1e-3
        assert float((error <= tolerance).float().mean()) > 0.99, name
    queries = _pixels()[::31]
    pixels, visible = here.tracks(queries)
    pixels_there, visible_there = there.tracks(queries.cuda())
    both = visible & visible_there.cpu()
    torch.testing.assert_close(pixels_there.cpu()[both], pixels[both], rtol=0, atol=0.05)
    assert float((visible == visible_there.cpu()).float().mean()) > 0.97
