import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from everview.cli.main import main
from everview.errors import ConfigError, InputError
from everview.evaluation import recording, two_view
from everview.evaluation.baselines import measure_habits
from everview.evaluation.footage import open_footage
from everview.evaluation.recording import RecordingSettings, evaluate_recording, windows
from everview.evaluation.registration import (
    ColourCamera,
    colour_camera,
    depth_on_grid,
    intrinsics_on_grid,
    nearest_rotation,
    seen_from,
)
from everview.evaluation.sequence_scores import HIGHER_IS_BETTER, score_clip
from everview.geometry.cameras import pose_encoding_from_camera
from everview.geometry.pixel_map import PixelMap
from everview.geometry.prediction import Prediction
from everview.geometry.rotations import invert_rigid
from everview.world import sequence

SIZE, FRAMES, SEED = (42, 56), 5, 3


@pytest.fixture(scope="module")
def habits():
    return measure_habits(clips=2, frames=2)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A recording of the truth that the procedural world wrote."""
    folder = tmp_path_factory.mktemp("world") / "clip"
    made = ["--frames", str(FRAMES), "--size", *map(str, SIZE), "--no-preview", "-o", str(folder)]
    assert main(["world", "--seed", str(SEED), *made]) == 0
    return folder


@pytest.fixture(scope="module")
def sequence_folder(tmp_path_factory):
    """The same clip in the layout of the developers' data, at twice the size."""
    folder = tmp_path_factory.mktemp("layout") / "clip"
    clip = sequence(SEED, FRAMES, size=(84, 112))
    (folder / "images").mkdir(parents=True)
    (folder / "depth").mkdir()
    lines = []
    for i in range(FRAMES):
        pixels = (clip.images[i] * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / "images" / f"{3 * i:06d}.png")
        steps = (clip.depth[i].double() * 1000).round().numpy().astype(np.uint16)
        Image.fromarray(steps).save(folder / "depth" / f"{3 * i:06d}.png")
        pose = clip.world_from_camera[i].double().flatten() * 1.0
        lines.append(" ".join([f"{3 * i:06d}", *(f"{v:.9f}" for v in pose.tolist())]))
    (folder / "poses.txt").write_text("\n".join(lines) + "\n")
    k = clip.intrinsics[0]
    camera = {"fx": float(k[0, 0]), "fy": float(k[1, 1]), "cx": 56.0, "cy": 42.0}
    info = {
        "name": "clip",
        "width": 112,
        "height": 84,
        "camera": camera,
        "depth": {"scale_m_per_unit": 0.001, "registered_to_images": True},
    }
    (folder / "sequence.json").write_text(json.dumps(info))
    return folder


def _perfect(truth, *, far=1.0):
    """The truth as a prediction in another unit, its depth too large by a factor per frame."""
    camera = invert_rigid(truth.world_from_camera)
    camera[:, :3, 3] /= 2
    encoding = pose_encoding_from_camera(camera, truth.intrinsics, truth.size)[None]
    depth = truth.depth.clone() / 2
    depth[: len(depth) // 2] *= far
    return [
        Prediction(
            pose_encoding=encoding,
            pose_encoding_iterations=encoding[None],
            network_size=truth.size,
            depth=depth[None],
            points=truth.points[None] / 2,
        )
    ]


@pytest.mark.parametrize("layout", ["recorded", "sequence_folder"])
def test_the_truth_of_a_folder_scores_without_error(layout, request, habits):
    footage = open_footage(request.getfixturevalue(layout), size=56)
    truth = footage.clip(range(FRAMES))
    assert truth.size == SIZE
    scores = score_clip(_perfect(truth), truth, habits=habits)
    for name in HIGHER_IS_BETTER:
        assert scores[name] == 1 or math.isnan(scores[name]), name
    for name in ("abs_rel", "rotation_degrees", "ate", "points", "length_error", "fov_degrees"):
        assert scores[name] == pytest.approx(0, abs=2e-3) or math.isnan(scores[name]), name


def test_a_recording_holds_what_the_world_rendered(recorded):
    clip, footage = sequence(SEED, FRAMES, size=SIZE), open_footage(recorded, size=56)
    truth = footage.clip(range(FRAMES))
    torch.testing.assert_close(truth.images, clip.images, atol=2e-3, rtol=0)
    torch.testing.assert_close(truth.depth, clip.depth, rtol=3e-4, atol=1e-5)
    torch.testing.assert_close(truth.world_from_camera, clip.world_from_camera, atol=1e-5, rtol=0)
    torch.testing.assert_close(truth.intrinsics, clip.intrinsics, rtol=1e-5, atol=1e-4)
    assert footage.remarks == ()


def test_a_known_error_of_depth_has_its_known_value(recorded, habits):
    """Two of five frames 10 % too far: one median scale does not hide it."""
    truth = open_footage(recorded, size=56).clip(range(FRAMES))
    wrong = _perfect(truth, far=1.1)
    share = truth.valid[:2].sum() / truth.valid.sum()
    depth, true = wrong[0].depth[0][truth.valid], truth.depth[truth.valid]
    scale = true.median() / depth.median()
    expected = share * abs(1.1 * scale / 2 - 1) + (1 - share) * abs(scale / 2 - 1)
    scores = score_clip(wrong, truth, habits=habits)
    assert scores["abs_rel"] == pytest.approx(float(expected), rel=1e-3)
    assert 0.02 < scores["abs_rel"] < 0.1


def test_windows_lie_within_the_sequence():
    assert windows(10, 4, 3) == [range(4), range(3, 7), range(6, 10)]
    assert windows(3, 4, 1) == []


def test_the_result_names_sequences_and_windows(recorded, tiny, monkeypatch):
    monkeypatch.setattr(recording, "measure_habits", lambda clips: measure_habits(clips=2))
    settings = RecordingSettings(data=(recorded,), frames=(2, 3), stride=2)
    result = evaluate_recording(tiny, settings)
    json.dumps(result, allow_nan=False)
    (found,) = result["sequences"]
    assert [len(group["clips"]) for group in found["groups"]] == [2, 2]
    assert found["groups"][1]["clips"][1]["first"] == "000002.png"
    guesses = set(found["groups"][0]["scores"]["rotation_degrees"]["baselines"])
    assert {"standing_still", "straight_line"} <= guesses
    assert ("essential_matrix" in guesses) == two_view.is_available()
    assert ("not installed" in result["classical_baseline"]) != two_view.is_available()


def test_folders_that_cannot_be_used_are_named(tmp_path, recorded, tiny, monkeypatch):
    monkeypatch.setattr(recording, "measure_habits", lambda clips: measure_habits(clips=2))
    with pytest.raises(InputError, match="neither recording"):
        open_footage(tmp_path, size=56)
    with pytest.raises(InputError, match="5 frames to take; a window needs 16"):
        evaluate_recording(tiny, RecordingSettings(data=(recorded,), classical=False))
    with pytest.raises(ConfigError, match="--data DIR"):
        RecordingSettings(data=())


def test_a_frame_without_a_pose_is_named(sequence_folder, tmp_path):
    copy = tmp_path / "clip"
    copy.mkdir()
    (copy / "images").symlink_to(sequence_folder / "images")
    (copy / "sequence.json").write_text((sequence_folder / "sequence.json").read_text())
    lines = (sequence_folder / "poses.txt").read_text().splitlines()
    (copy / "poses.txt").write_text("\n".join(lines[1:]))
    with pytest.raises(InputError, match="no pose of 1 frames, such as 000000"):
        open_footage(copy, size=56)


def test_depth_moves_into_the_colour_camera_and_the_near_hides_the_far():
    """A wall at 2 m shifts by 50 x 0.2 / 2 = 5 pixels to the left; one at 1 m by 10."""
    camera = ColourCamera(fx=50, fy=50, cx=20, cy=10, tx=0.2)
    own = camera.intrinsics
    depth = torch.zeros(20, 40)
    depth[5, 30], depth[5, 35] = 2.0, 1.0
    moved = seen_from(depth, own, camera, (20, 40))
    assert moved.nonzero().tolist() == [[5, 25]]
    assert float(moved[5, 25]) == 1.0
    depth[5, 35] = 0.0
    assert float(seen_from(depth, own, camera, (20, 40))[5, 25]) == 2.0


def test_the_colour_camera_comes_from_the_file_or_is_known_by_name():
    assert colour_camera({"name": "elsewhere"}) is None
    assert colour_camera({"name": "kinect_kitchen"}).fx == 527
    own = {"name": "kinect_kitchen", "colour_camera": {"fx": 1, "fy": 2, "cx": 3, "cy": 4}}
    assert colour_camera(own) == ColourCamera(fx=1, fy=2, cx=3, cy=4)
    with pytest.raises(InputError, match="must hold fx, fy"):
        colour_camera({"colour_camera": {"focal": 1}})


def test_grids_follow_the_pixel_map():
    halved = PixelMap(
        original_size=(8, 8), network_size=(2, 4), scale=(0.5, 0.5), offset=(0.0, -1.0)
    )
    rows = torch.arange(8.0)[:, None].expand(8, 8)  # row 2 or 3 at the middle between them
    found = depth_on_grid(rows, halved)
    assert set(found[0].tolist()) <= {2.0, 3.0}
    assert set(found[1].tolist()) <= {4.0, 5.0}
    k = torch.tensor([[10.0, 0, 3.5], [0, 12.0, 3.5], [0, 0, 1]])
    moved = intrinsics_on_grid(k, halved)
    torch.testing.assert_close(halved.intrinsics_to_original(moved), k)
    assert moved[0, 0] == 5


def test_a_rounded_rotation_becomes_exact():
    angle = math.radians(10)
    turn = torch.tensor(
        [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]],
        dtype=torch.float64,
    )
    found = nearest_rotation(turn * 0.9997)
    torch.testing.assert_close(found, turn)
    torch.testing.assert_close(torch.det(found), torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.skipif(not two_view.is_available(), reason="OpenCV is not installed (extra eval)")
def test_the_essential_matrix_finds_the_motion_of_a_textured_clip():
    clip = sequence(11, 3, size=(240, 320), kind="room")
    motions = two_view.neighbour_motions(
        lambda i: Image.fromarray((clip.images[i] * 255).byte().permute(1, 2, 0).numpy()),
        3, camera=clip.intrinsics[0].double().numpy(),
    )  # fmt: skip
    path = two_view.chained(motions)
    assert path.shape == (3, 4, 4)
    true = invert_rigid(clip.world_from_camera[0]) @ clip.world_from_camera[1]
    cosine = (torch.trace(motions[0, :3, :3].T @ true[:3, :3].double()) - 1) / 2
    assert float(torch.rad2deg(torch.arccos(cosine.clamp(-1, 1)))) < 1


@pytest.mark.skipif(not two_view.is_available(), reason="OpenCV is not installed (extra eval)")
@pytest.mark.parametrize("ratio", [0.3, 1.0, 2.5])
def test_a_third_view_tells_how_far_the_camera_went(ratio):
    """Random points seen by three cameras; a tenth of the third view's matches are wrong."""
    import cv2

    random = np.random.default_rng(4)
    points = random.uniform((-3, -2, 4), (3, 2, 9), (120, 3))
    camera = np.array([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]])
    turn = cv2.Rodrigues(np.array([0.02, 0.1, -0.03]))[0]
    motion = np.eye(4)  # pose of the second camera in the first, of length 1
    motion[:3, :3], motion[:3, 3] = turn, np.array([0.8, 0.0, 0.6])
    onward = np.eye(4)
    onward[:3, :3], onward[:3, 3] = turn.T, ratio * np.array([0.6, 0.0, 0.8])
    views = []
    for pose in (np.eye(4), motion, motion @ onward):
        local = (points - pose[:3, 3]) @ pose[:3, :3]
        views.append(local / local[:, 2:] @ camera.T[:, :2])
    views[2][::10] += 40
    numbers = np.arange(len(points))
    shuffled = random.permutation(len(points))
    before = (views[0], views[1], numbers, numbers)
    after = (views[1][shuffled], views[2][shuffled], numbers[shuffled], numbers[shuffled])
    lens = (camera, np.zeros(4))
    assert two_view._length_ratio(cv2, before, after, motion, *lens) == pytest.approx(ratio, 0.02)
    few = tuple(values[:10] for values in after)
    assert two_view._length_ratio(cv2, before, few, motion, *lens) == 1.0


@pytest.mark.skipif(two_view.is_available(), reason="OpenCV is installed")
def test_without_opencv_the_message_holds_the_pip_line():
    from everview.errors import MissingExtraError

    with pytest.raises(MissingExtraError, match=r"everview\[eval\]"):
        two_view.neighbour_motions(lambda i: Image.new("RGB", (8, 8)), 2, camera=np.eye(3))


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "size", "has_depth"),
    [
        ("hololens_office", (98, 140), True),
        ("kinect_kitchen", (112, 140), True),
        ("fox", (140, 140), False),
        ("kitti_street", (42, 140), False),
    ],
)
def test_real_sequences_open_with_exact_rotations(name, size, has_depth, real_data):
    footage = open_footage(real_data / name, size=140)
    truth = footage.clip(range(8))
    assert truth.size == size
    assert (truth.depth is not None) == has_depth
    rotation = footage.world_from_camera[:, :3, :3]
    assert float((rotation @ rotation.mT - torch.eye(3).double()).abs().max()) < 1e-12
    if has_depth:
        assert 0.3 < float(truth.valid.float().mean()) < 1
        assert 0.5 < truth.unit < 5
