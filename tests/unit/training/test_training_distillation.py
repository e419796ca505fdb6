from dataclasses import replace

import pytest
import torch

from everview.errors import ConfigError
from everview.geometry.prediction import Prediction
from everview.model.network import Outputs
from everview.training.losses.corrected_distillation import CorrectedDistillation
from everview.training.losses.distillation import DISTILLATION, distillation

B, S, H, W, T, ROUNDS = 2, 3, 10, 14, 5, 2
PRESETS = list(DISTILLATION)


def unit(vectors):
    return vectors / vectors.norm(dim=-1, keepdim=True)


def make_pose(*lead):
    pose = torch.randn(*lead, 9, dtype=torch.float64)
    return torch.cat([pose[..., :3], unit(pose[..., 3:7]), pose[..., 7:].abs()], dim=-1)


def make_maps():
    depth = 1 + torch.rand(B, S, H, W, dtype=torch.float64)
    y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    rays = torch.stack([x / W - 0.5, y / H - 0.5, torch.ones(H, W)], dim=-1)
    return depth, rays * depth[..., None] + 0.05 * torch.randn(B, S, H, W, 3).double()


@pytest.fixture
def teacher():
    depth, points = make_maps()
    pose = make_pose(B, S)
    return Prediction(
        pose_encoding=pose, pose_encoding_iterations=pose[None], network_size=(H, W),
        depth=depth, depth_confidence=1 + torch.rand(B, S, H, W).double(),
        points=points, points_confidence=1 + torch.rand(B, S, H, W).double(),
        tracks=10 * torch.rand(B, S, T, 2).double(), visibility=torch.rand(B, S, T).double(),
        track_confidence=torch.rand(B, S, T).double(),
    )  # fmt: skip


@pytest.fixture
def student():
    depth, points = make_maps()
    return Outputs(
        pose_encoding_iterations=make_pose(ROUNDS, B, S),
        depth=depth, depth_confidence=1.5 + torch.rand(B, S, H, W).double(),
        points=points, points_confidence=1.5 + torch.rand(B, S, H, W).double(),
        track_iterations=10 * torch.rand(ROUNDS, B, S, T, 2).double(),
        visibility_logits=torch.randn(B, S, T).double(),
        track_confidence_logits=torch.randn(B, S, T).double(),
    )  # fmt: skip


@pytest.fixture
def mask():
    chosen = torch.rand(B, S, H, W) < 0.7
    chosen[0, 1] = False
    chosen[0, 1, 4, 5] = True  # a single pixel
    return chosen


def copy_of(teacher, logits=20.0):
    """A student that says what its teacher says, with confidence 1 in maps and sure tracks."""
    ones = torch.ones(B, S, H, W, dtype=torch.float64)
    return Outputs(
        pose_encoding_iterations=teacher.pose_encoding[None], depth=teacher.depth,
        depth_confidence=ones, points=teacher.points, points_confidence=ones,
        track_iterations=teacher.tracks[None], visibility_logits=teacher.visibility.logit(),
        track_confidence_logits=torch.full((B, S, T), logits, dtype=torch.float64),
    )  # fmt: skip


def times(student, factor):
    """The same reconstruction in another unit."""
    poses = student.pose_encoding_iterations
    return replace(
        student, depth=student.depth * factor, points=student.points * factor,
        pose_encoding_iterations=torch.cat([poses[..., :3] * factor, poses[..., 3:]], dim=-1),
    )  # fmt: skip


def flipped(poses):
    return torch.cat([poses[..., :3], -poses[..., 3:7], poses[..., 7:]], dim=-1)


def values(objective):
    return {name: float(term.detach()) for name, term in objective.terms.items()}


@pytest.mark.parametrize("preset", PRESETS)
def test_the_total_is_the_weighted_sum_of_the_terms(student, teacher, mask, preset):
    objective = distillation(student, teacher, mask=mask, preset=preset)
    assert objective.weights.keys() == objective.terms.keys()
    expected = sum(objective.weights[n] * v for n, v in values(objective).items())
    assert float(objective.total) == pytest.approx(expected)
    assert all(number.isfinite() and not number.requires_grad
               for number in objective.diagnostics.values())  # fmt: skip


@pytest.mark.parametrize("preset", PRESETS)
def test_every_output_of_the_student_gets_a_finite_gradient(student, teacher, mask, preset):
    leaves = {n: v.clone().requires_grad_() for n, v in vars(student).items()}
    distillation(Outputs(**leaves), teacher, mask=mask, preset=preset).total.backward()
    for name, leaf in leaves.items():
        if preset == "paper" and name == "track_confidence_logits":
            continue  # the papers say nothing of it
        assert leaf.grad is not None, name
        assert leaf.grad.isfinite().all(), name
        assert leaf.grad.abs().sum() > 0, name


@pytest.mark.parametrize("size", [1e-2, 1e-4, 1e-6])
def test_small_triangles_do_not_drive_the_mended_loss(teacher, size):
    def gradient(size):
        middle = teacher.points.mean(dim=(2, 3), keepdim=True)
        noise = torch.randn(teacher.points.shape, generator=torch.Generator().manual_seed(1))
        points = (middle + size * noise).requires_grad_()
        student = replace(copy_of(teacher), points=points)
        distillation(student, teacher).total.backward()
        return points.grad.norm()

    assert gradient(size) < 2 * gradient(0.1)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_student_that_repeats_its_teacher_has_no_error(teacher, mask, preset):
    terms = values(distillation(copy_of(teacher), teacher, mask=mask, preset=preset))
    for name in (
        "camera",
        "translation",
        "rotation",
        "depth",
        "depth_gradient",
        "points",
        "tracks",
    ):
        assert terms.get(name, 0.0) == pytest.approx(0, abs=1e-6), name
    if preset == "corrected":
        assert terms["points_normals"] == pytest.approx(0, abs=1e-12)
        assert terms["track_regulariser"] == pytest.approx(0, abs=1e-6)


def test_the_mended_loss_takes_q_and_its_negative_for_one_rotation(student, teacher, mask):
    other = replace(student, pose_encoding_iterations=flipped(student.pose_encoding_iterations))
    ours = distillation(student, teacher, mask=mask)
    assert values(distillation(other, teacher, mask=mask)) == pytest.approx(values(ours))
    released = distillation(student, teacher, mask=mask, preset="released")
    wrong = distillation(other, teacher, mask=mask, preset="released")
    assert float(wrong.terms["rotation"]) != pytest.approx(float(released.terms["rotation"]))


def test_flips_are_counted(teacher):
    poses = teacher.pose_encoding.clone()
    poses[0, 1:] = flipped(poses[0, 1:])
    other = replace(copy_of(teacher), pose_encoding_iterations=poses[None])
    found = distillation(other, teacher).diagnostics["quaternion_flips"]
    assert float(found) == pytest.approx(2 / 6)


@pytest.mark.parametrize("factor", [0.2, 7.0])
def test_the_mended_loss_does_not_see_the_unit_of_student_or_teacher(
    student, teacher, mask, factor
):
    here = distillation(student, teacher, mask=mask)
    there = distillation(times(student, factor), teacher, mask=mask)
    assert float(there.total) == pytest.approx(float(here.total))
    ratio = there.diagnostics["scale"] / here.diagnostics["scale"]
    assert float(ratio) == pytest.approx(1 / factor)
    pose = teacher.pose_encoding
    pose = torch.cat([pose[..., :3] * factor, pose[..., 3:]], dim=-1)
    bigger = replace(teacher, depth=teacher.depth * factor, points=teacher.points * factor,
                     pose_encoding=pose)  # fmt: skip
    assert float(distillation(student, bigger, mask=mask).total) == pytest.approx(float(here.total))


def test_every_clip_has_a_unit_of_its_own(student, teacher):
    factor = torch.tensor([0.5, 4.0], dtype=torch.float64)
    poses = student.pose_encoding_iterations
    other = replace(
        student, depth=student.depth * factor[:, None, None, None],
        points=student.points * factor[:, None, None, None, None],
        pose_encoding_iterations=torch.cat(
            [poses[..., :3] * factor[:, None, None], poses[..., 3:]], dim=-1
        ),
    )  # fmt: skip
    here, there = distillation(student, teacher), distillation(other, teacher)
    assert float(there.total) == pytest.approx(float(here.total))


@pytest.mark.parametrize("name", ["depth", "points", "translation"])
def test_one_scale_is_shared_so_that_a_part_in_another_unit_is_seen(teacher, name):
    right = copy_of(teacher)
    wrong = times(right, 1.5)
    keep = "pose_encoding_iterations" if name == "translation" else name
    objective = distillation(replace(right, **{keep: getattr(wrong, keep)}), teacher)
    assert float(objective.terms[name]) > 0.01


def test_a_fixed_unit_can_be_asked_for(teacher):
    absolute = CorrectedDistillation(aligned=False, scale_weight=1.0)
    bigger = times(copy_of(teacher), 1.5)
    objective = distillation(bigger, teacher, preset=absolute)
    assert float(objective.terms["depth"]) > 0.1
    assert float(objective.terms["scale"]) == pytest.approx(0.405465, abs=1e-5)  # ln 1.5
    assert float(distillation(bigger, teacher).terms["depth"]) == pytest.approx(0, abs=1e-12)


def test_the_mended_loss_does_not_see_masked_pixels(student, teacher, mask):
    def spoiled(values):
        garbage = 100 * torch.rand(values.shape, dtype=values.dtype)
        return torch.where(mask if values.ndim == 4 else mask[..., None], values, garbage)

    other = replace(student, depth=spoiled(student.depth), points=spoiled(student.points))
    here = values(distillation(student, teacher, mask=mask))
    assert values(distillation(other, teacher, mask=mask)) == pytest.approx(here)
    seen = distillation(other, teacher, mask=mask, preset="released")
    assert float(seen.terms["depth"]) != pytest.approx(
        float(distillation(student, teacher, mask=mask, preset="released").terms["depth"])
    )


@pytest.mark.parametrize("preset", ["corrected", "released", "released-eval"])
def test_frames_without_a_mask_count_fully(student, teacher, mask, preset):
    mask[1] = False
    full = mask.clone()
    full[1] = True
    empty = distillation(student, teacher, mask=mask, preset=preset)
    assert float(empty.total) == pytest.approx(
        float(distillation(student, teacher, mask=full, preset=preset).total)
    )
    none = distillation(student, teacher, preset=preset)
    nothing = distillation(student, teacher, mask=torch.zeros_like(mask), preset=preset)
    assert float(nothing.total) == pytest.approx(float(none.total))


def test_a_teacher_that_doubts_counts_less(student, teacher):
    doubted = teacher.depth.clone()
    doubted[..., :5] *= 4
    confidence = torch.ones(B, S, H, W, dtype=torch.float64)
    confidence[..., 5:] = 19
    wrong = replace(teacher, depth=doubted, depth_confidence=confidence)
    trusting = distillation(student, wrong).terms["depth"]
    blind = distillation(student, wrong, preset=CorrectedDistillation(trust_teacher=False))
    assert float(trusting) < 0.6 * float(blind.terms["depth"])


def test_confidence_of_a_track_does_not_vanish(teacher):
    """The released loss falls when a track's confidence does; the mended one has an optimum."""
    off = replace(teacher, tracks=teacher.tracks + torch.tensor([3.0, 4.0]).double())  # 5 px

    def loss(logit, preset):
        terms = distillation(copy_of(off, logit), teacher, preset=preset).terms
        return float(terms["tracks"] + terms.get("track_regulariser", 0))

    logits = [-9.0, -4.0, torch.tensor(0.2).logit().item(), 0.0, 9.0]
    assert min(logits, key=lambda z: loss(z, "released")) == -9.0
    assert min(logits, key=lambda z: loss(z, "corrected")) == logits[2]  # alpha / error = 1 / 5


def test_the_released_eval_mode_skips_the_normalisation(student, teacher):
    bigger = replace(student, depth=5 * student.depth)
    train = distillation(bigger, teacher, preset="released").terms["depth"]
    evaluated = distillation(bigger, teacher, preset="released-eval").terms["depth"]
    small = distillation(student, teacher, preset="released-eval").terms["depth"]
    assert float(evaluated) == pytest.approx(float(small))  # the fit undoes any scale
    assert float(evaluated) != pytest.approx(float(train))


def test_some_frames_give_what_their_maps_alone_would_give(student, teacher, mask):
    frames = [(b, s) for b in range(B) for s in range(S)]
    picked = replace(
        student,
        **{
            name: getattr(student, name).flatten(0, 1)[None]
            for name in ("depth", "depth_confidence", "points", "points_confidence")
        },
    )
    for preset in PRESETS:
        whole = values(distillation(student, teacher, mask=mask, preset=preset))
        again = distillation(picked, teacher, mask=mask, preset=preset, dense_frames=frames)
        assert values(again) == pytest.approx(whole), preset


def test_a_clip_without_maps_keeps_its_unit(student, teacher):
    names = ("depth", "depth_confidence", "points", "points_confidence")
    picked = replace(student, **{name: getattr(student, name)[:1, 1:] for name in names})
    objective = distillation(picked, teacher, dense_frames=[(0, 1), (0, 2)])
    assert objective.total.isfinite()
    assert float(objective.diagnostics["valid_share"]) == 1


def test_half_precision_is_compared_in_full(student, teacher):
    halves = Outputs(**{n: v.bfloat16() for n, v in vars(student).items()})
    floats = Outputs(**{n: v.bfloat16().float() for n, v in vars(student).items()})
    single = teacher._map_tensors(lambda value: value.float())
    for preset in PRESETS:
        total = distillation(halves, single, preset=preset).total
        assert total.dtype == torch.float32
        assert torch.equal(total, distillation(floats, single, preset=preset).total)


@pytest.mark.parametrize("preset", PRESETS)
def test_networks_without_point_head_and_tracks_can_be_distilled(student, teacher, preset):
    few = replace(student, points=None, points_confidence=None, track_iterations=None,
                  visibility_logits=None, track_confidence_logits=None)  # fmt: skip
    objective = distillation(few, teacher, preset=preset)
    assert objective.total.isfinite()
    assert not any(name.startswith(("points", "track", "vis")) for name in objective.terms)


def test_an_unknown_preset_is_named(student, teacher):
    with pytest.raises(ConfigError, match=r"corrected, paper, released.*; got 'strict'"):
        distillation(student, teacher, preset="strict")


def test_other_clips_are_refused(student, teacher):
    with pytest.raises(ConfigError, match=r"\(2, 3, 9\).*the target \(2, 1, 9\)"):
        distillation(student, teacher.frame(0))


def test_forgotten_dense_frames_are_named(student, teacher):
    names = ("depth", "depth_confidence", "points", "points_confidence")
    picked = replace(student, **{name: getattr(student, name)[:1] for name in names})
    with pytest.raises(ConfigError, match="give dense_frames as given to the student"):
        distillation(picked, teacher)


def test_networks_without_common_maps_are_refused(student, teacher):
    depth_only = replace(student, points=None, points_confidence=None)
    with pytest.raises(ConfigError, match="neither depth nor points in common"):
        distillation(depth_only, replace(teacher, depth=None))


def test_a_teacher_without_visibility_is_refused_by_the_released_loss(student, teacher):
    with pytest.raises(ConfigError, match="give both the same query points, or neither"):
        distillation(student, replace(teacher, visibility=None), preset="released")


def test_a_teacher_on_the_original_grid_is_refused(student, teacher):
    with pytest.raises(ConfigError, match="without at"):
        distillation(student, replace(teacher, grid="original"))
