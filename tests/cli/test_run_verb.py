import json
import signal
import time

import numpy as np
import pytest
from PIL import Image

from everview.cli.main import main
from everview.cli.run import bytes_from_text, default_folder
from everview.errors import ConfigError
from everview.outputs.recording import Recording


def _events(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.usefixtures("small_previews")
def test_a_folder_becomes_a_recording_and_programs_can_follow(
    make_images, model_folder, tmp_path, capsys
):
    out = tmp_path / "out"
    assert main(["run", make_images(6), "-o", str(out), "--model", model_folder]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    events = _events(captured.out)
    assert [event["event"] for event in events][:2] == ["phase", "begin"]
    assert events[1]["frames_expected"] == 6
    progress = next(event for event in events if event["event"] == "progress")
    assert {"frames", "frames_per_second", "memory_bytes", "seconds_left"} <= progress.keys()
    assert events[-1] == {
        "event": "end", "status": "finished", "out": str(out),
        "frames_finished": 6, "frames_skipped": 0, "problems": [],
    }  # fmt: skip
    names = {path.name for path in out.iterdir()}
    assert names == {
        "recording.json", "trajectory.tum", "frames.jsonl", "dense.zarr", "points.ply",
        "preview.mp4", "preview.png",
    }  # fmt: skip


@pytest.mark.usefixtures("small_previews")
def test_people_get_a_bar_and_a_hint_where_to_look(make_images, model_folder, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["run", make_images(2), "-o", str(out), "--model", model_folder]
    assert main([*arguments, "--progress", "bar"]) == 0
    text = capsys.readouterr().out
    assert "2 frames finished" in text
    assert "preview.mp4" in text.replace("\n", "")


@pytest.mark.usefixtures("small_previews")
def test_the_options_reach_the_reader_and_the_network(make_images, model_folder, tmp_path):
    out = tmp_path / "out"
    arguments = ["--every", "2", "--start", "1", "--end", "8", "--size", "42"]
    call = ["run", make_images(10), "-o", str(out), "--model", model_folder, *arguments]
    assert main(call) == 0
    recording = Recording.open(out)
    assert [entry.index for entry in recording.entries] == [1, 3, 5, 7]
    assert recording.depth(0).shape[1] == 42
    assert recording.info["settings"]["every"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--every", "0"], 2, "every must be 1 or more"),
        (["--fps", "2", "--every", "2"], 2, "give one"),
        (["--size", "50"], 2, "multiple of 14"),
        (["--memory", "magic"], 2, "memory policy 'magic' is unknown"),
        (["--memory", "window:frames=3,frames=4"], 2, "has frames twice"),
        (["--memory", "window:frames=3", "--batch"], 2, "leave one of them out"),
        (["--memory-limit", "lots"], 2, "write 6GB"),
        (["--memory-limit", "1e400GB"], 2, "write 6GB"),
        (["--memory-limit", "1KB"], 4, "the least at this size is --memory-limit"),
        (["--memory", "full", "--memory-limit", "1KB"], 4, "the limit is 1.0 kB"),
        (["--precision", "int3"], 2, "precision 'int3' is unknown"),
        (["--device", "abacus"], 2, "device 'abacus' is unknown"),
        (["--model", "no/such/model.pt"], 3, "there is no model"),
        (["--view"], 4, "has no viewer"),
        (["--start", "99"], 2, "no frame is left"),
        (["--batch", "--checkpoint-every", "3"], 2, "leave one of them out"),
    ],
)
def test_impossible_wishes_are_one_line_and_leave_nothing_behind(
    make_images, model_folder, tmp_path, capsys, arguments, code, words
):
    out = tmp_path / "out"
    call = ["run", make_images(2), "-o", str(out), "--model", model_folder, *arguments]
    assert main(call) == code
    error = capsys.readouterr().err
    assert error.startswith("everview: error: ")
    assert error.count("\n") == 1
    assert words in error
    assert not out.exists()


def test_a_source_that_does_not_exist_is_told_before_the_model_is_loaded(tmp_path, capsys):
    call = ["run", str(tmp_path / "no.mp4"), "-o", str(tmp_path / "out"), "--model", "none"]
    assert main(call) == 3
    captured = capsys.readouterr()
    assert captured.err == f"everview: error: {tmp_path / 'no.mp4'} does not exist\n"
    assert captured.out == ""


@pytest.mark.parametrize("options", [[], ["--batch"]])
def test_a_source_with_nothing_to_see_ends_with_3(model_folder, tmp_path, capsys, options):
    images, out = tmp_path / "night", tmp_path / "out"
    images.mkdir()
    for number in range(3):
        Image.new("RGB", (56, 42)).save(images / f"{number}.png")
    assert main(["run", str(images), "-o", str(out), "--model", model_folder, *options]) == 3
    assert "none of 3 frames is usable: black (0.png)" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory: 5 GB")])
def test_a_model_that_does_not_fit_into_memory_ends_with_4(
    make_images, tmp_path, capsys, monkeypatch, error
):
    def greedy(*arguments, **keywords):
        raise error

    monkeypatch.setattr("everview.weights.load.load", greedy)
    for verb in (["run", make_images(1), "-o", str(tmp_path / "a")], ["demo", "-o", str(tmp_path)]):
        assert main([*verb, "--model", "mini"]) == 4
        assert "not enough memory for the model mini" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--every", "0"], ["--size", "50"], ["--memory", "magic"], ["--end", "0"]]
)
def test_a_wrong_setting_is_told_before_the_model_is_loaded(
    make_images, tmp_path, capsys, arguments
):
    call = ["run", make_images(1), "-o", str(tmp_path / "out"), "--model", "no/such/model.pt"]
    assert main([*call, *arguments]) == 2
    assert "model.pt" not in capsys.readouterr().err


def test_a_folder_in_use_needs_resume(make_images, model_folder, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "letter.txt").write_text("dear")
    assert main(["run", make_images(2), "-o", str(out), "--model", model_folder]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("videos/my walk.mp4", "my_walk_everview"),
        ("shots/", "shots_everview"),
        ("0", "camera0_everview"),
        ("rtsp://host:554/live/door?user=a", "door_everview"),
        ("shots/*.png", "source_everview"),
    ],
)
def test_a_recording_is_named_after_its_source(source, name):
    assert default_folder(source).name == name


@pytest.mark.parametrize(
    ("text", "value"),
    [("6GB", 6e9), ("512MiB", 2**29), ("1.5 gb", 1.5e9), ("100", 100), ("2e3", 2000), ("1K", 1e3)],
)
def test_amounts_of_memory_are_read(text, value):
    assert bytes_from_text(text) == value


@pytest.mark.parametrize("text", ["", "GB", "6 apples", "1.2.3GB"])
def test_other_amounts_are_refused(text):
    with pytest.raises(ConfigError, match="write 6GB"):
        bytes_from_text(text)


def _wait_for_lines(out, count, process, *, seconds=60):
    """Until so many frames are recorded."""
    path, deadline = out / "frames.jsonl", time.monotonic() + seconds
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def _numbers(out):
    recording = Recording.open(out)
    rows = range(len(recording))
    return (
        [(entry.index, entry.row, entry.pose_encoding) for entry in recording.entries],
        np.stack([recording._read("depth", row) for row in rows]),
        np.stack([recording._read("depth_confidence", row) for row in rows]),
        (out / "trajectory.tum").read_bytes(),
        (out / "points.ply").read_bytes(),
    )


def _assert_same(first, second):
    for a, b in zip(_numbers(first), _numbers(second), strict=True):
        np.testing.assert_equal(a, b)


def _assert_opens(out):
    """Every line of frames.jsonl is backed by dense maps and a line of the trajectory."""
    recording = Recording.open(out)
    lines = (out / "trajectory.tum").read_bytes().count(b"\n")
    assert len(recording) <= lines
    for row in range(len(recording)):
        assert np.isfinite(recording.depth(row)).all()
        assert recording.colour(row).any()
    return len(recording)


@pytest.mark.usefixtures("small_previews")
def test_ctrl_c_ends_with_130_and_everything_saved(make_images, model_folder, tmp_path, start):
    out, images = tmp_path / "out", make_images(400)
    process = start("run", images, "-o", out, "--model", model_folder)
    _wait_for_lines(out, 5, process)
    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "")
    end = _events(output)[-1]
    assert end["status"] == "stopped"
    assert end["frames_finished"] == _assert_opens(out) >= 5
    assert (out / "preview.mp4").exists()
    assert not (out / "tail").exists()


def _kill_sometime(process, out, generator, num_frames):
    """SIGKILL after a random number of frames, at a random moment within one."""
    done = _lines(out)
    _wait_for_lines(out, int(generator.integers(done, num_frames)), process)
    time.sleep(float(generator.uniform(0, 0.05)))
    process.kill()
    process.communicate()


def _lines(out):
    path = out / "frames.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.fixture
def walk(make_images, model_folder, tmp_path):
    """A call without -o on a folder of eighty images, more than a shard, and its result."""
    call = ["run", make_images(80), "--model", model_folder]
    assert main([*call, "-o", str(tmp_path / "whole")]) == 0
    return call


@pytest.mark.usefixtures("small_previews")
def test_a_run_that_is_killed_three_times_gives_the_same_numbers(walk, tmp_path, start):
    out, generator = tmp_path / "out", np.random.default_rng(0)
    for settings in ([], ["--checkpoint-every", "16"], []):
        process = start(*walk, "-o", out, "--resume", *settings)
        before = _lines(out)
        _kill_sometime(process, out, generator, 80)
        assert _assert_opens(out) >= before
    assert main([*walk, "-o", str(out), "--resume"]) == 0
    _assert_same(out, tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.usefixtures("small_previews")
@pytest.mark.parametrize("seed", range(20))
def test_a_run_that_is_killed_at_a_random_moment_can_be_completed(walk, tmp_path, start, seed):
    out, generator = tmp_path / "out", np.random.default_rng(seed)
    settings = ["--checkpoint-every", "16"] if seed % 2 else []
    process = start(*walk, "-o", out, *settings)
    _kill_sometime(process, out, generator, 80)
    _assert_opens(out)
    assert main([*walk, "-o", str(out), "--resume"]) == 0
    _assert_same(out, tmp_path / "whole")


@pytest.mark.usefixtures("small_previews")
def test_a_limit_becomes_a_policy_that_fits_and_a_plan_says_which(
    make_images, model_folder, tmp_path, capsys
):
    out, call = tmp_path / "out", [make_images(4), "--model", model_folder]
    assert main(["plan", *call, "--memory-limit", "64GB", "-o", str(tmp_path / "plan.json")]) == 0
    text = capsys.readouterr().out
    assert "key_diversity:tokens=8000" in text
    assert "4 frames" in text
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["peak_bytes"] < 64e9
    assert main(["run", *call, "-o", str(out), "--memory-limit", "64GB"]) == 0
    assert Recording.open(out).info["memory_policy"] == plan["memory"]
    capsys.readouterr()
    assert main(["plan", *call, "--memory-limit", "1MB"]) == 4
    assert "the least at this size is --memory-limit" in capsys.readouterr().err
