import math
from dataclasses import replace

import pytest
import torch

from everview.errors import InputError
from everview.model.network import Outputs, build
from everview.model.presets import presets
from everview.training.losses.target import Target
from everview.training.objective.learner import (
    Learner,
    dense_frames,
    finite_clips,
    part_of,
)
from everview.training.objective.procedural import DISTANCES, ProceduralSupervision
from everview.training.recipe.recipe import TrainingRecipe
from everview.training.recipe.terms import TERMS
from everview.training.teacher import Teacher


@pytest.fixture(scope="module")
def network():
    return build(presets["tiny"], seed=0).train()


@pytest.fixture(scope="module")
def said(small_batch):
    teacher = Teacher(build(replace(presets["tiny"], attention="global"), seed=3))
    return teacher(small_batch.images, small_batch.queries)


def _perfect(truth):
    """Outputs that say the truth, very sure of it."""
    confidence = torch.full_like(truth.depth, 50.0)
    return Outputs(
        pose_encoding_iterations=truth.pose_encoding[None],
        depth=truth.depth.flatten(0, 1)[None], depth_confidence=confidence.flatten(0, 1)[None],
        points=truth.points.flatten(0, 1)[None], points_confidence=confidence.flatten(0, 1)[None],
        track_iterations=truth.tracks[None], visibility_logits=40 * truth.visibility - 20,
        track_confidence_logits=40 * truth.visibility - 20,
    )  # fmt: skip


def test_the_truth_has_no_error(small_batch):
    truth = small_batch.truth
    objective = ProceduralSupervision(alpha=0.0)(_perfect(truth), truth)
    assert objective.terms.keys() == set(TERMS["procedural"])
    for name, term in objective.terms.items():
        assert float(term) == pytest.approx(0, abs=1e-4), name


def _depth_terms(depth, truth, *, mask, confidence, alpha=0.1):
    """Terms of maps of two clips of one frame each, (2, H, W)."""
    target = Target(pose_encoding=torch.zeros(2, 1, 9), depth=truth[:, None], mask=mask[:, None])
    outputs = Outputs(
        pose_encoding_iterations=torch.zeros(1, 2, 1, 9), depth=depth[:, None],
        depth_confidence=confidence[:, None], points=None, points_confidence=None,
        track_iterations=None, visibility_logits=None, track_confidence_logits=None,
    )  # fmt: skip
    return ProceduralSupervision(alpha=alpha)(outputs, target).terms


@pytest.fixture
def half_known():
    """Masks of two clips, of which the left half is unknown."""
    mask = torch.ones(2, 14, 14, dtype=torch.bool)
    mask[..., :7] = False
    return mask


def test_depth_errors_are_relative_and_blind_to_what_is_unknown(half_known):
    truth = torch.where(half_known, 2.0, torch.nan)
    depth = torch.full((2, 14, 14), 2.0)
    depth[..., 12:] = 4.0  # two of seven known columns
    terms = _depth_terms(depth, truth, mask=half_known, confidence=torch.full((2, 14, 14), 3.0))
    two, three = torch.tensor([2.0, 3.0]).log()
    torch.testing.assert_close(terms["depth"], (1 + 3) * two * 2 / 7 - 0.1 * three)
    torch.testing.assert_close(terms["scale"], two * 2 / 7)


def test_the_scale_of_a_clip_is_a_term_of_its_own(half_known):
    truth = torch.where(half_known, 2.0, torch.nan)
    scale = torch.tensor([4.0, 0.5])[:, None, None]
    sure = torch.ones(2, 14, 14)
    terms = _depth_terms(
        scale * torch.full((2, 14, 14), 2.0), truth, mask=half_known, confidence=sure
    )
    assert float(terms["depth"]) == float(terms["depth_gradient"]) == 0
    assert float(terms["scale"]) == pytest.approx((math.log(4) + math.log(2)) / 2)


def test_differences_tell_things_from_what_is_behind_them():
    truth = torch.ones(2, 56, 56)
    truth[:, :, 28:] = 2.0  # a step of ln 2 that is missed: one column of pairs per distance
    known = torch.ones(2, 56, 56, dtype=torch.bool)
    sure = torch.ones(2, 56, 56)
    terms = _depth_terms(torch.full((2, 56, 56), 7.0), truth, mask=known, confidence=sure)
    crossing = [min(d, 28, 56 - d) / (56 - d) for d in DISTANCES]
    expected = math.log(2) / 2 * sum(crossing) / len(DISTANCES)  # half of the pairs lie across
    assert float(terms["depth_gradient"]) == pytest.approx(expected, rel=1e-5)
    known[..., 20:36] = False  # only pairs 32 apart have one known pixel on each side of the step
    terms = _depth_terms(torch.full((2, 56, 56), 7.0), truth, mask=known, confidence=sure)
    assert float(terms["depth_gradient"]) == pytest.approx(math.log(2) / 12, rel=1e-5)
    turned = _depth_terms(torch.full((2, 56, 56), 7.0), truth.mT, mask=known.mT, confidence=sure)
    torch.testing.assert_close(turned["depth_gradient"], terms["depth_gradient"])


def test_differences_that_nobody_knows_do_not_count():
    truth = torch.ones(2, 14, 40)
    truth[:, 7:] = 2.0  # 32 rows apart there are none, 32 columns apart none that differ
    known = torch.ones(2, 14, 40, dtype=torch.bool)
    terms = _depth_terms(torch.ones(2, 14, 40), truth, mask=known, confidence=torch.ones(2, 14, 40))
    crossing = [min(d, 7, 14 - d) / (14 - d) for d in (1, 2, 4, 8)]
    expected = math.log(2) * sum(crossing) / (4 + 6)
    assert float(terms["depth_gradient"]) == pytest.approx(expected, rel=1e-5)


def test_all_errors_count_alike_and_confidence_learns_how_large_they_are(half_known):
    truth = torch.rand(2, 14, 14, generator=torch.Generator().manual_seed(0)) + 1
    depth = (truth * torch.linspace(0.5, 2, 14)).requires_grad_()
    confidence = (1 + truth).requires_grad_()
    terms = _depth_terms(depth, truth, mask=half_known, confidence=confidence)
    terms["depth"].backward()
    known = half_known & (depth.grad != 0)  # the pixel in the middle has none
    torch.testing.assert_close(
        (depth.grad * depth)[known].abs(), torch.full((known.sum(),), 1 / 196)
    )
    error = (depth / truth).log().detach()
    middle = torch.stack([e[m].median() for e, m in zip(error, half_known, strict=True)])
    expected = ((error - middle[:, None, None]).abs() - 0.1 / confidence.detach()) / 196
    torch.testing.assert_close(confidence.grad[half_known], expected[half_known])


def test_fields_of_view_are_a_term_of_their_own(small_batch):
    truth = small_batch.truth
    wider = replace(
        _perfect(truth),
        pose_encoding_iterations=truth.pose_encoding[None] + torch.tensor([0.0] * 7 + [0.1, 0.1]),
    )
    objective = ProceduralSupervision(alpha=0.0)(wider, truth)
    assert float(objective.terms["camera"]) == 0
    assert float(objective.terms["fov"]) == pytest.approx(0.1, rel=1e-4)
    assert objective.weights["fov"] == objective.weights["camera"] / 2


def test_only_clips_of_which_something_is_known_count_for_the_scale(half_known):
    half_known[1] = False
    truth = torch.where(half_known, 3.0, torch.nan)
    sure = torch.ones(2, 14, 14)
    terms = _depth_terms(torch.full((2, 14, 14), 6.0), truth, mask=half_known, confidence=sure)
    assert float(terms["scale"]) == pytest.approx(math.log(2))


def test_a_clip_of_which_nothing_is_known_has_no_error(half_known):
    half_known[1] = False
    depth = torch.full((2, 14, 14), 3.0, requires_grad=True)
    truth = torch.where(half_known, 3.0, torch.nan)
    terms = _depth_terms(depth, truth, mask=half_known, confidence=torch.ones(2, 14, 14))
    total = terms["depth"] + terms["scale"]
    assert float(total.detach()) == 0
    total.backward()
    assert depth.grad.isfinite().all()


@pytest.mark.parametrize("truth", ["procedural", "released", "paper", None])
@pytest.mark.parametrize("teacher", ["corrected", "released", "paper", None])
def test_every_combination_of_truth_and_teacher_has_the_terms_it_is_known_by(
    truth, teacher, network, small_batch, said, small_recipe
):
    guide = "teacher" if teacher else "truth"
    settings = [
        f"objective.truth={truth or 'null'}", f"objective.teacher={teacher or 'null'}",
        f"objective.guide={guide}",
    ]  # fmt: skip
    recipe = small_recipe(*settings)
    total, judged = Learner(network, recipe)(small_batch, said if teacher else None)
    assert total.isfinite()
    expected = {f"guide/{name}" for name in TERMS["guide"]}
    expected |= {f"truth/{name}" for name in TERMS[truth]} if truth else set()
    expected |= {f"teacher/{name}" for name in TERMS[f"teacher {teacher}"]} if teacher else set()
    assert judged.terms.keys() == judged.weights.keys() == expected
    weighed = sum(judged.weights[name] * float(term) for name, term in judged.terms.items())
    assert float(total.detach()) == pytest.approx(weighed, rel=1e-4)


def test_weights_of_recipe_stage_part_and_rarity_add_up(network, small_batch, said, small_recipe):
    recipe = small_recipe(
        "objective.teacher=corrected", "objective.teacher_weight=0.5",
        "objective.weights.teacher/depth=3", "objective.weights.guide/flow=7",
        "stages.0.weights.guide/flow=9", "stages.0.track_every=2",
    )  # fmt: skip
    _, judged = Learner(network, recipe)(small_batch, said)
    assert judged.weights["teacher/depth"] == 1.5
    assert judged.weights["teacher/points"] == 5.0
    assert judged.weights["guide/flow"] == 9
    assert judged.weights["truth/camera"] == 5
    assert judged.weights["truth/tracks"] == 2 * 0.5


def test_a_stage_without_maps_trains_no_dense_head(network, small_batch, said, small_recipe):
    recipe = small_recipe("objective.teacher=corrected", "stages.0.dense_images=0")
    learner = Learner(network, recipe)
    total, judged = learner(small_batch, said)
    assert not any("depth" in name or name.startswith("teacher") for name in judged.terms)
    network.zero_grad()
    total.backward()
    assert all(p.grad is None for p in network.depth_head.parameters())
    assert network.camera_head.embed_pose.weight.grad is not None
    network.zero_grad()


def test_dense_images_are_spread_over_clips_and_do_not_depend_on_the_parts(small_batch):
    recipe = TrainingRecipe().changed(
        ["stages.0.frames=[2,2]", "stages.0.images=4", "stages.0.dense_images=2"]
    )
    both = dense_frames(small_batch, recipe)
    assert [clip for clip, _ in both] == [0, 1]
    alone = [dense_frames(part_of(small_batch, i), recipe)[0][1] for i in (0, 1)]
    assert [frame for _, frame in both] == alone
    everything = recipe.changed(["stages.0.dense_images=null"])
    assert dense_frames(small_batch, everything) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_clips_without_truth_are_refused_where_it_is_needed(network, small_batch, small_recipe):
    blind = replace(small_batch, truth=None)
    with pytest.raises(InputError, match=r"procedural clip of seed \d+ .*distil from a teacher"):
        Learner(network, small_recipe())(blind, None)


def test_a_single_frame_has_no_motion_to_learn(network, small_batch, small_recipe):
    one = replace(
        small_batch, images=small_batch.images[:, :1], valid=small_batch.valid[:, :1],
        still=small_batch.still[:, :1],
        truth=replace(
            small_batch.truth, **{
                name: None if value is None else value[:, :1]
                for name, value in vars(small_batch.truth).items()
            }
        ),
    )  # fmt: skip
    total, judged = Learner(network, small_recipe())(one, None)
    assert float(judged.terms["guide/flow"]) == 0
    total.backward()
    network.zero_grad()


def test_the_clip_that_spoils_a_batch_is_found(network, small_batch, said, small_recipe):
    learner = Learner(network, small_recipe("objective.teacher=corrected"))
    assert finite_clips(learner, small_batch, said) == [True, True]
    images = small_batch.images.clone()
    images[1, 0, 0, 0, 0] = torch.nan
    broken = replace(small_batch, images=images)
    assert finite_clips(learner, broken, said) == [True, False]
    points = small_batch.truth.points.clone()
    points[0] = torch.inf
    broken = replace(small_batch, truth=replace(small_batch.truth, points=points))
    assert finite_clips(learner, broken, said) == [False, True]
