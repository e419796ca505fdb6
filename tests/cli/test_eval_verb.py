import json

import pytest

from everview.cli.main import main
from everview.evaluation import procedural, recording
from everview.evaluation.baselines import measure_habits


@pytest.fixture
def hasty_guesses(monkeypatch):
    """Trivial guesses that know less of the world, in less time."""
    monkeypatch.setattr(
        procedural, "measure_habits", lambda **options: measure_habits(speed=1.0, clips=2)
    )
    monkeypatch.setattr(recording, "measure_habits", lambda clips: measure_habits(clips=2))


@pytest.mark.usefixtures("hasty_guesses")
def test_the_benchmark_prints_a_table_and_writes_every_number(model_folder, tmp_path, capsys):
    out = tmp_path / "results" / "eval.json"
    arguments = ["--model", model_folder, "--clips", "1", "--frames", "2,3", "--threads", "1"]
    assert main(["eval", "procedural", *arguments, "-o", str(out)]) == 0
    text = capsys.readouterr().out
    assert "speed 1, 2 frames" in text
    assert "speed 1, 3 frames" in text
    assert "abs_rel" in text
    assert str(out) in text.replace("\n", "")
    result = json.loads(out.read_text())
    assert result["settings"]["clips"] == 1
    assert result["groups"][0]["scores"]["rotation_degrees"]["clips"] == 1


@pytest.mark.usefixtures("hasty_guesses")
def test_a_recording_is_scored_in_windows(model_folder, tmp_path, capsys):
    made = ["--frames", "5", "--size", "42", "56", "--no-preview", "-o", str(tmp_path / "clip")]
    assert main(["world", "--seed", "3", *made]) == 0
    out = tmp_path / "eval.json"
    arguments = ["--data", str(tmp_path / "clip"), "--frames", "3", "--stride", "2"]
    arguments += ["--model", model_folder, "--threads", "1", "-o", str(out)]
    assert main(["eval", "recording", *arguments]) == 0
    assert "clip, 2 windows of 3 frames" in capsys.readouterr().out
    (sequence,) = json.loads(out.read_text())["sequences"]
    assert sequence["has_depth"]
    assert sequence["groups"][0]["scores"]["abs_rel"]["clips"] == 2


def test_a_recording_benchmark_without_data_says_what_to_type(model_folder, capsys):
    assert main(["eval", "recording", "--model", model_folder]) == 2
    assert "--data DIR" in capsys.readouterr().err


def test_lengths_that_are_no_numbers_are_a_wrong_call(model_folder, capsys):
    assert main(["eval", "procedural", "--model", model_folder, "--frames", "8;16"]) == 2
    assert "8,16,32" in capsys.readouterr().err


def test_impossible_settings_end_with_a_line_that_says_what_to_type(model_folder, capsys):
    assert main(["eval", "procedural", "--model", model_folder, "--frames", "1"]) == 2
    assert "needs clips >= 1, frames >= 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("procedural", ["--limit", "1"], "--limit does nothing in eval procedural; it has --clips"),
        ("procedural", ["--seed", "4"], "--first-seed"),
        ("recording", ["--clips", "1"], "it has --data, --frames, --stride"),
        ("sintel-video", ["--first-seed", "1"], "--first-seed does nothing in eval sintel-video"),
        ("procedural", ["--threads", "0"], "--threads must be 1 or more"),
        ("procedural", ["--first-seed", str(2**48)], "may have been trained on"),
        ("recording", ["--data", "x", "--stride", "0"], "stride >= 1"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(name, arguments, words, capsys):
    assert main(["eval", name, *arguments]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_a_result_that_cannot_be_written_is_told_before_the_work(tmp_path, capsys):
    assert main(["eval", "procedural", "-o", str(tmp_path)]) == 2
    assert f"-o {tmp_path}/result.json" in capsys.readouterr().err.replace("\n", "")
    (tmp_path / "file").write_text("")
    assert main(["eval", "procedural", "-o", str(tmp_path / "file" / "r.json")]) == 3
    assert "the result cannot be written" in " ".join(capsys.readouterr().err.split())


def test_an_unknown_benchmark_is_a_wrong_call(capsys):
    assert main(["eval", "nowhere"]) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in ("procedural", "recording", "sintel-video"))


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("sintel", "sintel-"), ("recordin", "recording"), ("TUM-pose", "tum-pose"),
     ("long-world", "longworld"), ("procedual", "procedural")],
)  # fmt: skip
def test_a_benchmark_with_a_slip_names_the_nearest(wrong, right, capsys):
    assert main(["eval", wrong, "-o", "r.json"]) == 2
    assert f"did you mean {right}" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("verb", ["eval", "train"])
def test_the_help_shows_every_option_with_its_default(verb, capsys):
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    options = {"eval": ("--model", "--clips", "200", "--frames", "--teacher", "--out"),
               "train": ("--out", "--minutes", "--resume", "--threads")}  # fmt: skip
    for option in options[verb]:
        assert option in text
