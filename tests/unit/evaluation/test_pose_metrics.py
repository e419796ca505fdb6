import numpy as np
import pytest
import torch
from evo.core import metrics as evo_metrics
from evo.core.trajectory import PosePath3D

from everview.errors import ConfigError
from everview.evaluation.metrics import motion_errors, path_errors
from everview.evaluation.metrics.poses import (
    align_paths,
    checked_poses,
    moved_path,
    rmse,
    rotation_degrees,
)
from everview.geometry.rotations import invert_rigid, matrix_from_quaternion, rigid

CASES = ("sintel_like_50", "tum_like_90", "short_8", "drift_60", "exact_20")
GROUPS = {"sim3": "sim3", "se3": "se3", "scale_only": "scale", "none": "none"}


@pytest.fixture(scope="module")
def values(golden):
    return np.load(golden / "metrics" / "trajectory.npz")


def _aligned_motion(estimated, true, alignment, gap=1):
    estimated, true = checked_poses(estimated, true)
    found = align_paths(estimated, true, alignment=alignment)
    return motion_errors(moved_path(estimated, found), true, gap=gap)


@pytest.mark.parametrize("group", [*GROUPS, "sim3_delta5"])
@pytest.mark.parametrize("case", CASES)
def test_errors_are_those_of_the_published_evaluation(values, case, group):
    estimated, true = values[f"{case}/in/pred_c2w"], values[f"{case}/in/gt_c2w"]
    alignment, gap = GROUPS.get(group, "sim3"), 5 if "delta5" in group else 1
    path = path_errors(estimated, true, alignment=alignment)
    motion = _aligned_motion(estimated, true, alignment, gap)
    found = {
        "ate_rmse": path.rmse, "ate_mean": path.mean, "ate_median": path.median,
        "rpe_trans_rmse": rmse(motion.translation),
        "rpe_rot_deg_rmse": rmse(motion.rotation_degrees),
    }  # fmt: skip
    compared = 0
    for name, value in found.items():
        if (key := f"{case}/out_{group}/{name}") in values:
            assert value == pytest.approx(float(values[key]), rel=1e-9, abs=1e-12), name
            compared += 1
    assert compared >= 2


@pytest.mark.parametrize("case", CASES[:4])
def test_inverse_poses_score_worse(values, case):
    true = values[f"{case}/in/gt_c2w"]
    wrong = np.linalg.inv(values[f"{case}/in/pred_c2w"])
    expected = float(values[f"{case}/out_sim3_wrong_w2c_input/ate_rmse"])
    assert path_errors(wrong, true).rmse == pytest.approx(expected, rel=1e-9)
    assert expected > 1.1 * path_errors(values[f"{case}/in/pred_c2w"], true).rmse


def _random_path(frames, noise=0.0):
    rotation = torch.cumsum(0.2 * torch.randn(frames, 4, dtype=torch.float64), 0)
    rotation = matrix_from_quaternion(rotation + torch.tensor([0, 0, 0, 3.0]))
    place = torch.cumsum(torch.randn(frames, 3, dtype=torch.float64), 0)
    poses = rigid(rotation, place)
    turn = matrix_from_quaternion(torch.tensor([0, 0, 0, 1.0]) + noise * torch.randn(frames, 4))
    return poses, rigid(rotation @ turn.double(), 0.3 * place + noise * torch.randn(frames, 3))


@pytest.mark.parametrize("alignment", ["sim3", "se3", "none"])
def test_errors_agree_with_evo(alignment):
    true, estimated = _random_path(25, noise=0.05)
    ours, theirs = PosePath3D(poses_se3=list(true.numpy())), PosePath3D(
        poses_se3=list(estimated.numpy())
    )  # fmt: skip
    if alignment != "none":
        theirs.align(ours, correct_scale=alignment == "sim3")
    statistics = []
    for relation in (evo_metrics.PoseRelation.translation_part,):
        ape = evo_metrics.APE(relation)
        ape.process_data((ours, theirs))
        statistics.append(ape.get_all_statistics())
    path = path_errors(estimated, true, alignment=alignment)
    assert path.rmse == pytest.approx(statistics[0]["rmse"], rel=1e-6)
    assert path.mean == pytest.approx(statistics[0]["mean"], rel=1e-6)
    assert path.median == pytest.approx(statistics[0]["median"], rel=1e-6)
    motion = _aligned_motion(estimated, true, alignment)
    for relation, values in (
        (evo_metrics.PoseRelation.translation_part, motion.translation),
        (evo_metrics.PoseRelation.rotation_angle_deg, motion.rotation_degrees),
    ):
        rpe = evo_metrics.RPE(relation, delta=1, delta_unit=evo_metrics.Unit.frames, all_pairs=True)
        rpe.process_data((ours, theirs))
        np.testing.assert_allclose(values.numpy(), rpe.error, rtol=1e-6, atol=1e-9)


def test_alignment_forgives_another_world_frame_and_scale():
    true, _ = _random_path(12)
    world = _random_path(1)[0][0]
    estimated = world @ true
    estimated[:, :3, 3] *= 0.2
    assert path_errors(estimated, true).rmse < 1e-9
    assert path_errors(estimated, true).scale == pytest.approx(5)
    assert path_errors(estimated, true, alignment="se3").rmse > 0.1
    motion = motion_errors(estimated, true)
    assert float(motion.rotation_degrees.max()) < 1e-6
    assert float(motion.direction_degrees.max()) < 1e-6
    torch.testing.assert_close(motion.length_ratio, torch.full((11,), 0.2).double())


def test_directions_are_told_apart_by_sign():
    true = rigid(torch.eye(3).expand(3, 3, 3), torch.tensor([[0.0, 0, 0], [0, 0, 1], [0, 0, 2]]))
    forth = motion_errors(true, true)
    back = motion_errors(invert_rigid(true), true)
    assert forth.direction_degrees.tolist() == [0, 0]
    assert back.direction_degrees.tolist() == [180, 180]


def test_standing_still_has_no_direction():
    moving = rigid(torch.eye(3).expand(2, 3, 3), torch.tensor([[0.0, 0, 0], [0, 0, 1]]))
    still = torch.eye(4).expand(2, 4, 4)
    lazy, wild = motion_errors(still, moving), motion_errors(moving, still)
    assert lazy.direction_degrees.tolist() == [90]
    assert lazy.length_ratio.tolist() == [0]
    assert wild.direction_degrees.isnan().all()
    assert wild.length_ratio.isnan().all()


@pytest.mark.parametrize("degrees", [0, 1e-7, 1e-3, 30, 179.999, 180])
def test_the_angle_of_a_rotation_is_exact_from_tiny_to_half_turns(degrees):
    half = torch.deg2rad(torch.tensor(degrees / 2, dtype=torch.float64))
    axis = torch.tensor([0.6, 0, 0.8], dtype=torch.float64)
    rotation = matrix_from_quaternion(torch.cat([axis * half.sin(), half.cos()[None]]))
    assert float(rotation_degrees(rotation)) == pytest.approx(degrees, rel=1e-6, abs=1e-12)


def test_an_estimate_on_a_line_or_in_one_place_is_aligned_as_well_as_can_be():
    true, _ = _random_path(10)
    line = rigid(torch.eye(3).expand(10, 3, 3), torch.arange(10.0)[:, None] * torch.ones(3))
    still = torch.eye(4).expand(10, 4, 4)
    spread = (true[:, :3, 3] - true[:, :3, 3].mean(0)).norm(dim=-1)
    assert path_errors(still, true).rmse == pytest.approx(rmse(spread))
    assert path_errors(line, true).rmse < rmse(spread)


@pytest.mark.parametrize(
    ("estimated", "true", "message"),
    [
        (torch.eye(4)[None], torch.eye(4)[None], "at least 2 poses, got 1"),
        (torch.eye(4).expand(3, 4, 4), torch.eye(4).expand(2, 4, 4), "3 estimated and 2 true"),
        (torch.full((2, 4, 4), torch.nan), torch.eye(4).expand(2, 4, 4), "first: frame 0"),
        (torch.eye(4).expand(2, 4, 4), torch.eye(4).expand(2, 4, 4), "true camera stands still"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_words(estimated, true, message):
    with pytest.raises(ConfigError, match=message):
        path_errors(estimated, true)


def test_a_gap_that_leaves_no_pair_is_refused():
    true, estimated = _random_path(4)
    with pytest.raises(ConfigError, match=r"within 1 \.\. 3 for 4 poses: 4"):
        motion_errors(estimated, true, gap=4)
    with pytest.raises(ConfigError, match="alignment must be"):
        path_errors(estimated, true, alignment="affine")
