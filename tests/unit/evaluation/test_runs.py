"""Runs: stored predictions, interruption, equal bytes, what a result holds."""

import json

import numpy as np
import pytest
import torch

from everview.errors import ConfigError, InputError
from everview.evaluation.benchmarks import longworld
from everview.evaluation.benchmarks.clip import Choice
from everview.evaluation.benchmarks.longworld import WALKS
from everview.evaluation.benchmarks.registry import BENCHMARKS
from everview.evaluation.runs import predict as predicting
from everview.evaluation.runs import store
from everview.evaluation.runs.predictors import NetworkPredictor
from everview.evaluation.runs.run import RunSettings, predict, score
from everview.evaluation.runs.summary import by_group, summarise
from everview.geometry.cameras import points_from_depth, pose_encoding_from_camera
from everview.geometry.prediction import Prediction
from everview.geometry.rotations import invert_rigid

KEYS = {"format", "format_version", "benchmark", "task", "protocol", "data", "model", "run", "code",
        "metrics", "summary", "groups", "clips", "timing", "machine"}  # fmt: skip


@pytest.fixture(autouse=True)
def _small_worlds(monkeypatch):
    """What is proven here does not need large pictures, nor more frames than are asked for."""
    monkeypatch.setattr(longworld, "SIZE", (42, 56))
    monkeypatch.setattr(longworld, "CHUNK", 12)


def _settings(folder, frames=12, limit=1, **changes):
    return RunSettings(
        benchmark=BENCHMARKS["longworld"], data=folder, store=folder / "r.predictions",
        choice=Choice(frames=frames), limit=limit, **changes,
    )  # fmt: skip


class _Truth(NetworkPredictor):
    """What the world itself says, in another unit; at the size of the world's own images."""

    def __init__(self, network, unit=1.0):
        super().__init__(network)
        self.unit = unit

    def start(self, clip, state):
        return _Session(self, clip)


class _Session:
    num_frames = 0

    def __init__(self, predictor, clip):
        self.predictor, self.clip = predictor, clip

    def step(self, frame):
        truth = self.clip.truth(frame.index)
        size = (truth.depth.shape[0], truth.depth.shape[1])
        pose, K = truth.world_from_camera.double(), truth.intrinsics.double()
        points = points_from_depth(truth.depth.double(), invert_rigid(pose), K)
        pose[:3, 3] /= self.predictor.unit
        encoding = pose_encoding_from_camera(invert_rigid(pose), K, size)[None, None]
        return Prediction(
            pose_encoding=encoding, pose_encoding_iterations=encoding[None], network_size=size,
            depth=truth.depth[None, None] / self.predictor.unit,
            points=points[None, None] / self.predictor.unit,
        )  # fmt: skip

    def save(self, path):
        path.write_bytes(b"")


def _run(settings, network, predictor=None):
    predictor = predictor or NetworkPredictor(network)
    predict(settings, predictor, predictor.facts())
    return score(settings)


def test_the_truth_of_longworld_scores_perfectly(tiny, tmp_path):
    settings = _settings(tmp_path, frames=11, limit=None)
    result = _run(settings, tiny, _Truth(tiny, unit=3.0))
    assert [clip["name"] for clip in result["clips"]] == [walk.name for walk in WALKS]
    for name in ("ate", "rpe_translation", "abs_rel", "accuracy", "completeness"):
        assert result["summary"][name]["mean"] == pytest.approx(0, abs=1e-3), name
    assert result["summary"]["rpe_rotation"]["mean"] == pytest.approx(0, abs=2e-2)
    assert result["summary"]["f_score"]["mean"] > 0.999
    curve = result["clips"][0]["curves"]
    assert len(curve["position_error"]) == len(curve["frame"]) == 11
    assert curve["dense_frame"] == [0, 10]


def test_a_loop_of_longworld_returns(tiny, tmp_path):
    clips = list(BENCHMARKS["longworld"].clips(tmp_path, Choice(frames=1000)))
    loops = [clip for clip in clips if clip.facts["returns"]]
    assert len(loops) == 2
    for clip in loops:
        centres = clip.poses()[:, :3, 3]
        assert float(centres.norm(dim=-1).max()) > 3
        assert float(centres[200:].norm(dim=-1).min()) < 1


def test_poses_without_rendering_are_those_of_the_frames(tmp_path):
    clip = list(BENCHMARKS["longworld"].clips(tmp_path, Choice(frames=20, stride=3)))[1]
    poses = clip.poses()
    for index in (0, 7, 19):
        torch.testing.assert_close(poses[index], clip.truth(index).world_from_camera)


def test_two_deterministic_runs_give_equal_bytes(tiny, tmp_path):
    texts = []
    for name in ("a", "b"):
        settings = _settings(tmp_path / name, deterministic=True)
        texts.append(json.dumps(_run(settings, tiny), allow_nan=False))
    assert texts[0] == texts[1]
    assert json.loads(texts[0])["timing"] is None


def test_scoring_again_needs_no_network(tiny, tmp_path):
    settings = _settings(tmp_path, deterministic=True)
    assert _run(settings, tiny) == score(settings)


def test_an_interrupted_run_goes_on_and_ends_like_an_uninterrupted_one(tiny, tmp_path, monkeypatch):
    whole = _run(_settings(tmp_path / "whole", deterministic=True), tiny)
    monkeypatch.setattr(store, "PART_FRAMES", 2)
    monkeypatch.setattr(predicting, "STATE_GROWTH", 1.0)
    for last in (5, 8):  # between parts and at one
        shown = []

        class Stopped(NetworkPredictor):
            def frame(self, clip, index, last=last, shown=shown):
                if index == last:
                    raise KeyboardInterrupt
                shown.append(index)
                return super().frame(clip, index)

        with pytest.raises(KeyboardInterrupt):
            _run(_settings(tmp_path / "cut", deterministic=True), tiny, Stopped(tiny))
        assert shown == list(range(0 if last == 5 else 4, last))
    assert _run(_settings(tmp_path / "cut", deterministic=True), tiny) == whole


def test_a_finished_clip_is_not_predicted_again(tiny, tmp_path):
    class Refusing(NetworkPredictor):
        def start(self, clip, state):
            raise AssertionError("was predicted again")

    _run(_settings(tmp_path), tiny)
    _run(_settings(tmp_path), tiny, Refusing(tiny))
    with pytest.raises(AssertionError, match="again"):
        _run(_settings(tmp_path, limit=2), tiny, Refusing(tiny))  # the second one is new


def test_a_state_that_was_cut_off_begins_the_clip_again(tiny, tmp_path, monkeypatch):
    whole = _run(_settings(tmp_path / "whole", deterministic=True), tiny)
    settings = _settings(tmp_path / "cut", deterministic=True)
    part = settings.store / "clips" / "corridor-steady"
    part.mkdir(parents=True)
    (part / "state.safetensors").write_bytes(b"half")
    assert _run(settings, tiny) == whole


def test_damaged_predictions_are_named(tiny, tmp_path):
    settings = _settings(tmp_path)
    _run(settings, tiny)
    (part,) = settings.store.rglob("part_*.safetensors")
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(InputError, match="part_000000"):
        score(settings)


def test_nothing_stored_is_a_wrong_call(tmp_path):
    with pytest.raises(ConfigError, match="without --rescore"):
        score(_settings(tmp_path))


def test_other_weights_need_another_store(tiny, tmp_path):
    from everview.model.network import build
    from everview.model.presets import presets

    _run(_settings(tmp_path), tiny)
    with pytest.raises(ConfigError, match="another model"):
        _run(_settings(tmp_path), build(presets["tiny"], seed=2))


def test_a_result_holds_what_the_page_says(tiny, tmp_path):
    result = _run(_settings(tmp_path), tiny)
    assert set(result) == KEYS
    assert result["format_version"] == 2
    assert len(result["data"]["fingerprint"]) == 64
    assert len(result["model"]["weights_sha256"]) == 64
    assert result["clips"][0]["frames"][:2] == ["000000", "000001"]
    assert result["clips"][0]["size"] == [42, 56]
    assert set(result["summary"]) == set(result["metrics"]) == set(result["clips"][0]["scores"])
    assert result["timing"]["predict_seconds"] > 0
    json.dumps(result, allow_nan=False)


def test_the_fingerprint_knows_the_frames_of_generated_data(tiny, tmp_path):
    first = _run(_settings(tmp_path / "a"), tiny)
    settings = RunSettings(
        benchmark=BENCHMARKS["longworld"], data=tmp_path, store=tmp_path / "b",
        choice=Choice(frames=12, seed=1), limit=1,
    )  # fmt: skip
    assert _run(settings, tiny)["data"]["fingerprint"] != first["data"]["fingerprint"]


def _clip(score, weight=1.0, group=None):
    return {"scores": {"x": score}, "weight": weight, "group": group}


def test_means_are_weighted_as_the_protocol_says():
    clips = [_clip(1.0, 3.0, "a"), _clip(2.0, 1.0, "a"), _clip(4.0, 1.0, "b"), _clip(None)]
    means = {
        average: summarise(clips, ["x"], average)["x"]["mean"]
        for average in ("clips", "valid pixels", "groups")
    }
    assert means == pytest.approx({"clips": 7 / 3, "valid pixels": 9 / 5, "groups": (1.25 + 4) / 2})
    summary = summarise(clips, ["x"], "clips")["x"]
    assert summary["clips"] == 3
    assert summary["median"] == 2
    assert summary["standard_error"] == pytest.approx(np.std([1, 2, 4], ddof=1) / np.sqrt(3))
    assert by_group(clips, ["x"])["a"]["x"]["mean"] == pytest.approx(1.25)
    assert summarise([_clip(None)], ["x"], "clips")["x"]["mean"] is None
