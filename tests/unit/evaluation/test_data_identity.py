"""Predictions and results know of which data they are."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

import everview
from everview.cli.main import main
from everview.errors import ConfigError
from everview.evaluation.benchmarks.clip import Choice
from everview.evaluation.benchmarks.registry import BENCHMARKS
from everview.evaluation.runs import fingerprint as identity
from everview.evaluation.runs.fingerprint import fingerprint
from everview.evaluation.runs.run import RunSettings, predict, score
from everview.world.clip import sequence
from everview.world.layouts.registry import LAYOUTS

sys.path.insert(0, str(Path(__file__).parent))
from benchmark_folders import SIZE, WorldPredictor, world_clips

LAYOUT = "benchmark-sintel"


@pytest.fixture
def settings(tmp_path):
    """Sintel with one sequence, predicted by one who knows it."""
    clips = world_clips(LAYOUT)[:1]
    LAYOUTS[LAYOUT](tmp_path / "s1", clips)
    found = RunSettings(
        benchmark=BENCHMARKS["sintel-video"], data=tmp_path / "s1", store=tmp_path / "predictions"
    )
    run(found)
    return found


def run(settings):
    predictor = WorldPredictor(world_clips(LAYOUT)[:1], ["alley_2"], first=1)
    predict(settings, predictor, predictor.facts())


def test_predictions_of_other_pixels_under_equal_names_are_not_taken(settings, tmp_path):
    LAYOUTS[LAYOUT](tmp_path / "s2", world_clips(LAYOUT)[1:])
    other = replace(settings, data=tmp_path / "s2")
    for half in (run, score):
        with pytest.raises(ConfigError) as caught:
            half(other)
        words = str(caught.value)
        for needed in (str(tmp_path / "s1"), str(tmp_path / "s2"), "alley_2", "another -o"):
            assert needed in words


def test_a_copy_of_the_data_is_the_same_data(settings, tmp_path):
    (tmp_path / "s1").rename(tmp_path / "moved")
    for folder in (tmp_path / "moved", tmp_path / "moved" / "training"):
        moved = replace(settings, data=folder)
        run(moved)
        assert score(moved)["summary"]["abs_rel"]["mean"] == pytest.approx(0, abs=1e-4)


def test_predictions_that_do_not_say_of_which_data_they_are_are_refused(settings):
    (settings.store / "data.json").unlink()
    with pytest.raises(ConfigError, match="which data"):
        run(settings)


def test_a_changed_byte_in_a_file_of_equal_size_changes_the_fingerprint(settings):
    clips, _ = settings.clips()
    before = fingerprint(clips)
    path = settings.data / "training" / "depth" / "alley_2" / "frame_0002.dpt"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    assert fingerprint(clips)[0] != before[0]
    assert fingerprint(clips)[1] == before[1] == 12


@pytest.mark.parametrize("place", [0, 500, 999])
def test_of_a_large_file_head_middle_and_tail_count(place, tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "WHOLE", 100)
    monkeypatch.setattr(identity, "BLOCK", 50)
    digests = []
    for name, value in (("a", 0), ("b", 1)):
        content = bytearray(1000)
        content[place] = value
        (tmp_path / name).write_bytes(bytes(content))
        digests.append(identity.file_digest(tmp_path / name))
    assert digests[0] != digests[1]


def test_the_fingerprint_of_a_rendered_world_knows_its_renderer(tmp_path, monkeypatch):
    def found():
        return fingerprint(list(BENCHMARKS["longworld"].clips(tmp_path, Choice(frames=2))))[0]

    before = found()
    assert found() == before
    monkeypatch.setattr(everview, "__version__", "999")
    assert found() != before


def test_a_result_says_that_its_data_were_generated(settings):
    assert score(settings)["data"]["generated"] is True
    deeper = replace(settings, data=settings.data / "training")
    assert score(deeper)["data"]["generated"] is True
    (settings.data / "everview.json").unlink()
    assert score(settings)["data"]["generated"] is False


def test_the_command_line_refuses_other_data_with_code_2(tmp_path, capsys):
    for folder, seed in (("s1", 31), ("s2", 33)):
        LAYOUTS[LAYOUT](tmp_path / folder, [sequence(seed, 2, size=SIZE, kind="room")])
    out = ["-o", str(tmp_path / "a.json"), "--threads", "1"]
    assert main(["eval", "sintel-video", "--data", str(tmp_path / "s1"), *out]) == 0
    for extra in ([], ["--rescore"]):
        call = ["eval", "sintel-video", "--data", str(tmp_path / "s2"), *out, *extra]
        assert main(call) == 2
        assert "other data" in capsys.readouterr().err
