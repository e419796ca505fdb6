import math

import numpy as np
import pytest
import torch

from everview.evaluation.camera_scores import camera_scores, pair_errors, pose_auc
from everview.evaluation.clip_truth import ClipTruth
from everview.geometry.rotations import invert_rigid, rigid


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
    errors = pair_errors(sideways, _truth(_path(0.5), depth=20.0))
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


def test_auc_is_the_mean_share_below_each_whole_degree():
    errors = torch.tensor([0.5, 1.5, 2.5, 40.0], dtype=torch.float64)
    assert pose_auc(errors, 3) == pytest.approx((0.25 + 0.5 + 0.75) / 3)
    assert pose_auc(torch.tensor([3.0], dtype=torch.float64), 3) == pytest.approx(1 / 3)


def test_without_depth_a_twentieth_of_the_longest_baseline_counts():
    truth = _truth(_path(1.0))
    blind = ClipTruth(
        images=truth.images,
        world_from_camera=truth.world_from_camera,
        intrinsics=truth.intrinsics,
    )
    assert blind.least_baseline == pytest.approx(0.15)
    assert truth.least_baseline == pytest.approx(0.1)


def test_pair_errors_and_auc_are_those_of_the_reference(golden):
    """Where the baseline counts; the reference lets every baseline count."""
    z = np.load(golden / "metrics" / "pose_auc.npz")
    for case in sorted({key.split("/")[0] for key in z.files if "/in/pred_w2c" in key}):
        poses, true = (invert_rigid(torch.from_numpy(z[f"{case}/in/{n}_w2c"])).float()
                       for n in ("pred", "gt"))  # fmt: skip
        truth = ClipTruth(
            images=torch.zeros(len(true), 3, 14, 14),
            world_from_camera=true,
            intrinsics=torch.eye(3).expand(len(true), 3, 3),
        )
        errors = pair_errors(poses, truth)
        rotation = torch.from_numpy(z[f"{case}/out/rot_err_deg"])
        direction = torch.from_numpy(z[f"{case}/out/trans_err_deg"])
        torch.testing.assert_close(errors.rotation_degrees, rotation, atol=1e-3, rtol=0)
        counts = errors.direction_degrees.isfinite()
        expected = torch.maximum(rotation, direction)[counts]
        torch.testing.assert_close(errors.pose_degrees[counts], expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("limit", [5, 15, 30])
def test_auc_is_that_of_the_reference(golden, limit):
    z = np.load(golden / "metrics" / "pose_auc.npz")
    for case in sorted({key.split("/")[0] for key in z.files if "/out/auc30" in key}):
        if f"{case}/out/rot_err_deg" in z.files:
            group = "out"
        elif f"{case}/in/rot_err_deg" in z.files:
            group = "in"
        else:
            continue
        errors = (z[f"{case}/{group}/{name}_err_deg"] for name in ("rot", "trans"))
        found = pose_auc(torch.from_numpy(np.maximum(*errors)), limit)
        assert found == pytest.approx(float(z[f"{case}/out/auc{limit}"]), abs=1e-9), case
