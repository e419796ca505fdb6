import math

import pytest
import torch

from everview.evaluation.camera_scores import camera_scores
from everview.evaluation.clip_truth import ClipTruth
from everview.evaluation.metrics import pair_errors
from everview.geometry.rotations import rigid


def _turn(degrees):
    """About the vertical axis."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _truth(poses, depth=2.0):
    frames = len(poses)
    return ClipTruth(
        images=torch.zeros(frames, 3, 14, 14),
        world_from_camera=poses,
        intrinsics=torch.eye(3).expand(frames, 3, 3),
        depth=torch.full((frames, 14, 14), depth),
        valid=torch.ones(frames, 14, 14, dtype=torch.bool),
    )


def _path(step, frames=4, turn=0.0):
    places = torch.arange(frames)[:, None] * torch.tensor([0.0, 0.0, step])
    return rigid(torch.stack([_turn(turn * i) for i in range(frames)]), places)


def test_a_known_turn_is_the_error_of_every_pair():
    """Each frame is turned by another 3 degrees: pairs are wrong by 3, 6 or 9 degrees."""
    scores = camera_scores(_path(1.0, turn=3.0), _truth(_path(1.0)), scale=1.0)
    assert scores["rotation_degrees"] == pytest.approx((3 * 3 + 2 * 6 + 9) / 6, abs=1e-4)
    assert scores["ate"] == pytest.approx(0, abs=1e-6)
    assert scores["length_error"] == pytest.approx(0, abs=1e-6)


def test_the_direction_counts_only_from_a_twentieth_of_the_depth_on():
    """Depth 20: pairs 0.5 and 1.0 apart; the limit is 1.0, reached by frames 2 and 3 apart."""
    sideways = _path(0.5)[:, [0, 1, 2, 3]].clone()
    sideways[:, :3, 3] = sideways[:, [2, 1, 0], 3]
    truth = _truth(_path(0.5), depth=20.0)
    errors = pair_errors(sideways, truth.world_from_camera, least_baseline=truth.least_baseline)
    assert errors.direction_degrees.isfinite().tolist() == [False, True, True, False, True, False]
    assert errors.direction_degrees.nanmean() == pytest.approx(90)
    scores = camera_scores(sideways, _truth(_path(0.5), depth=20.0))
    assert scores["auc30"] == pytest.approx(0.5)
    assert scores["auc30_apart"] == 0


def test_a_camera_that_stands_still_is_wrong_about_the_direction():
    still = torch.eye(4).expand(4, 4, 4)
    scores = camera_scores(still, _truth(_path(1.0)), scale=2.0, guess="/still")
    assert scores["direction_degrees/still"] == 90
    assert scores["length_error/still"] == 1
    assert scores["auc30/still"] == 0


def test_clips_that_hardly_move_have_no_path_error():
    hardly = _truth(_path(0.01), depth=2.0)
    assert math.isnan(camera_scores(_path(1.0), hardly)["ate"])
    turning = _truth(_path(0.0, turn=5.0))
    scores = camera_scores(_path(0.0, turn=5.0), turning)
    assert math.isnan(scores["ate"])
    assert math.isnan(scores["auc30_apart"])
    assert scores["auc30"] == 1


def test_the_published_auc_does_not_see_the_sign():
    forward, back = _path(1.0), _path(-1.0)
    assert camera_scores(back, _truth(forward))["auc5"] == 1
    assert camera_scores(back, _truth(forward))["direction_degrees"] == pytest.approx(180)


def test_without_depth_a_twentieth_of_the_longest_baseline_counts():
    truth = _truth(_path(1.0))
    blind = ClipTruth(
        images=truth.images,
        world_from_camera=truth.world_from_camera,
        intrinsics=truth.intrinsics,
    )
    assert blind.least_baseline == pytest.approx(0.15)
    assert truth.least_baseline == pytest.approx(0.1)
