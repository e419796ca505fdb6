import functools

import numpy as np
import pytest
from evo.tools.file_interface import read_tum_trajectory_file

from everview.cli import demo
from everview.cli.main import main
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


def test_the_images_of_the_world_reach_the_network_unchanged(tiny, tmp_path):
    import everview

    truth = demo._world(tiny)
    folder = demo._write_world(truth, tmp_path / "source")
    for frame, image in zip(everview.read(folder, model=tiny), truth.images, strict=True):
        np.testing.assert_allclose(frame.image, image, atol=0.5 / 255 + 1e-6)
