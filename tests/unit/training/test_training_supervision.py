import math
from dataclasses import replace

import pytest
import torch

from everview.model.network import Outputs
from everview.training.losses.cameras import absolute_errors
from everview.training.losses.distillation import SUPERVISION, supervision
from everview.training.losses.masked import masked_mean, mean_without_outliers
from everview.training.losses.normals import known_normals, normal_error, normals
from everview.training.losses.supervised import ReleasedSupervision
from everview.training.losses.target import Target

B, S, H, W, T = 2, 2, 12, 15, 4


@pytest.fixture
def truth():
    depth = 1 + torch.rand(B, S, H, W)
    return Target(
        pose_encoding=torch.randn(B, S, 9),
        depth=depth,
        points=torch.randn(B, S, H, W, 3),
        mask=torch.ones(B, S, H, W, dtype=torch.bool),
        tracks=10 * torch.rand(B, S, T, 2),
        visibility=(torch.rand(B, S, T) < 0.5).float(),
    )


@pytest.fixture
def outputs():
    return Outputs(
        pose_encoding_iterations=torch.randn(3, B, S, 9), depth=1 + torch.rand(B, S, H, W),
        depth_confidence=1.5 + torch.rand(B, S, H, W), points=torch.randn(B, S, H, W, 3),
        points_confidence=1.5 + torch.rand(B, S, H, W),
        track_iterations=10 * torch.rand(3, B, S, T, 2),
        visibility_logits=torch.randn(B, S, T), track_confidence_logits=torch.randn(B, S, T),
    )  # fmt: skip


def leaves_of(outputs):
    return Outputs(**{name: v.clone().requires_grad_() for name, v in vars(outputs).items()})


@pytest.mark.parametrize("preset", SUPERVISION)
def test_all_heads_get_finite_gradients_even_where_the_truth_is_unknown(outputs, truth, preset):
    hole = torch.rand(B, S, H, W) < 0.3
    spoiled = replace(
        truth,
        depth=truth.depth.masked_fill(hole, math.nan),
        points=truth.points.masked_fill(hole[..., None], math.nan),
        mask=~hole,
    )
    student = leaves_of(outputs)
    settings = ReleasedSupervision(track_weight=0.05) if preset == "released" else preset
    objective = supervision(student, spoiled, preset=settings)
    objective.total.backward()
    for name, leaf in vars(student).items():
        if preset == "paper" and name == "track_confidence_logits":
            continue  # the paper says nothing of it
        assert leaf.grad.isfinite().all(), name
        assert leaf.grad.abs().sum() > 0, name


@pytest.mark.parametrize("preset", SUPERVISION)
def test_predictions_are_not_normalised(outputs, truth, preset):
    right = replace(outputs, depth=truth.depth, points=truth.points)
    bigger = replace(outputs, depth=2 * truth.depth, points=2 * truth.points)
    name = "depth_error" if preset == "released" else "depth"
    assert float(supervision(right, truth, preset=preset).terms[name]) == 0
    assert float(supervision(bigger, truth, preset=preset).terms[name]) > 1
    scale = supervision(bigger, truth, preset=preset).diagnostics["depth_scale"]
    assert float(scale) == pytest.approx(0.5)


def test_the_released_weights_are_five_for_the_camera_and_none_for_tracks(outputs, truth):
    weights = supervision(outputs, truth).weights
    assert (weights["translation"], weights["rotation"], weights["fov"]) == (5, 5, 2.5)
    assert {weights[n] for n in weights if n.startswith(("depth", "points"))} == {1}
    assert {weights[n] for n in ("tracks", "visibility", "track_confidence")} == {0}


def test_the_papers_weights_are_one_and_a_twentieth_for_tracks(outputs, truth):
    weights = supervision(outputs, truth, preset="paper").weights
    assert weights["camera"] == weights["depth"] == weights["points_regulariser"] == 1
    assert weights["tracks"] == weights["visibility"] == 0.05


def test_the_papers_loss_is_what_it_is_by_hand():
    still = torch.zeros(1, 2, 9)
    pose = still.clone()
    pose[0, 1, 0] = 0.3  # Huber with delta 0.1: 0.3 - 0.05
    depth = torch.ones(1, 2, 2, 2)
    wrong = depth.clone()
    wrong[0, 0, 0, 0] = 3.0
    mask = torch.ones(1, 2, 2, 2, dtype=torch.bool)
    mask[0, 0, 1, 1] = False
    outputs = Outputs(
        pose_encoding_iterations=pose[None], depth=wrong, depth_confidence=2 * depth,
        points=None, points_confidence=None, track_iterations=None, visibility_logits=None,
        track_confidence_logits=None,
    )  # fmt: skip
    terms = supervision(outputs, Target(pose_encoding=still, depth=depth, mask=mask),
                        preset="paper").terms  # fmt: skip
    assert float(terms["camera"]) == pytest.approx(0.25)
    assert float(terms["depth"]) == pytest.approx(2 * 2 / 3)  # confidence 2, one of three pixels
    assert float(terms["depth_gradient"]) == pytest.approx(2 * 2 + 2 * 2)  # one valid pair each way
    assert float(terms["depth_regulariser"]) == pytest.approx(-0.2 * math.log(2) * 2)  # two frames


def test_a_clip_whose_first_frame_is_nearly_empty_does_not_count_for_the_camera(outputs, truth):
    mask = truth.mask.clone()
    mask[0, 0] = False
    mask[0, 0].view(-1)[:100] = True
    found = supervision(outputs, replace(truth, mask=mask)).terms["translation"]
    rounds = outputs.pose_encoding_iterations[:, 1:]
    alone = absolute_errors(rounds, truth.pose_encoding[1:], decay=0.6)[0]
    assert float(found) == pytest.approx(float(alone))
    mask[0, 0].view(-1)[100] = True
    more = supervision(outputs, replace(truth, mask=mask)).terms["translation"]
    assert float(more) != pytest.approx(float(alone))
    none = supervision(outputs, replace(truth, mask=torch.zeros_like(mask))).terms
    assert float(none["translation"]) == 0


def test_too_few_valid_pixels_make_a_term_zero_and_keep_the_graph(outputs, truth):
    mask = torch.zeros_like(truth.mask)
    mask.view(-1)[:99] = True
    student = leaves_of(outputs)
    objective = supervision(student, replace(truth, mask=mask))
    assert {float(t.detach()) for n, t in objective.terms.items() if n.startswith("depth")} == {0}
    objective.total.backward()
    assert student.depth.grad.abs().sum() == 0
    assert student.pose_encoding_iterations.grad is not None


def test_unknown_tracks_do_not_count(outputs, truth):
    known = torch.ones(B, S, T, dtype=torch.bool)
    known[..., 2] = False
    spoiled = truth.tracks.clone()
    spoiled[..., 2, :] = math.nan
    for preset in SUPERVISION:
        here = supervision(outputs, replace(truth, track_mask=known), preset=preset)
        there = supervision(
            outputs, replace(truth, track_mask=known, tracks=spoiled), preset=preset
        )
        assert float(there.terms["tracks"]) == pytest.approx(float(here.terms["tracks"]))


def test_the_largest_values_of_many_are_left_out():
    many = torch.arange(2000.0)
    kept = many.clamp_max(100)
    assert float(mean_without_outliers(many)) == pytest.approx(float(kept.mean()))  # 102 remain
    ramp = torch.linspace(0, 1, 2000)
    limit = ramp[round(1999 * 0.98)]
    assert float(mean_without_outliers(ramp)) == pytest.approx(float(ramp[ramp < limit].mean()))
    assert float(mean_without_outliers(ramp, keep=1.0)) == pytest.approx(0.5)
    few = torch.tensor([1.0, 500.0])
    assert float(mean_without_outliers(few)) == pytest.approx(250.5)


def test_a_mean_over_nothing_is_zero_and_differentiable():
    values = torch.rand(3, requires_grad=True)
    mean = masked_mean(values, torch.zeros(3))
    mean.backward()
    assert float(mean.detach()) == 0
    assert values.grad.abs().sum() == 0


def test_normals_of_a_plane_agree_and_a_fold_is_seen():
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(7.0), indexing="ij")
    plane = torch.stack([x, y, 5 + 0.5 * x - 0.2 * y], dim=-1)[None]
    mask = torch.ones(1, 6, 7, dtype=torch.bool)
    inner = torch.nn.functional.normalize(normals(plane)[:, :, 1:-1, 1:-1], dim=-1)
    torch.testing.assert_close(inner, inner[:1, :, :1, :1].expand_as(inner))
    assert float(normal_error(plane, 3 * plane, mask)) == pytest.approx(0, abs=1e-6)
    assert float(normal_error(plane * torch.tensor([1, 1, -1.0]), plane, mask)) > 0.1


def test_normals_need_three_valid_pixels():
    mask = torch.zeros(1, 5, 5, dtype=torch.bool)
    mask[0, 2, 2] = mask[0, 1, 2] = mask[0, 2, 1] = True  # a pixel, its upper and left neighbour
    known = known_normals(mask)
    assert known.sum() == 1
    assert bool(known[0, 0, 2, 2])
    assert float(normal_error(torch.randn(1, 5, 5, 3), torch.randn(1, 5, 5, 3), mask)) == 0
