import json
import math
from dataclasses import replace

import pytest
import torch

from everview.errors import ConfigError, InputError
from everview.evaluation.baselines import measure_habits
from everview.evaluation.procedural import (
    ProceduralSettings,
    beginning,
    evaluate_procedural,
    native_size,
)
from everview.evaluation.sequence_scores import (
    HIGHER_IS_BETTER,
    METRICS,
    query_points,
    score_sequence,
)
from everview.evaluation.show import show, stream_clip
from everview.evaluation.summaries import summarise
from everview.geometry.cameras import pose_encoding_from_camera
from everview.geometry.prediction import Prediction
from everview.geometry.rotations import invert_rigid
from everview.model.network import build
from everview.model.presets import presets
from everview.world import sequence

SIZE = (42, 56)
SETTINGS = ProceduralSettings(clips=2, frames=(3,), points=4, baseline_clips=2)


@pytest.fixture(scope="module")
def clip():
    """Do not change it."""
    return sequence(5, 5, size=SIZE)


@pytest.fixture(scope="module")
def habits():
    return measure_habits(clips=4, frames=2)


@pytest.fixture(scope="module")
def global_tiny():
    """The smallest network, which sees all frames at once."""
    return build(replace(presets["tiny"], attention="global"), seed=1)


def _truth_as_prediction(clip, queries, unit=1.0):
    """What a perfect network would say that measures in another unit."""
    camera = invert_rigid(clip.world_from_camera)
    camera[:, :3, 3] /= unit
    encoding = pose_encoding_from_camera(camera, clip.intrinsics, SIZE)[None]
    tracks, visible = clip.tracks(queries)
    return Prediction(
        pose_encoding=encoding,
        pose_encoding_iterations=encoding[None],
        network_size=SIZE,
        depth=clip.depth[None] / unit,
        points=clip.points[None] / unit,
        tracks=tracks[None],
        visibility=visible[None].float(),
    )


def test_the_truth_scores_without_error_in_any_unit(clip, habits):
    queries = query_points(5, SIZE, 8)
    perfect = _truth_as_prediction(clip, queries, unit=3.0)
    scores = score_sequence([perfect], clip, queries=queries, habits=habits)
    assert {name for name in scores if "/" not in name} == set(METRICS)
    for name in HIGHER_IS_BETTER:
        assert scores[name] == 1, name
    for name in METRICS.keys() - HIGHER_IS_BETTER:
        assert scores[name] == pytest.approx(0, abs=2e-2 if "degrees" in name else 1e-3), name


def test_inverse_poses_score_worse(clip, habits):
    perfect = _truth_as_prediction(clip, query_points(5, SIZE, 2))
    inverse = pose_encoding_from_camera(clip.world_from_camera, clip.intrinsics, SIZE)[None]
    wrong = replace(perfect, pose_encoding=inverse)
    right, bad = (score_sequence([p], clip, habits=habits) for p in (perfect, wrong))
    for name in ("rotation_degrees", "direction_degrees", "ate"):
        assert bad[name] > right[name] + 1e-3


def test_one_prediction_per_frame_and_one_of_all_frames_score_alike(clip, habits):
    whole = _truth_as_prediction(clip, query_points(5, SIZE, 2))
    frames = [whole.frame(i) for i in range(5)]
    assert score_sequence(frames, clip, habits=habits) == score_sequence(
        [whole], clip, habits=habits
    )


def test_trivial_guesses_are_what_their_names_say(clip, habits):
    scores = score_sequence(
        [_truth_as_prediction(clip, query_points(5, SIZE, 4))],
        clip, queries=query_points(5, SIZE, 4), habits=habits,
    )  # fmt: skip
    middle = clip.depth.median()
    expected = ((middle - clip.depth).abs() / clip.depth).mean()
    assert scores["abs_rel/constant_depth"] == pytest.approx(float(expected), rel=1e-5)
    assert scores["direction_degrees/standing_still"] == 90
    assert scores["length_error/standing_still"] == 1
    assert scores["rotation_degrees/standing_still"] == scores["rotation_degrees/straight_line"] > 0
    assert 0 < scores["ate/straight_line"] < 0.3
    assert scores["track_pixels/standing_still"] > 0


def test_habits_know_the_world_a_little(habits):
    assert 0.3 < float(habits.depth_map.min()) < float(habits.depth_map.max()) < 3
    angles = torch.rad2deg(habits.fov((98, 140)))
    assert 45 < float(angles[1]) < 90
    assert float(habits.fov((98, 140))[1]) == pytest.approx(habits.long_fov, rel=1e-5)
    assert float(habits.fov((140, 98))[0]) == pytest.approx(habits.long_fov, rel=1e-5)
    assert habits.points(3, SIZE).shape == (3, *SIZE, 3)
    path = habits.path(4)[:, :3, 3]
    torch.testing.assert_close(path.diff(dim=0), habits.step.expand(3, 3))


def test_the_wrong_number_of_frames_is_refused(clip, habits):
    prediction = _truth_as_prediction(clip, query_points(5, SIZE, 2)).frame(0)
    with pytest.raises(ConfigError, match="predictions of 1 frames for a clip of 5"):
        score_sequence([prediction], clip, habits=habits)


def test_query_points_depend_on_the_seed_alone_and_lie_in_the_image():
    points = query_points(5, SIZE, 100)
    assert torch.equal(points, query_points(5, SIZE, 100))
    assert not torch.equal(points, query_points(6, SIZE, 100))
    assert (points >= 0).all()
    assert (points <= torch.tensor([55.0, 41.0])).all()


def test_the_native_size_has_the_networks_width_in_whole_patches(tiny):
    assert native_size(tiny) == (42, 56)


def test_a_longer_clip_begins_like_a_shorter_one(clip):
    short, cut = sequence(5, 3, size=SIZE), beginning(clip, 3)
    for name in ("images", "depth", "world_from_camera", "points"):
        assert torch.equal(getattr(cut, name), getattr(short, name)), name


def test_points_of_the_first_frame_are_followed_through_the_others(tiny, clip):
    queries = query_points(5, SIZE, 4)
    predictions = stream_clip(tiny, clip.images, queries=queries)
    assert predictions[0].tracks is None
    assert all(p.tracks.shape == (1, 1, 4, 2) for p in predictions[1:])


def test_a_global_network_sees_the_clip_in_one_pass(clip, global_tiny):
    queries = query_points(5, SIZE, 4)
    (prediction,) = show(global_tiny, clip.images, queries=queries)
    assert prediction.depth.shape == (1, 5, *SIZE)
    assert prediction.tracks.shape == (1, 5, 4, 2)


def test_the_result_says_what_ran_where_and_holds_every_clip(tiny):
    told = []
    settings = replace(SETTINGS, speeds=(1.0, 3.0))
    result = evaluate_procedural(tiny, settings, progress=lambda *done: told.append(done))
    json.dumps(result, allow_nan=False)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert result["settings"]["mode"] == "streaming"
    assert result["settings"]["size"] == [42, 56]
    assert result["teacher"] is None
    assert len(result["model"]["weights_sha256"]) == 64
    assert result["machine"]["torch"] == torch.__version__
    assert result["code"]["everview"]
    first, second = result["groups"]
    assert [first["speed"], second["speed"]] == [1, 3]
    assert [clip["seed"] for clip in second["clips"]] == [10_000_002, 10_000_003]
    score = first["scores"]["abs_rel"]
    values = [clip["scores"]["abs_rel"] for clip in first["clips"]]
    assert score["mean"] == pytest.approx(sum(values) / 2, rel=1e-5)
    half = abs(values[0] - values[1]) / 2
    assert score["standard_error"] == pytest.approx(half, rel=1e-4)
    assert min(values) <= score["interval"][0] <= score["mean"] <= score["interval"][1]
    assert score["clips"] == 2
    assert set(score["baselines"]) == {"constant_depth", "row_prior", "mean_depth_map"}


def test_scores_at_several_lengths_are_those_of_each_length_alone(tiny):
    lengths = replace(SETTINGS, frames=(2, 4), clips=1)
    groups = evaluate_procedural(tiny, lengths)["groups"]
    assert [group["frames"] for group in groups] == [2, 4]
    for group in groups:
        alone = replace(lengths, frames=(group["frames"],))
        (expected,) = evaluate_procedural(tiny, alone)["groups"]
        for name, value in expected["clips"][0]["scores"].items():
            found = group["clips"][0]["scores"][name]
            assert found == (value and pytest.approx(value, rel=1e-4)), name


def test_a_teacher_stands_beside_with_the_ratio(tiny, global_tiny):
    result = evaluate_procedural(tiny, SETTINGS, teacher=global_tiny)
    assert result["teacher"]["mode"] == "one pass"
    score = result["groups"][0]["scores"]["abs_rel"]
    assert score["teacher"]["ratio"]["value"] == pytest.approx(
        score["mean"] / score["teacher"]["mean"]
    )
    assert "teacher" not in score["baselines"]
    (alone,) = evaluate_procedural(global_tiny, SETTINGS)["groups"]
    assert alone["scores"]["abs_rel"]["mean"] == pytest.approx(score["teacher"]["mean"])


def test_a_network_that_says_nonsense_is_named_with_the_clip(tiny, monkeypatch):
    from everview.evaluation import procedural

    def broken(*arguments, **options):
        good = stream_clip(*arguments, **options)
        return [replace(p, depth=p.depth * torch.nan) for p in good]

    monkeypatch.setattr(procedural, "show", broken)
    with pytest.raises(InputError, match=r"seed 10000000 at speed 1: .* not finite"):
        evaluate_procedural(tiny, SETTINGS)


def test_summaries_count_who_was_better_and_leave_out_what_has_no_value():
    clips = [
        {"abs_rel": 0.1, "abs_rel/x": 0.2, "delta1": 0.9, "delta1/x": 0.8},
        {"abs_rel": 0.3, "abs_rel/x": 0.2, "delta1": 0.9, "delta1/x": 0.8},
        {"abs_rel": math.nan, "abs_rel/x": 0.2, "delta1": 0.9, "delta1/x": 0.95},
    ]
    summary = summarise(clips)
    assert summary["abs_rel"]["mean"] == pytest.approx(0.2)
    assert summary["abs_rel"]["clips"] == 2
    assert summary["abs_rel"]["baselines"]["x"]["better_in"] == 0.5
    assert summary["delta1"]["baselines"]["x"]["better_in"] == pytest.approx(2 / 3)
    assert summary["abs_rel"]["baselines"]["x"]["ratio"]["value"] == pytest.approx(1)
    nothing = summarise([{"abs_rel": math.nan, "abs_rel/x": math.nan}])["abs_rel"]
    assert nothing == {
        "clips": 0,
        "baselines": {"x": {"clips": 0, "better_in": None, "ratio": None}},
    }


@pytest.mark.parametrize(
    "change",
    [{"clips": 0}, {"frames": (8, 1)}, {"frames": ()}, {"speeds": ()}, {"points": 0}],
)
def test_settings_that_leave_nothing_to_score_are_refused(change):
    with pytest.raises(ConfigError, match="needs clips >= 1, frames >= 2"):
        ProceduralSettings(**change)


@pytest.mark.parametrize("first", [-1, 19_999_850, 20_000_000])
def test_seeds_that_the_guesses_have_seen_are_refused(first):
    with pytest.raises(ConfigError, match="choose first_seed below"):
        ProceduralSettings(first_seed=first)
