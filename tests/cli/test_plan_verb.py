import json

import pytest

from everview.cli.main import main
from everview.outputs.recording import Recording
from everview.pipeline import plan as plans

POLICIES = [
    "auto", "window:tokens=20000", "key_diversity:tokens=8000,bits=8", "full", "full:bits=8",
]  # fmt: skip
"""Far larger than the source, so that most of what is reserved is never written."""


@pytest.fixture
def steady_rehearsal(monkeypatch):
    """The part of a plan that is measured, the same every time."""
    measured = plans._Rehearsal(base_bytes=10**8, step_bytes=10**7, seconds=0.1)
    monkeypatch.setattr(plans, "_rehearse", lambda *_: measured)


@pytest.mark.usefixtures("small_previews", "steady_rehearsal")
@pytest.mark.parametrize("policy", POLICIES)
def test_a_run_goes_through_with_what_its_plan_says(make_images, model_folder, tmp_path, policy):
    source, out = make_images(5), tmp_path / "out"
    options = ["--model", model_folder, "--memory", policy]
    assert main(["plan", source, *options, "-o", str(tmp_path / "plan.json")]) == 0
    peak = json.loads((tmp_path / "plan.json").read_text())["peak_bytes"]
    limit = ["--memory-limit", str(peak)]
    assert main(["plan", source, *options, *limit]) == 0
    assert main(["run", source, *options, *limit, "-o", str(out)]) == 0
    assert len(Recording.open(out)) == 5


@pytest.mark.usefixtures("steady_rehearsal")
def test_a_plan_is_for_the_frames_that_the_run_would_take(make_images, model_folder, capsys):
    options = ["--every", "2", "--start", "1", "--end", "8", "--size", "42", "--stream", "0"]
    assert main(["plan", make_images(10), "--model", model_folder, *options]) == 0
    text = capsys.readouterr().out
    assert "x42 pixels" in text
    assert "4 frames, about" in text
    assert main(["plan", make_images(3, "more"), "--model", model_folder, "--every", "0"]) == 2
    assert "every must be 1 or more" in capsys.readouterr().err


@pytest.mark.usefixtures("steady_rehearsal")
@pytest.mark.parametrize(("num_frames", "past"), [(3, 33), (10**6, 40_000), (None, 40_000)])
def test_the_time_is_that_of_the_past_that_a_source_fills(tiny, monkeypatch, num_frames, past):
    def linear(policy, shape, tokens):
        return plans._Trial(scratch_bytes=0, seconds=0.001 * tokens)

    monkeypatch.setattr(plans, "_try_layer", linear)
    memory = "key_diversity:tokens=40000"
    plan = plans.make_plan(tiny, (28, 42), memory=memory, num_frames=num_frames)
    longer = 0.001 * (past - 2 * plan.frame_tokens)
    assert plan.seconds_per_frame == pytest.approx(0.1 + tiny.config.aggregator.depth * longer)


@pytest.mark.slow
def test_the_limit_that_a_refusal_names_is_enough_the_next_time(make_images, start):
    call = ["plan", make_images(3)]
    refused = start(*call, "--memory-limit", "100MB")
    error = refused.communicate()[1]
    assert refused.returncode == 4
    named = error.partition("--memory-limit ")[2].partition("MB")[0] + "MB"
    for _ in range(3):
        again = start(*call, "--memory-limit", named)
        error = again.communicate()[1]
        assert again.returncode == 0, error
