import math

import numpy as np
import pytest
import torch

from everview.training.losses.cameras import camera_loss, path_loss, relative_pose_loss, turn_loss
from everview.training.losses.maps import confidence_loss, gradient_loss
from everview.training.losses.scale import scene_scale
from everview.training.losses.tracks import track_loss
from everview.training.objective.guidance import _motion


@pytest.fixture(scope="module")
def values(golden):
    return np.load(golden / "metrics" / "supervised_loss.npz")


def test_the_camera_loss_is_the_published_one(values):
    rounds = torch.stack([torch.as_tensor(values[f"camera/in/stage{i}"]) for i in range(4)])
    truth = torch.as_tensor(values["camera/in/gt"])
    found = camera_loss(rounds, truth, align_sign=False)
    assert float(found) == pytest.approx(float(values["camera/out/loss"]), rel=1e-9)


def test_the_camera_loss_weighs_later_rounds_more():
    truth = torch.tensor([0, 0, 0, 0, 0, 0, 1.0, 1, 1]).expand(1, 2, 9)
    off = truth + torch.tensor([3.0, 0, 0, 0, 0, 0, 0, 0, 0])
    early = camera_loss(torch.stack([off, truth]), truth)
    late = camera_loss(torch.stack([truth, off]), truth)
    assert float(late) == pytest.approx(0.5)  # mean of (3, 0, 0) over two rounds
    assert float(early) == pytest.approx(0.6 * 0.5)


def test_a_quaternion_and_its_negative_are_the_same_camera():
    truth = torch.tensor([0, 0, 0, 0.6, 0, 0, 0.8, 1, 1]).expand(1, 1, 1, 9)
    flipped = truth * torch.tensor([1, 1, 1, -1, -1, -1, -1, 1, 1.0])
    assert float(camera_loss(flipped, truth[0])) == 0
    assert float(camera_loss(flipped, truth[0], align_sign=False)) == pytest.approx(0.7)


def test_a_translation_error_is_clamped():
    truth = torch.zeros(1, 1, 9)
    rounds = torch.full((1, 1, 1, 9), 0.0)
    rounds[..., 0] = 1e9
    assert float(camera_loss(rounds, truth)) == pytest.approx(100 / 3)


def test_the_scale_of_a_scene_is_the_published_one(values):
    points = torch.as_tensor(values["scene_scale/in/points_first_camera"])
    mask = torch.as_tensor(values["scene_scale/in/mask"])
    expected = float(values["scene_scale/out/scale"])
    assert float(scene_scale(points, mask)) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(
        points / expected, torch.as_tensor(values["scene_scale/out/points"]), rtol=1e-5, atol=1e-6
    )


def test_the_confidence_loss_is_the_published_one(values):
    case = {
        name: torch.as_tensor(values[f"depth_points/in/{name}"])
        for name in ("pred_depth", "gt_depth", "mask", "conf")
    }
    error = (case["pred_depth"] - case["gt_depth"]).abs()[case["mask"]]
    confidence = case["conf"][case["mask"]]
    found = confidence_loss(error.expand(1, 1, 1, -1), confidence.expand(1, 1, 1, -1), alpha=0.2)
    expected = float(values["depth_points/out/depth_conf"])
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_confidence_is_best_at_alpha_over_the_error():
    error = torch.full((1, 1, 2, 2), 0.02)
    candidates = [1.0, 3.0, 5.0, 7.0, 20.0]
    losses = [
        float(confidence_loss(error, torch.full_like(error, c), alpha=0.1)) for c in candidates
    ]
    assert candidates[losses.index(min(losses))] == 5.0


def test_the_gradient_loss_sees_edges_but_no_offset():
    truth = torch.zeros(1, 1, 4, 6)
    edge = truth.clone()
    edge[..., 3:] = 1
    assert float(gradient_loss(truth + 5, truth)) == 0
    assert float(gradient_loss(edge, truth)) == pytest.approx(1 / 5)


def test_relative_poses_do_not_see_a_common_motion():
    truth = torch.tensor([[[0, 0, 0, 0, 0, 0, 1.0, 1, 1], [0, 0, 1, 0, 0, 0.6, 0.8, 1, 1]]])
    assert [float(term) for term in relative_pose_loss(truth, truth)] == [0, 0]
    further = truth + torch.tensor([[[0, 0, 0.5] + [0] * 6, [0] * 9]])
    rotation, translation = relative_pose_loss(further, truth)
    assert float(rotation) == 0
    assert float(translation) == pytest.approx(0.5 / 3)


def path(*places: float) -> torch.Tensor:
    """Pose encodings of a camera that looks ahead, at these places along z."""
    still = torch.tensor([0, 0, 0, 0, 0, 0, 1.0, 1, 1])
    steps = torch.tensor([[0, 0, -place] + [0] * 6 for place in places])
    return (still + steps)[None]


def test_a_path_is_judged_by_its_own_length():
    truth, estimate = path(0, 1, 2), path(0, 1, 3)
    small = [path(*(0.1 * z for z in places)) for places in ((0, 1, 3), (0, 1, 2))]
    error = float(path_loss(estimate, truth))
    assert error == pytest.approx(4 * 1 / 9 / 2, rel=1e-4)  # 4 of 9 pairs, off by half of the path
    assert float(path_loss(*small)) == pytest.approx(error, rel=1e-4)


def test_where_a_path_begins_does_not_matter():
    assert float(path_loss(path(5, 6, 7), path(0, 1, 2))) == pytest.approx(0, abs=1e-5)


def test_a_perfect_path_and_one_that_stands_still_have_gradients():
    for truth in (path(0, 1, 2), path(0, 0, 0)):
        estimate = truth.clone().requires_grad_()
        path_loss(estimate, truth).backward()
        assert estimate.grad is not None
        assert estimate.grad.isfinite().all()


def turned(*degrees: float) -> torch.Tensor:
    """Pose encodings of a camera that turns about y where it stands."""
    half = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64)) / 2
    encoding = torch.zeros(1, len(degrees), 9, dtype=torch.float64)
    encoding[0, :, 4], encoding[0, :, 6] = half.sin(), half.cos()
    return encoding


def test_a_turn_is_judged_over_all_pairs_in_radians():
    error = float(turn_loss(turned(0, 10, 25), turned(0, 10, 20)))
    assert error == pytest.approx(4 * 2 * math.sin(math.radians(2.5)) / 9, rel=1e-4)
    common = float(turn_loss(turned(30, 40, 50), turned(0, 10, 20)))
    assert common == pytest.approx(0, abs=1e-5)


def test_terms_of_motion_are_exact_within_low_precision():
    truth, estimate = turned(0, 10, 20).float(), turned(0, 10, 20.1).float()
    exact = _motion(estimate, truth)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = _motion(estimate, truth)
    for name, value in exact.items():
        torch.testing.assert_close(found[name], value, msg=name)


def test_a_perfect_turn_has_a_gradient():
    estimate = turned(0, 10, 20).requires_grad_()
    turn_loss(estimate, turned(0, 10, 20)).backward()
    assert estimate.grad is not None
    assert estimate.grad.isfinite().all()


def test_hidden_points_count_for_visibility_only():
    truth = torch.zeros(1, 2, 3, 2)
    rounds = torch.zeros(1, 1, 2, 3, 2)
    rounds[..., 2, :] = 50  # the third point is far off, but hidden
    visible = torch.tensor([True, True, False]).expand(1, 2, 3)
    sure = torch.where(visible, 20.0, -20.0)
    good = track_loss(rounds, sure, sure, truth, visible, scale=10)
    assert float(good) == pytest.approx(0, abs=1e-6)
    assert float(track_loss(rounds, sure, sure, truth, visible | True, scale=10)) > 1
    assert float(track_loss(rounds, -sure, sure, truth, visible, scale=10)) > 1
    assert track_loss(rounds, sure, sure, truth, visible & False, scale=10).isfinite()
