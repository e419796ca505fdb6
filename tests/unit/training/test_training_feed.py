import random
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from everview.errors import InputError
from everview.training.feed.batch import Request, truth_of_clips
from everview.training.feed.choice import Colours, choose_frames, frames_to_render
from everview.training.feed.loader import batches, open_source, processes, rendering_device
from everview.training.feed.procedural import APART, ProceduralSource, locate
from everview.training.feed.rendering import num_clips
from everview.training.recipe.settings import Stage

CPU = torch.device("cpu")


def _same(a, b):
    assert a.labels == b.labels
    assert torch.equal(a.images, b.images)
    assert torch.equal(a.truth.pose_encoding, b.truth.pose_encoding)
    assert torch.equal(a.truth.points, b.truth.points)
    if a.queries is not None:
        assert torch.equal(a.queries, b.queries)
        assert torch.equal(a.truth.tracks, b.truth.tracks)


def test_a_batch_is_a_function_of_its_request(small_recipe, small_batch):
    source = ProceduralSource(small_recipe())
    other = source.batch(Request(step=1, stage=0))
    _same(small_batch, source.batch(Request(step=0, stage=0)))
    assert not torch.equal(small_batch.images, other.images)
    assert not set(small_batch.labels) & set(other.labels)


def test_a_batch_is_in_units_of_its_scene(small_batch):
    truth = small_batch.truth
    distance = (truth.points.norm(dim=-1) * truth.mask).sum((1, 2, 3)) / truth.mask.sum((1, 2, 3))
    torch.testing.assert_close(distance, torch.ones_like(distance), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(truth.points[:, 0, ..., 2], truth.depth[:, 0])
    still = torch.tensor([0, 0, 0, 0, 0, 0, 1.0]).expand_as(truth.pose_encoding[:, 0, :7])
    torch.testing.assert_close(truth.pose_encoding[:, 0, :7], still)


def test_tracks_begin_at_their_queries_and_end_where_the_points_are(small_batch):
    truth = small_batch.truth
    assert truth.visibility[:, 0].eq(1).all()
    torch.testing.assert_close(truth.tracks[:, 0], small_batch.queries)
    assert torch.equal(truth.track_mask, truth.visibility > 0.5)


def test_steps_between_have_no_tracks(small_recipe):
    batch = ProceduralSource(small_recipe()).batch(Request(step=1, stage=0))
    assert batch.queries is None
    assert batch.truth.tracks is None


def test_a_share_of_clips_is_tilted(small_recipe):
    wanted = ("stages.0.kind=room", "stages.0.images=24", "stages.0.frames=[2,2]")
    first = Request(step=0, stage=0)
    plain = ProceduralSource(small_recipe(*wanted)).batch(first)
    some = ProceduralSource(small_recipe(*wanted, "stages.0.tilted_share=0.5")).batch(first)
    changed = (plain.images != some.images).flatten(1).any(dim=1)
    assert plain.labels == some.labels
    assert 0 < changed.sum() < len(changed)


def test_kinds_of_places_come_as_often_as_a_stage_says(small_recipe):
    shares = "stages.0={kind_shares: {street: 3, terrain: 1}, images: 48, frames: [2,2]}"
    first = Request(step=0, stage=0)
    labels = ProceduralSource(small_recipe(shares)).batch(first).labels
    streets = sum("(street)" in label for label in labels)
    assert streets + sum("(terrain)" in label for label in labels) == len(labels) == 24
    assert 12 <= streets < 24


def test_parts_are_a_step_cut_in_pieces(small_recipe):
    recipe = small_recipe("stages.0.images=8")
    (whole,) = (ProceduralSource(recipe).batch(Request(step=2, stage=0)),)
    source = ProceduralSource(recipe, num_parts=2)
    parts = [source.batch(Request(step=2, stage=0, part=part)) for part in (0, 1)]
    assert [part.numbers for part in parts] == [(0, 2), (1, 3)]
    joined = torch.stack([part.images for part in parts], dim=1).flatten(0, 1)
    assert torch.equal(joined, whole.images)


@pytest.mark.parametrize(("length", "parts", "count"), [(2, 1, 8), (5, 1, 3), (5, 2, 2), (9, 4, 4)])
def test_clips_fill_the_budget_of_images_evenly(length, parts, count):
    assert num_clips(Stage(images=16, frames=(2, 16)), length, parts) == count


def test_a_reused_clip_comes_as_often_as_asked_in_other_guises(small_recipe):
    recipe = small_recipe(
        "data.reuse=3", "stages.0.gaps=[1,2]", "stages.0.spare_frames=1",
        "stages.0.reversed_share=0.5", "data.colours=1", "stages.0.images=2",
    )  # fmt: skip
    source = ProceduralSource(recipe)
    made = [source.batch(Request(step=step, stage=0)) for step in range(39)]
    seeds = [batch.labels[0].partition(" (")[0] for batch in made]
    full = [seed for seed in set(seeds[12:]) if seeds[12:].count(seed) == 3]
    assert len(full) >= 4
    assert len(source._groups) <= 10
    guises = [batch for batch, seed in zip(made, seeds, strict=True) if seed == full[0]]
    assert not torch.equal(guises[0].images, guises[1].images)
    later = ProceduralSource(recipe).batch(Request(step=38, stage=0))
    _same(later, made[-1])  # a resumed run has nothing in memory


@pytest.mark.parametrize("reuse", [1, 2, 4, 7])
def test_every_group_is_used_equally_often_once_there_are_enough(reuse):
    found = {}
    for step in range(900):
        place = locate(step, reuse)
        found.setdefault(place.number, []).append((step, place.use))
    first = (reuse - 1) * APART  # until then groups are taken once more
    inner = [uses for number, uses in found.items() if first <= number < 60 + first]
    assert len(inner) == 60
    assert all(sorted(use for _, use in uses) == list(range(reuse)) for uses in inner)
    apart = [b - a for uses in inner for (a, _), (b, _) in pairwise(uses)]
    assert set(apart) <= {APART * reuse + 1}


def test_the_first_steps_need_few_groups():
    assert [locate(step, 8).number for step in range(8)] == [0] * 8
    assert len({locate(step, 8).number for step in range(40)}) == 5


def test_a_group_keeps_the_clips_of_the_stage_that_first_asked_for_it(small_recipe):
    recipe = small_recipe("data.reuse=2", "schedule.unit=minutes")
    source = ProceduralSource(recipe)
    first = source.group_of(Request(step=0, stage=0))
    assert source.group_of(Request(step=1, stage=1)) == first


def test_frames_are_chosen_by_gaps_and_may_run_backwards():
    stage = Stage(images=8, frames=(3, 3), gaps=(2, 4), spare_frames=2, reversed_share=0.5)
    assert frames_to_render(stage, 3) == 11
    chosen = [choose_frames(stage, 3, random.Random(seed)) for seed in range(300)]
    steps = {b - a for frames in chosen for a, b in pairwise(frames)}
    assert steps == {2, 3, 4, -2, -3, -4}
    assert min(map(min, chosen)) == 0
    assert max(map(max, chosen)) == 10


def test_a_clip_that_runs_backwards_has_its_first_frame_as_its_world(small_recipe):
    recipe = small_recipe("stages.0.reversed_share=1")
    batch = ProceduralSource(recipe).batch(Request(step=0, stage=0))
    forward = ProceduralSource(small_recipe()).batch(Request(step=0, stage=0))
    torch.testing.assert_close(batch.images, forward.images.flip(1))
    ours, theirs = batch.truth.pose_encoding, forward.truth.pose_encoding
    torch.testing.assert_close(ours[:, 1, 3:6], -theirs[:, 1, 3:6], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(batch.truth.points[:, 0, ..., 2], batch.truth.depth[:, 0])
    torch.testing.assert_close(batch.truth.tracks[:, 0], batch.queries)


def test_colours_change_images_and_nothing_else(small_recipe, small_batch):
    batch = ProceduralSource(small_recipe("data.colours=1")).batch(Request(step=0, stage=0))
    assert not torch.equal(batch.images, small_batch.images)
    assert batch.images.min() >= 0
    assert batch.images.max() <= 1
    assert torch.equal(batch.truth.depth, small_batch.truth.depth)
    plain = [Colours((1.0, 1.0, 1.0), 1.0)] * len(small_batch.images)
    same = Colours.apply_all(plain, small_batch.images)
    torch.testing.assert_close(same, small_batch.images, rtol=0, atol=1e-4)


def test_a_clip_of_the_sky_keeps_its_unit():
    truth = truth_of_clips(
        torch.full((1, 1, 14, 14), torch.nan), torch.full((1, 1, 14, 14, 3), torch.nan),
        torch.zeros(1, 1, 14, 14, dtype=torch.bool), torch.eye(4).expand(1, 1, 4, 4) * 1.0,
        torch.tensor([[7.0, 0, 7], [0, 7, 7], [0, 0, 1]]).expand(1, 1, 3, 3),
    )  # fmt: skip
    assert truth.pose_encoding.isfinite().all()
    assert truth.depth.eq(0).all()
    assert truth.points.eq(0).all()


class Failing:
    """A source whose second batch cannot be read."""

    def batch(self, request):
        if request.step == 1:
            raise InputError("frame 7 of scene.mp4 is damaged")
        return request


def test_an_error_of_a_source_reaches_the_trainer_in_its_own_words():
    requests = (Request(step=step, stage=0) for step in range(3))
    stream = batches(Failing(), requests, processes=0, ahead=2)
    assert next(stream).step == 0
    with pytest.raises(InputError, match=r"^frame 7 of scene\.mp4 is damaged$"):
        next(stream)


@pytest.mark.slow
def test_processes_give_the_same_batches_in_order_and_errors_in_their_own_words(small_recipe):
    recipe = small_recipe("data.reuse=2", "data.processes=2")
    source = open_source(recipe, num_parts=1, device=CPU)
    stream = batches(source, (Request(step=s, stage=0) for s in range(5, 9)), processes=2, ahead=2)
    for step in range(5, 9):
        _same(next(stream), source.batch(Request(step=step, stage=0)))
    stream.close()
    stream = batches(
        Failing(), (Request(step=step, stage=0) for step in range(3)), processes=1, ahead=1
    )
    assert next(stream).step == 0
    with pytest.raises(InputError, match=r"^frame 7 of scene\.mp4 is damaged$"):
        next(stream)


def test_a_gpu_renders_for_itself_between_the_steps(small_recipe):
    recipe = small_recipe("data.processes=3")
    assert processes(recipe, CPU) == 3
    assert processes(recipe, torch.device("cuda", 1)) == 0
    assert rendering_device(recipe, torch.device("cuda", 1)) == torch.device("cuda", 1)
    on_cpu = recipe.changed(["data.device=cpu"])
    assert rendering_device(on_cpu, torch.device("cuda")) == CPU
    assert processes(on_cpu, torch.device("cuda")) == 3
    assert replace(recipe, data=recipe.data).data.device == "auto"
