"""Every benchmark through the command line, with the bundled model, on a tiny generated folder."""

import json
import signal
import sys
import time
from pathlib import Path

import pytest

from everview.cli.main import main
from everview.evaluation.benchmarks.registry import BENCHMARKS
from everview.world.layouts.registry import LAYOUTS

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "evaluation"))
from benchmark_folders import LAYOUT_OF, world_clips

GENERATED = ("longworld", "longworld-10k")


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    """Benchmark -> folder in its layout; each is written once."""
    made = {}

    def folder(name):
        layout = LAYOUT_OF[name]
        if layout not in made:
            made[layout] = tmp_path_factory.mktemp(layout)
            LAYOUTS[layout](made[layout], world_clips(layout))
        return str(made[layout])

    return folder


def test_the_list_names_all_benchmarks_with_what_they_need(capsys):
    assert main(["eval", "list"]) == 0
    text = capsys.readouterr().out
    for name in (*BENCHMARKS, "procedural", "recording"):
        assert name in text
    assert "TestSplit.txt" in text


@pytest.mark.parametrize("name", LAYOUT_OF)
def test_each_benchmark_runs_from_end_to_end(name, folder_of, tmp_path, capsys):
    out = tmp_path / "results" / f"{name}.json"
    arguments = ["--data", folder_of(name), "-o", str(out), "--limit", "1", "--threads", "1"]
    frames = {"scannet-pose": "4", "long3d": "11"}  # a lost pose; dense maps of every tenth
    arguments += ["--frames", frames.get(name, "2")]
    if BENCHMARKS[name].task == "points":
        arguments += ["--stride", "2"]
    assert main(["eval", name, *arguments]) == 0, capsys.readouterr().err
    result = json.loads(out.read_text())
    assert result["benchmark"] == name
    assert result["data"]["clips_scored"] == 1
    assert all(facts["mean"] is not None for facts in result["summary"].values())
    assert str(out) in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize("name", GENERATED)
def test_long_worlds_run_from_end_to_end_without_data(name, tmp_path, capsys):
    out = tmp_path / f"{name}.json"
    call = ["eval", name, "-o", str(out), "--limit", "1", "--frames", "11", "--threads", "1"]
    assert main(call) == 0, capsys.readouterr().err
    result = json.loads(out.read_text())
    assert result["data"]["clips_scored"] == 1
    assert result["clips"][0]["size"] == [112, 140]
    absent = {score for score, facts in result["summary"].items() if facts["mean"] is None}
    assert absent == {"revisit"}  # nothing is seen twice within 11 frames


def test_no_benchmark_of_the_list_is_left_out_here():
    assert {*LAYOUT_OF, *GENERATED} == set(BENCHMARKS)


def test_scoring_again_gives_equal_bytes_without_the_model(folder_of, tmp_path):
    out = tmp_path / "r.json"
    call = ["eval", "tum-pose", "--data", folder_of("tum-pose"), "-o", str(out), "--deterministic"]
    assert main([*call, "--frames", "4"]) == 0
    before = out.read_bytes()
    assert main([*call, "--rescore", "--model", "no/such/model"]) == 0
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["eval", "tum-pose", "-o", "r.json"], 2, "needs --data DIR"),
        (["eval", "tum-pose", "--data", "."], 2, "-o result.json"),
        (["eval", "tum-dynamics", "--data", ".", "-o", "r.json"], 2, "tum-pose"),
        (["eval", "tum-pose", "--data", "nowhere", "-o", "r.json"], 3, "nowhere"),
        (["eval", "longworld", "-o", "r.json", "--limit", "0"], 2, "limit must be"),
        (["eval", "longworld", "-o", "r.json", "--stride", "0"], 2, "stride must be"),
        (["eval", "longworld", "-o", "r.json", "--rescore"], 2, "without --rescore"),
    ],
)
def test_calls_that_cannot_be_done_end_with_a_line_and_the_right_code(
    arguments, code, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    assert words in capsys.readouterr().err


def test_a_damaged_file_ends_with_code_3_and_its_name(tmp_path, capsys):
    LAYOUTS["benchmark-sintel"](tmp_path / "data", world_clips("benchmark-sintel")[:1])
    path = tmp_path / "data" / "training" / "depth" / "alley_2" / "frame_0002.dpt"
    path.write_bytes(path.read_bytes()[:50])
    call = ["eval", "sintel-video", "--data", str(tmp_path / "data"), "-o", str(tmp_path / "r")]
    assert main(call) == 3
    assert "frame_0002.dpt" in capsys.readouterr().err


def test_data_without_any_truth_end_with_code_3_and_the_reason(tmp_path, capsys):
    LAYOUTS["benchmark-sintel"](tmp_path / "data", world_clips("benchmark-sintel")[:1])
    for path in (tmp_path / "data").rglob("*.dpt"):
        content = path.read_bytes()
        path.write_bytes(content[:12] + bytes(len(content) - 12))  # zeros
    call = ["eval", "sintel-video", "--data", str(tmp_path / "data"), "--frames", "2", "-o"]
    assert main([*call, str(tmp_path / "r.json")]) == 3
    assert "no pixel is valid" in capsys.readouterr().err
    assert not (tmp_path / "r.json").exists()


def test_a_path_of_one_pose_ends_with_code_3_and_the_reason(folder_of, tmp_path, capsys):
    call = ["eval", "tum-pose", "--data", folder_of("tum-pose"), "--frames", "1", "-o"]
    assert main([*call, str(tmp_path / "r.json")]) == 3
    assert "two are needed" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_goes_on_and_gives_the_same_bytes(start, tmp_path):
    call = ["eval", "longworld", "--limit", "1", "--frames", "230", "--deterministic", "-o"]
    whole, cut = tmp_path / "whole.json", tmp_path / "cut.json"
    parts = tmp_path / "cut.predictions" / "clips" / "corridor-steady"
    process = start(*call, cut)
    while not list(parts.glob("state.safetensors")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    written = {path: path.stat().st_mtime_ns for path in parts.glob("part_*.safetensors")}
    for out in (cut, whole):
        process = start(*call, out)
        assert process.wait(timeout=300) == 0, process.communicate()[1]
    assert cut.read_bytes() == whole.read_bytes()
    assert written
    assert all(path.stat().st_mtime_ns == then for path, then in written.items())
