"""Losses against numbers of the reference (README_metrics.md beside this file)."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from everview.geometry.prediction import Prediction
from everview.model.network import Outputs
from everview.training.losses.cameras import absolute_errors
from everview.training.losses.distillation import DISTILLATION, distillation, supervision
from everview.training.losses.scale import scene_scale
from everview.training.losses.supervised import ReleasedSupervision
from everview.training.losses.target import Target, map_pairs, with_empty_masks_filled

DISTILLED = ["train_with_track", "train_no_track", "eval_with_track", "empty_mask"]
RTOL, ATOL = 3e-6, 3e-7
"""Measured deviation is below 1e-6; the published tolerance is 3e-4."""


class Case:
    """One case of distill_loss.npz as our records."""

    def __init__(self, golden, name):
        with np.load(golden / "metrics" / "distill_loss.npz") as file:
            self.values = {
                key.removeprefix(f"{name}/"): file[key]
                for key in file.files
                if key.startswith(f"{name}/")
            }
        self.options = json.loads(str(self.values["opt"]))
        self.mask = self.tensor("in/valid_mask")
        self.pose, self.depth, self.depth_confidence = (
            self.tensor(f"in/student_{name}").requires_grad_()
            for name in ("camera_pose", "depth", "depth_conf")
        )
        self.points = self.tensor("in/student_pts3d_in_other_view").requires_grad_()
        self.preset = "released" if self.options["training"] else "released-eval"

    def tensor(self, key):
        return torch.as_tensor(self.values[key])

    @property
    def student(self):
        has_tracks = self.options["tracks"]
        return Outputs(
            pose_encoding_iterations=self.pose[None],
            depth=self.depth[..., 0],
            depth_confidence=self.depth_confidence,
            points=self.points,
            points_confidence=self.tensor("in/student_conf"),
            track_iterations=self.tensor("in/student_track")[None] if has_tracks else None,
            visibility_logits=self.tensor("in/student_vis").logit() if has_tracks else None,
            track_confidence_logits=self.tensor("in/student_track_conf").logit()
            if has_tracks else None,
        )  # fmt: skip

    @property
    def teacher(self):
        has_tracks = self.options["tracks"]
        return Prediction(
            pose_encoding=self.tensor("in/teacher_camera_pose"),
            pose_encoding_iterations=self.tensor("in/teacher_camera_pose")[None],
            network_size=tuple(self.mask.shape[-2:]),
            depth=self.tensor("in/teacher_depth")[..., 0],
            depth_confidence=self.tensor("in/teacher_depth_conf"),
            points=self.tensor("in/teacher_pts3d_in_other_view"),
            points_confidence=self.tensor("in/teacher_conf"),
            tracks=self.tensor("in/teacher_track") if has_tracks else None,
            visibility=self.tensor("in/teacher_vis") if has_tracks else None,
        )

    def objective(self):
        return distillation(self.student, self.teacher, mask=self.mask, preset=self.preset)


@pytest.fixture(params=DISTILLED)
def case(request, golden):
    return Case(golden, request.param)


def close(found, expected, rtol=RTOL, atol=ATOL):
    expected = torch.as_tensor(expected)
    found = torch.as_tensor(found).detach().to(expected.dtype)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def test_the_released_distillation_loss_is_the_published_one(case):
    close(case.objective().total, case.values["out/total_corner_zero"])


def test_each_weighted_part_is_the_published_one(case):
    objective = case.objective()
    weighted = {n: objective.weights[n] * t.detach() for n, t in objective.terms.items()}
    depth = weighted["depth"] + weighted["depth_gradient"] + weighted["depth_regulariser"]
    camera = weighted["translation"] + weighted["rotation"] + weighted["fov"]
    tracks = weighted.get("tracks", torch.zeros(())) + weighted.get("visibility", 0)
    close(camera, case.values["out/Lcamera_weighted"])
    close(depth, case.values["out/Ldepth_weighted"])
    close(tracks, case.values["out/Ltrack_weighted"])


def test_bare_camera_and_track_terms_are_the_published_ones(case):
    terms = case.objective().terms
    close(terms["translation"], case.values["out/camera_T"])
    close(terms["rotation"], case.values["out/camera_quat"])
    close(terms["fov"], case.values["out/camera_fov"])
    assert ("tracks" in terms) == case.options["tracks"]
    if case.options["tracks"]:
        close(terms["tracks"], case.values["out/track_position"])
        close(terms["visibility"], case.values["out/track_visibility_reference"])


@pytest.mark.parametrize("kind", ["depth", "points"])
def test_every_frame_is_aligned_and_judged_as_published(case, kind):
    target = Target.from_prediction(case.teacher, case.mask)
    pairs = with_empty_masks_filled(map_pairs(case.student, target)[kind])
    frames = DISTILLATION[case.preset].frames(pairs)
    expected = torch.as_tensor(case.values[f"out/{kind}_per_frame"])
    close(torch.stack([f.scale for f in frames]), expected[:, 0])
    shifts = torch.stack([f.shift for f in frames])
    close(shifts, expected[:, 1 : 1 + shifts.shape[1]])
    close(torch.stack([f.main for f in frames]), expected[:, 4])
    close(torch.stack([f.regulariser for f in frames]), expected[:, 6])
    gradient = torch.stack([f.gradient for f in frames])
    if kind == "depth":
        close(gradient, expected[:, 5])
    else:  # the reference's corner normals are rounding noise
        close(gradient, case.values["out/points_gradient_corner_zero"])


def test_gradients_are_the_published_ones(case):
    case.objective().total.backward()
    close(case.pose.grad, case.values["grad/camera_pose"])
    close(case.depth.grad, case.values["grad/depth"], atol=1e-6)
    close(case.depth_confidence.grad, case.values["grad/depth_conf"])


def test_the_mended_visibility_is_the_cross_entropy_without_a_second_sigmoid(golden):
    for name in ("train_with_track", "eval_with_track"):
        case = Case(golden, name)
        # the reference's number is weighted by the student's confidence, ours is not
        sure = replace(case.student, track_confidence_logits=None)
        found = distillation(sure, case.teacher, mask=case.mask).terms["visibility"]
        weight = case.tensor("in/student_track_conf")
        student, teacher = case.tensor("in/student_vis"), case.tensor("in/teacher_vis")
        entropy = torch.nn.functional.binary_cross_entropy(student, teacher, reduction="none")
        close((weight * entropy).mean(), case.values["out/track_visibility_on_probabilities"])
        close(found, entropy.mean(), rtol=1e-5)


@pytest.fixture(scope="module")
def supervised(golden):
    with np.load(golden / "metrics" / "supervised_loss.npz") as file:
        return {key: torch.as_tensor(file[key]) for key in file.files if not key.endswith("opt")}


@pytest.mark.parametrize(("keep", "suffix"), [(1.0, ""), (0.98, "_q98")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_supervised_loss_of_maps_is_the_published_one(supervised, keep, suffix, dtype):
    case = {
        key.removeprefix("depth_points/in/"): value
        if value.dtype == torch.bool
        else value.to(dtype)
        for key, value in supervised.items()
        if key.startswith("depth_points/in/")
    }
    still = torch.zeros(1, 3, 9, dtype=dtype)
    outputs = Outputs(
        pose_encoding_iterations=still[None],
        depth=case["pred_depth"],
        depth_confidence=case["conf"],
        points=case["pred_points"],
        points_confidence=case["conf"],
        track_iterations=None,
        visibility_logits=None,
        track_confidence_logits=None,
    )
    truth = Target(
        pose_encoding=still, depth=case["gt_depth"], points=case["gt_points"], mask=case["mask"]
    )
    terms = supervision(outputs, truth, preset=ReleasedSupervision(keep=keep)).terms
    rtol = 1e-5 if dtype == torch.float32 else 1e-12
    expected = {
        "depth_confidence": f"depth_conf{suffix}",
        "depth_error": f"depth_reg{suffix}",
        "depth_gradient": "depth_grad",
        "points_confidence": f"point_conf{suffix}",
        "points_error": f"point_reg{suffix}",
        "points_normals": "point_normal",
    }
    for name, key in expected.items():
        close(terms[name].double(), supervised[f"depth_points/out/{key}"], rtol=rtol, atol=0)


def test_the_supervised_camera_terms_are_the_published_ones(supervised):
    rounds = torch.stack([supervised[f"camera/in/stage{i}"] for i in range(4)])
    found = absolute_errors(rounds, supervised["camera/in/gt"], decay=0.6)
    for value, name in zip(found, ("T", "quat", "fov"), strict=True):
        close(value, supervised[f"camera/out/{name}"], rtol=1e-12, atol=0)


def test_the_scale_of_a_scene_divides_points_depth_and_translation(supervised):
    case = {
        key.removeprefix("scene_scale/"): value
        for key, value in supervised.items()
        if key.startswith("scene_scale/")
    }
    scale = scene_scale(case["in/points_first_camera"], case["in/mask"])[0]
    close(scale.double(), case["out/scale"], rtol=1e-6, atol=0)
    close(case["in/points_first_camera"] / scale, case["out/points"], rtol=1e-6)
    close(case["in/depth"] / scale, case["out/depth"], rtol=1e-6)
    translation = case["in/extrinsic_w2c"][..., :3, 3] / scale.double()
    close(translation, case["out/translation"], rtol=1e-6)
