"""What may be asked of stored predictions, and what needs new ones."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from everview.cli.main import main
from everview.errors import ConfigError
from everview.evaluation.benchmarks.clip import Choice
from everview.evaluation.benchmarks.registry import BENCHMARKS
from everview.evaluation.runs.run import RunSettings, predict, score
from everview.evaluation.runs.tasks import TASKS, check_alignment
from everview.world.layouts.registry import LAYOUTS

sys.path.insert(0, str(Path(__file__).parent))
from benchmark_folders import WorldPredictor, world_clips

LAYOUT = "benchmark-sintel"
NAMES = ["alley_2", "ambush_4"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Two sequences of Sintel, of which one was predicted."""
    folder = tmp_path_factory.mktemp("sintel")
    LAYOUTS[LAYOUT](folder / "data", world_clips(LAYOUT))
    found = RunSettings(
        benchmark=BENCHMARKS["sintel-video"], data=folder / "data",
        store=folder / "r.predictions", choice=Choice(frames=4), limit=1,
    )  # fmt: skip
    predictor = WorldPredictor(world_clips(LAYOUT), NAMES, first=1)
    predict(found, predictor, predictor.facts())
    return found


def test_another_preset_is_applied_to_the_stored_predictions(settings):
    assert score(settings)["protocol"]["alignment"] == "scale"
    paper = score(replace(settings, choice=Choice(frames=4, preset="paper")))["protocol"]
    assert (paper["preset"], paper["alignment"], paper["frames"]) == ("paper", "weiszfeld", 4)


@pytest.mark.parametrize(
    "choice", [Choice(frames=3), Choice(frames=4, stride=2), Choice(frames=4, seed=1)]
)
def test_other_frames_than_the_predicted_ones_are_refused(choice, settings):
    with pytest.raises(ConfigError, match=r"frames|stride|seed"):
        score(replace(settings, choice=choice))


def test_clips_that_were_not_predicted_are_counted(settings):
    with pytest.raises(ConfigError, match=r"1 of 2 clips.*--limit 1"):
        score(replace(settings, limit=None))


def test_a_preset_that_draws_other_frames_is_refused(tmp_path):
    clips = world_clips("benchmark-co3d")
    LAYOUTS["benchmark-co3d"](tmp_path / "data", clips)
    found = RunSettings(
        benchmark=BENCHMARKS["co3d-pose"], data=tmp_path / "data", store=tmp_path / "p"
    )
    predictor = WorldPredictor(clips, [clip.name for clip in found.clips()[0]])
    predict(found, predictor, predictor.facts())
    with pytest.raises(ConfigError, match="preset paper"):
        score(replace(found, choice=Choice(preset="paper")))


@pytest.mark.parametrize(
    ("asked", "words"),
    [(["--frames", "3"], "frames 4"), (["--stride", "2"], "stride"), (["--seed", "3"], "seed 0"),
     (["--mode", "offline"], "mode"), (["--memory", "sliding:2"], "memory")],
)  # fmt: skip
def test_the_command_line_refuses_them_with_code_2(asked, words, settings, capsys):
    assert main([*call(settings), *asked]) == 2
    assert words in capsys.readouterr().err


def test_the_command_line_applies_a_preset_and_an_alignment(settings):
    out = settings.store.with_name("r.json")
    seen = []
    for asked in ([], ["--preset", "paper"], ["--alignment", "median"]):
        assert main([*call(settings), *asked]) == 0
        protocol = json.loads(out.read_text())["protocol"]
        seen.append((protocol["frames"], protocol["preset"], protocol["alignment"]))
    assert seen == [(4, "strict", "scale"), (4, "paper", "weiszfeld"), (4, "strict", "median")]


def call(settings):
    """Of the command line, to score again."""
    return ["eval", "sintel-video", "--data", str(settings.data), "-o",
            str(settings.store.with_name("r.json")), "--rescore", "--limit", "1"]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("sintel-video", "weiszfeld"), ("tum-pose", "se3"), ("co3d-pose", "none"),
     ("7scenes", "median shift and scale"), ("longworld", "sim3"), ("long3d", "centroids")],
)  # fmt: skip
def test_an_unknown_alignment_is_refused_before_anything_is_predicted(
    name, allowed, tmp_path, capsys
):
    arguments = ["eval", name, "--data", str(tmp_path), "-o", str(tmp_path / "r.json")]
    assert main([*arguments, "--alignment", "nearly"]) == 2
    said = capsys.readouterr().err
    assert "nearly" in said
    assert allowed in said
    assert not (tmp_path / "r.predictions").exists()


def test_what_a_protocol_does_by_itself_may_be_asked_for():
    for benchmark in BENCHMARKS.values():
        for preset in ("strict", "paper"):
            defaults = TASKS[benchmark.task].defaults(benchmark.task, preset)
            wanted = {**defaults, **benchmark.protocol}["alignment"]
            if benchmark.protocol.get("truth") != "scan":
                check_alignment(benchmark, wanted)
