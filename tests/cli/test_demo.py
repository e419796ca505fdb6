import copy
import functools
import io

import numpy as np
import pytest
import torch
from evo.tools.file_interface import read_tum_trajectory_file
from PIL import Image
from rich.console import Console

from everview.cli import demo
from everview.cli.main import main
from everview.errors import ConfigError
from everview.evaluation import baselines
from everview.outputs.recording import Recording


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(demo, "WORLD_FRAMES", 5)
    few = functools.partial(baselines.measure_habits, clips=2)
    monkeypatch.setattr(baselines, "measure_habits", few)


@pytest.mark.usefixtures("small_previews")
def test_the_demo_records_both_clips_and_prints_the_measured_error(model_folder, tmp_path, capsys):
    call = ["demo", "-o", str(tmp_path / "demo"), "--model", model_folder]
    assert main(call) == 0
    text = capsys.readouterr().out
    office, world = (Recording.open(tmp_path / "demo" / name) for name in ("office", "world"))
    assert len(office) == 60
    assert len(world) == 5
    truth = read_tum_trajectory_file(tmp_path / "demo" / "world_source" / "trajectory_true.tum")
    assert len(truth.timestamps) == 5
    np.testing.assert_allclose(truth.poses_se3[0], np.eye(4), atol=1e-9)
    for score in ("abs_rel", "rotation_degrees", "ate"):
        assert score in text
    assert str(tmp_path / "demo" / "office" / "preview.mp4") in text
    assert main(call) == 0  # at once, and the same figures
    again = capsys.readouterr().out
    assert text[text.index("Measured") :] == again[again.index("Measured") :]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A short clip in the place of the bundled one, and a function that records it."""
    clip = tmp_path / "office.mp4"
    clip.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (3, 42, 56, 3), np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(clip / f"{number}.png")
    folder = tmp_path / "demo" / "office"

    def place(network, **keywords):
        console = Console(file=io.StringIO(), width=300)
        is_done = demo._record(console, network, str(clip), folder, **keywords)
        assert is_done
        return console.file.getvalue(), Recording.open(folder).info["model"]["fingerprint"]

    return place, folder


@pytest.fixture
def retrained(tiny):
    other = copy.deepcopy(tiny)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    return other


@pytest.mark.usefixtures("small_previews")
def test_other_weights_than_last_time_are_recorded_anew(place, tiny, retrained):
    record, folder = place
    _, first = record(tiny)
    text, second = record(retrained)
    assert first != second
    assert "other weights or settings: recording it anew" in text
    assert "anew" not in record(retrained)[0]
    assert len(Recording.open(folder)) == 3


@pytest.mark.usefixtures("small_previews")
def test_a_changed_world_is_recorded_anew(place, tiny):
    record, folder = place
    record(tiny)
    before = (folder / "recording.json").stat().st_mtime_ns
    record(tiny)
    assert (folder / "recording.json").stat().st_mtime_ns == before
    record(tiny, is_new=True)
    assert (folder / "recording.json").stat().st_mtime_ns != before


@pytest.mark.usefixtures("small_previews")
@pytest.mark.parametrize("foreign", ["letter", "other source", "no recording"])
def test_what_is_not_the_demos_own_is_never_replaced(place, tiny, retrained, foreign):
    record, folder = place
    record(tiny)
    if foreign == "letter":
        (folder / "letter.txt").write_text("dear")
    elif foreign == "other source":
        text = (folder / "recording.json").read_text()
        (folder / "recording.json").write_text(text.replace("office.mp4", "my_office.mp4"))
    else:
        (folder / "recording.json").unlink()
    before = sorted(path.name for path in folder.iterdir())
    for keywords in ({}, {"is_new": True}):
        with pytest.raises(ConfigError):
            record(retrained, **keywords)
        assert sorted(path.name for path in folder.iterdir()) == before


def test_the_world_is_written_once_and_without_frames_of_a_longer_one(tiny, tmp_path):
    truth = demo._world(tiny)
    folder = tmp_path / "source"
    assert demo._write_world(truth, folder)
    assert not demo._write_world(truth, folder)
    (folder / "images" / "0005.png").write_bytes(b"of a longer walk")
    assert demo._write_world(truth, folder)
    assert len(list((folder / "images").iterdir())) == 5
    (folder / "images" / "0003.png").write_bytes(b"of another room")
    assert demo._write_world(truth, folder)
    assert not demo._write_world(truth, folder)


def test_the_images_of_the_world_reach_the_network_unchanged(tiny, tmp_path):
    import everview

    truth = demo._world(tiny)
    folder = tmp_path / "source"
    demo._write_world(truth, folder)
    for frame, image in zip(everview.read(folder, model=tiny), truth.images, strict=True):
        np.testing.assert_allclose(frame.image, image, atol=0.5 / 255 + 1e-6)
