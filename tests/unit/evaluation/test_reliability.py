"""Reliability of depth confidence from stored predictions: a known order comes out."""

import sys
from pathlib import Path

import pytest
import torch

from everview.evaluation.benchmarks.registry import BENCHMARKS
from everview.evaluation.runs.run import RunSettings, predict, score
from everview.world.layouts.registry import LAYOUTS

sys.path.insert(0, str(Path(__file__).parent))
from benchmark_folders import SIZE, WorldPredictor, world_clips

LEFT = torch.arange(SIZE[1]) < SIZE[1] // 2


class Confident(WorldPredictor):
    """Depth is wrong on the left, and the confidence knows it."""

    confidence = True

    def start(self, clip, state):
        session = super().start(clip, state)
        step = session.step

        def with_confidence(frame):
            prediction = step(frame)
            values = torch.where(LEFT, 1.0, 10.0).expand(1, 1, *SIZE)
            return prediction if not self.confidence else replace(prediction, values)

        session.step = with_confidence
        return session


def replace(prediction, confidence):
    from dataclasses import replace as with_changes

    return with_changes(prediction, depth_confidence=confidence.clone())


def wrong_on_the_left(values, index, count):
    noise = 1 + 0.4 * (-1.0) ** torch.arange(SIZE[0])[:, None]
    values["depth"] = values["depth"] * torch.where(LEFT, noise, 1.0)


def curves(tmp_path, name, confidence):
    sequences = world_clips("benchmark-sintel")
    LAYOUTS["benchmark-sintel"](tmp_path / "data", sequences)
    settings = RunSettings(benchmark=BENCHMARKS[name], data=tmp_path / "data",
                           store=tmp_path / "predictions")  # fmt: skip
    names = [clip.name for clip in settings.clips()[0]]
    predictor = Confident(sequences, names, first=1, change=wrong_on_the_left)
    predictor.confidence = confidence
    predict(settings, predictor, predictor.facts())
    return [clip["curves"] for clip in score(settings)["clips"]]


@pytest.mark.parametrize("name", ["sintel-depth", "sintel-video"])
def test_bins_follow_the_confidence_and_hold_the_error(name, tmp_path):
    for curve in curves(tmp_path, name, confidence=True):
        assert curve["confidence"] == [1.0, 10.0]
        low, high = curve["confidence_error"]
        assert low == pytest.approx(0.4, abs=0.05)
        assert high < low / 3  # not 0: what is wrong moves the medians, and so the scale


def test_without_confidence_there_is_no_curve(tmp_path):
    found = curves(tmp_path, "sintel-video", confidence=False)
    assert found == [{}, {}]
