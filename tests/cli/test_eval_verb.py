import json

import pytest

from everview.cli.main import main
from everview.evaluation import procedural
from everview.evaluation.baselines import measure_habits


@pytest.fixture
def hasty_guesses(monkeypatch):
    """Trivial guesses that know less of the world, in less time."""
    monkeypatch.setattr(
        procedural, "measure_habits", lambda speed, clips: measure_habits(speed=speed, clips=2)
    )


@pytest.mark.usefixtures("hasty_guesses")
def test_the_benchmark_prints_a_table_and_writes_every_number(model_folder, tmp_path, capsys):
    out = tmp_path / "results" / "eval.json"
    arguments = ["--model", model_folder, "--clips", "1", "--frames", "2", "--threads", "1"]
    assert main(["eval", "procedural", *arguments, "-o", str(out)]) == 0
    text = capsys.readouterr().out
    assert "speed 1" in text
    assert "speed 3" in text
    assert "abs_rel" in text
    assert str(out) in text.replace("\n", "")
    result = json.loads(out.read_text())
    assert result["settings"]["clips"] == 1
    assert result["groups"][0]["scores"]["rotation_degrees"]["clips"] == 1


def test_impossible_settings_end_with_a_line_that_says_what_to_type(model_folder, capsys):
    assert main(["eval", "procedural", "--model", model_folder, "--frames", "1"]) == 2
    assert "needs clips >= 1, frames >= 2" in capsys.readouterr().err


def test_an_unknown_benchmark_is_a_wrong_call(capsys):
    assert main(["eval", "nowhere"]) == 2
    assert "procedural" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["eval", "train"])
def test_the_help_shows_every_option_with_its_default(verb, capsys):
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    options = {"eval": ("--model", "--clips", "50", "--frames", "16", "--out"),
               "train": ("--out", "--minutes", "--resume", "--threads")}  # fmt: skip
    for option in options[verb]:
        assert option in text
