import json
import weakref

import numpy as np
import pytest
import torch

from everview.cli.main import main
from everview.outputs.recording import Recording
from everview.world import sequence
from everview.world.clip import WorldView

SMALL = ["--size", "28", "42", "--frames", "5", "--no-preview"]


def test_a_clip_becomes_a_recording_of_the_truth(tmp_path, capsys):
    folder = tmp_path / "clip"
    assert main(["world", "-o", str(folder), "--seed", "3", "--kind", "street", *SMALL]) == 0
    assert "street, seed 3: 5 frames" in capsys.readouterr().out
    recording, clip = Recording.open(folder), sequence(3, 5, size=(28, 42), kind="street")
    assert len(recording) == 5
    assert recording.info["status"] == "finished"
    poses = torch.from_numpy(recording.world_from_camera).float()
    torch.testing.assert_close(poses, clip.world_from_camera, rtol=1e-4, atol=1e-4)
    depth, valid = torch.from_numpy(recording.depth(4)), clip.valid[4]
    assert torch.equal(depth.isfinite(), valid)
    torch.testing.assert_close(depth[valid], clip.depth[4][valid], rtol=2e-4, atol=0)
    intrinsics = torch.from_numpy(recording.intrinsics()[0]).float()
    torch.testing.assert_close(intrinsics, clip.intrinsics[0], rtol=1e-4, atol=1e-3)
    colour = torch.from_numpy(recording.colour(2)).permute(2, 0, 1) / 255
    torch.testing.assert_close(colour, clip.images[2], rtol=0, atol=0.01)
    assert len(list((folder / "images").glob("*.png"))) == 5


def test_tracks_and_masks_lie_beside(tmp_path):
    folder = tmp_path / "clip"
    arguments = ["world", "-o", str(folder), "--moving", "1", "--kind", "room", *SMALL]
    assert main(arguments) == 0
    truth = np.load(folder / "truth.npz")
    assert truth["moving"].shape == (5, 28, 42)
    assert truth["tracks"].shape == (5, 64, 2)
    assert truth["visible"][0].all()
    np.testing.assert_allclose(truth["tracks"][0], truth["queries"], atol=1e-2)


def test_several_clips_get_folders_named_after_their_seeds(tmp_path):
    assert main(["world", "-o", str(tmp_path), "--count", "2", "--seed", "7", *SMALL]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000007", "00000008"]
    settings = json.loads((tmp_path / "00000008" / "recording.json").read_text())["settings"]
    assert settings["size"] == [28, 42]


def test_clips_are_written_in_the_layout_of_a_training_set(tmp_path, capsys):
    folder = tmp_path / "set"
    arguments = ["world", "-o", str(folder), "--layout", "sequences", "--kind", "room", *SMALL]
    assert main(arguments) == 0
    assert "layout of sequences" in capsys.readouterr().out
    assert len(list(folder.rglob("*.*"))) > 5


def test_a_set_is_rendered_clip_by_clip(tmp_path, monkeypatch):
    clips, alive = [], []

    def counted(self, start, stop):
        clip = rendered(self, start, stop)
        clips.append(weakref.ref(clip))
        alive.append(sum(known() is not None for known in clips))
        return clip

    rendered = WorldView.frames
    monkeypatch.setattr(WorldView, "frames", counted)
    arguments = ["world", "-o", str(tmp_path / "set"), "--layout", "sequences", "--count", "6"]
    assert main([*arguments, *SMALL]) == 0
    assert len(alive) >= 6  # and those at which the check of types looks
    assert max(alive) <= 2  # the one that is written, and the next


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--kind", "cave"], "kind 'cave' of world is unknown; known: any, room"),
        (["--motion", "hop"], "motion 'hop' is unknown; known: any, hand-held"),
        (["--layout", "imax"], "layout 'imax' is unknown; known: recording, "),
        (["--count", "0"], "--count and --frames must be 1 or more; got 0"),
        (["--size", "1", "4"], "sides >= 2"),
        (["--speed", "nan"], "speed > 0 and noise >= 0"),
        (["--noise", "inf"], "speed > 0 and noise >= 0"),
        (["--device", "banana"], "device 'banana' is unknown; use auto, cpu"),
    ],
)
def test_wrong_calls_are_told_in_one_line(tmp_path, arguments, words, capsys):
    assert main(["world", "-o", str(tmp_path / "x"), *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_folder_that_holds_something_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    assert main(["world", "-o", str(tmp_path), *SMALL]) == 2
    assert "is not empty; name a new folder" in capsys.readouterr().err
