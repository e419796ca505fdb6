from dataclasses import fields, replace

import pytest
import torch

from everview.errors import ConfigError
from everview.geometry.cameras import camera_from_pose_encoding, points_from_depth
from everview.geometry.prediction import Prediction
from everview.training.degrade import Faults, degrade
from everview.training.losses.cameras import is_flipped

B, S, H, W, T = 2, 4, 10, 12, 30


@pytest.fixture
def right():
    pose = torch.randn(B, S, 9, dtype=torch.float64)
    pose[..., 3:7] = torch.nn.functional.normalize(pose[..., 3:7], dim=-1)
    pose[..., 7:] = 1.0
    depth = 1 + torch.rand(B, S, H, W, dtype=torch.float64)
    camera_from_world, intrinsics = camera_from_pose_encoding(pose, (H, W))
    return Prediction(
        pose_encoding=pose, pose_encoding_iterations=pose[None], network_size=(H, W), depth=depth,
        depth_confidence=1 + depth, points=points_from_depth(depth, camera_from_world, intrinsics),
        points_confidence=1 + depth, tracks=8 * torch.rand(B, S, T, 2).double(),
        visibility=torch.rand(B, S, T).double(), track_confidence=torch.rand(B, S, T).double(),
    )  # fmt: skip


ALL = Faults(noise=0.1, outliers=0.1, scale=0.2, flicker=0.1, rotation=5, translation=0.1, tracks=1)


def arrays(prediction):
    return {n: v for n, v in vars(prediction).items() if isinstance(v, torch.Tensor)}


def test_no_faults_change_nothing(right):
    found = degrade(right, Faults(), seeds=[1, 2])
    for name, value in arrays(right).items():
        torch.testing.assert_close(arrays(found)[name], value, rtol=1e-9, atol=1e-9)


def test_faults_are_a_function_of_the_clips_seed(right):
    here = degrade(right, ALL, seeds=[5, 6])
    second = {n: v[:, 1:] if n.endswith("iterations") else v[1:] for n, v in arrays(right).items()}
    alone = degrade(Prediction(**second, network_size=(H, W)), ALL, seeds=[6])
    for name, value in arrays(alone).items():
        again = arrays(here)[name]
        torch.testing.assert_close(
            again[:, 1:] if name.endswith("iterations") else again[1:], value
        )
    other = degrade(right, ALL, seeds=[7, 8])
    assert not torch.allclose(other.depth, here.depth)


@pytest.mark.parametrize("fault", [f.name for f in fields(Faults)])
def test_points_stay_where_depth_and_camera_put_them(right, fault):
    found = degrade(right, Faults(**{fault: 0.5}), seeds=[1, 2])
    torch.testing.assert_close(found.points, found.points_from_depth(), rtol=1e-6, atol=1e-6)


def test_noise_has_the_strength_asked_for(right):
    ratio = (degrade(right, Faults(noise=0.2), seeds=[1, 2]).depth / right.depth).log()
    assert float(ratio.std()) == pytest.approx(0.2, rel=0.1)
    assert float(ratio.mean()) == pytest.approx(0, abs=0.03)


def test_outliers_are_a_share_of_pixels_and_far_off(right):
    ratio = (degrade(right, Faults(outliers=0.3), seeds=[1, 2]).depth / right.depth).log().abs()
    wrong = ratio > 1e-9
    assert float(wrong.double().mean()) == pytest.approx(0.3, abs=0.06)
    assert float(ratio[wrong].min()) > 0.69
    assert float(ratio[wrong].max()) < 1.62


def test_scale_is_one_factor_per_clip_and_flicker_one_per_frame(right):
    scaled = degrade(right, Faults(scale=0.3), seeds=[1, 2])
    ratio = (scaled.depth / right.depth).flatten(1)
    assert float(ratio.std(dim=1).max()) < 1e-9
    assert float((ratio[0, 0] - ratio[1, 0]).abs()) > 1e-3
    assert torch.equal(scaled.pose_encoding, right.pose_encoding)
    ratio = (degrade(right, Faults(flicker=0.3), seeds=[1, 2]).depth / right.depth).flatten(2)
    assert float(ratio.std(dim=2).max()) < 1e-9
    assert float(ratio[..., 0].std(dim=1).min()) > 1e-2


def test_cameras_are_turned_and_moved_but_the_first_is_not(right):
    found = degrade(right, Faults(rotation=10, translation=0.2), seeds=[1, 2])
    assert torch.equal(found.pose_encoding[:, 0], right.pose_encoding[:, 0])
    relative = found.camera_from_world @ right.world_from_camera
    trace = relative[:, 1:, :3, :3].diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    degrees = torch.rad2deg(torch.arccos(((trace - 1) / 2).clamp(-1, 1)))
    assert 3 < float(degrees.mean()) < 40
    shift = relative[:, 1:, :3, 3].norm(dim=-1) / right.points.norm(dim=-1).mean()
    assert 0.1 < float(shift.mean()) < 0.8
    assert not is_flipped(found.pose_encoding, right.pose_encoding).any()
    assert torch.equal(found.depth, right.depth)


def test_tracks_err_in_all_frames_but_the_first(right):
    found = degrade(right, Faults(tracks=2), seeds=[1, 2]).tracks - right.tracks
    assert found[:, 0].abs().max() == 0
    assert float(found[:, 1:].std()) == pytest.approx(2, rel=0.15)


def test_stronger_faults_err_in_the_same_direction(right):
    weak, strong = (degrade(right, ALL.times(k), seeds=[1, 2]).pose_encoding for k in (0.5, 1.0))
    by = [(p[..., :3] - right.pose_encoding[..., :3]).flatten() for p in (weak, strong)]
    assert float(torch.cosine_similarity(*by, dim=0)) > 0.9
    assert by[1].norm() > by[0].norm()


def test_outliers_stop_at_all_pixels():
    assert Faults(outliers=0.6).times(2) == Faults(outliers=1.0)
    assert ALL.times(0) == Faults()


def test_predictions_without_points_or_tracks_can_be_degraded(right):
    few = replace(right, points=None, points_confidence=None, tracks=None)
    found = degrade(few, ALL, seeds=[1, 2])
    assert found.points is None
    assert found.tracks is None
    assert not torch.allclose(found.depth, right.depth)


@pytest.mark.parametrize("field", [f.name for f in fields(Faults)])
def test_a_negative_strength_is_refused_and_named(field):
    with pytest.raises(ConfigError, match=rf"Faults\.{field} must be >= 0 and finite, got -1"):
        Faults(**{field: -1.0})


def test_a_share_above_one_is_refused():
    with pytest.raises(ConfigError, match=r"Faults\.outliers is a share in \[0, 1\], got 1.5"):
        Faults(outliers=1.5)


def test_a_seed_is_needed_for_every_clip(right):
    with pytest.raises(ConfigError, match="got 1 seeds for 2 clips"):
        degrade(right, ALL, seeds=[1])
