"""The model that ships inside: it is there, it is small, and it knows more than trivial guesses."""

from pathlib import Path

import pytest
import torch

import everview
from everview.evaluation.procedural import ProceduralSettings, evaluate_procedural
from everview.weights.load import load

FOLDER = Path(everview.__file__).parent / "assets" / "mini"


@pytest.fixture(scope="module")
def scores():
    torch.set_num_threads(1)
    settings = ProceduralSettings(clips=8, frames=(8,), speeds=(3.0,), baseline_clips=8)
    (group,) = evaluate_procedural(load("mini"), settings)["groups"]
    return group["scores"]


def test_it_takes_at_most_30_megabytes():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 30e6


def test_it_says_what_it_is():
    network = load("mini")
    assert network.info.license == "Apache-2.0"
    assert network.input_size == 140
    assert "can" in (FOLDER / "README.md").read_text()


@pytest.mark.parametrize(
    ("score", "guess"),
    [
        ("abs_rel", "constant_depth"),
        ("rotation_degrees", "standing_still"),
        ("rotation_degrees", "straight_line"),
        ("points", "mean_depth_map"),
    ],
)
def test_on_rooms_it_has_never_seen_it_beats_trivial_guesses(scores, score, guess):
    """Not so the path (ATE): there it loses to a straight line, see the table in the README."""
    assert scores[score]["mean"] < scores[score]["baselines"][guess]["mean"]
