"""Recordings, sequence folders, plain pictures and the world as training sets."""

import numpy as np
import pytest
import torch
from PIL import Image

from everview.errors import ConfigError, InputError
from everview.frames.frame import Frame
from everview.geometry.cameras import pose_encoding_from_camera
from everview.geometry.prediction import Prediction
from everview.geometry.rotations import invert_rigid
from everview.outputs.manifest import new_manifest
from everview.outputs.recorder import Recorder
from everview.pipeline.results import FrameResult
from everview.training.datasets.inspection.inspector import inspect_dataset
from everview.training.datasets.inspection.views import InspectionSettings
from everview.training.datasets.procedural import ProceduralSettings, open_world
from everview.training.datasets.recognise import open_dataset, recognise
from everview.training.datasets.sequences import open_sequences
from everview.world import sequence, training_seed


def _record(folder, clip, *, unit):
    """A recording that says what is true about a clip, in some unit of length."""
    manifest = new_manifest(source={}, model={}, settings={})
    recorder = Recorder.create(folder, manifest)
    camera_from_world = invert_rigid(clip.world_from_camera)
    camera_from_world[:, :3, 3] *= unit
    size = (clip.images.shape[2], clip.images.shape[3])
    encodings = pose_encoding_from_camera(camera_from_world, clip.intrinsics, size)
    for i, image in enumerate(clip.images):
        is_skipped = i == 2
        frame = Frame(
            image=image, timestamp=i / 10, index=i, original_size=size,
            flags=("black",) if is_skipped else (),
        )  # fmt: skip
        predicted = Prediction(
            pose_encoding=encodings[i][None, None],
            pose_encoding_iterations=encodings[i][None, None, None],
            network_size=size,
            depth=clip.depth[i][None, None] * unit,
            depth_confidence=torch.full((1, 1, *size), 2.0),
        )
        prediction = None if is_skipped else predicted.numpy()
        recorder.write(FrameResult(frame=frame, prediction=prediction))
    recorder.close()


@pytest.fixture(scope="module")
def recordings(clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    for number, clip in enumerate(clips):
        _record(folder / f"walk_{number}", clip, unit=0.3)
    return folder


def test_a_recording_is_training_data(recordings, clips):
    dataset = open_dataset(recordings)
    assert dataset.name == "recordings"
    assert [len(scene) for scene in dataset.scenes] == [5, 5]  # one frame was skipped
    kept = [0, 1, 3, 4, 5]
    for scene, clip in zip(dataset.scenes, clips, strict=True):
        for view, i in zip(scene.views(range(5)), kept, strict=True):
            assert not view.is_metric
            assert view.time == pytest.approx(i / 10)
            assert (view.image - clip.images[i]).abs().max() < 0.003
            torch.testing.assert_close(view.depth, clip.depth[i] * 0.3, rtol=2e-4, atol=0)
            pose = clip.world_from_camera[i].double().clone()
            pose[:3, 3] *= 0.3
            torch.testing.assert_close(view.world_from_camera, pose, rtol=0, atol=1e-5)
            torch.testing.assert_close(
                view.intrinsics, clip.intrinsics[i].double(), rtol=1e-4, atol=0
            )


def test_one_recording_is_recognised_and_checked(recordings):
    folder = recordings / "walk_0"
    assert recognise(folder) == "recordings"
    report = inspect_dataset(open_dataset(folder), folder, InspectionSettings())
    assert report.findings == []
    assert report.measures["reprojection_error"] < 0.03


def test_a_sequence_folder_gives_back_what_the_world_stored(stored, clips):
    dataset = open_dataset(stored("sequences"))
    for scene, clip in zip(dataset.scenes, clips, strict=True):
        for i, view in enumerate(scene.views(range(6))):
            assert (view.depth - clip.depth[i]).abs().max() < 6e-4
            torch.testing.assert_close(
                view.world_from_camera, clip.world_from_camera[i].double(), rtol=0, atol=1e-8
            )
            torch.testing.assert_close(view.intrinsics, clip.intrinsics[i].double(), rtol=0, atol=0)
            assert (view.is_metric, view.has_depth, view.has_pose) == (True, True, True)


def test_a_frame_without_a_pose_and_a_broken_line_are_named(copy_of):
    root = copy_of("sequences")
    path = root / "world_000" / "poses.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:3]))
    with pytest.raises(InputError, match=r"poses\.txt has no pose of the frame 000003"):
        open_sequences(root).scenes[0].views([1, 3])
    path.write_text("\n".join([*lines[:3], "000002 1 2 three"]))
    with pytest.raises(InputError, match="line 4 is not a frame's name and 16 numbers"):
        open_sequences(root).scenes[0].views([1])


def test_a_sequence_without_poses_depth_and_camera_is_marked(copy_of):
    root = copy_of("sequences")
    (root / "world_000" / "poses.txt").unlink()
    (root / "world_000" / "sequence.json").write_text('{"name": "bare", "fps": 5}')
    (view,) = open_sequences(root / "world_000").scenes[0].views([4])
    assert (view.has_depth, view.has_pose, view.has_intrinsics) == (False, False, False)
    assert not view.valid.any()
    assert view.time == pytest.approx(4 / 5)


@pytest.mark.realdata
def test_real_sequences_are_read_and_those_with_depth_agree_with_their_poses(real_data):
    dataset = open_dataset(real_data)
    found = {scene.name: scene for scene in dataset.scenes}
    assert set(found) >= {"fox", "hololens_office", "kinect_kitchen", "kitti_street"}
    assert [len(found[name]) for name in ("fox", "hololens_office")] == [50, 100]
    office = open_sequences(real_data / "hololens_office")
    report = inspect_dataset(office, real_data, InspectionSettings(frames=6))
    assert report.findings == []
    assert report.measures["reprojection_error"] < 0.01  # 5 mm at 2 m, says its README
    assert report.measures["identity_error"] > 0.02
    assert 0.4 < report.measures["valid_share"] < 0.8
    (kitchen,) = found["kinect_kitchen"].views([0])
    assert not kitchen.has_depth  # not registered to its images
    (street,) = found["kitti_street"].views([10])
    assert street.image.shape[0] == 3  # stored in grey
    assert street.time == pytest.approx(1.0)
    assert (street.has_depth, street.has_pose) == (False, True)


@pytest.fixture
def pictures(tmp_path):
    """Two folders of pictures, not named in lexical order."""
    for name in ("b", "a"):
        folder = tmp_path / "films" / name
        folder.mkdir(parents=True)
        for number in (10, 9, 2):
            Image.new("RGB", (40, 30), (number * 20, 0, 0)).save(folder / f"{number}.png")
    return tmp_path / "films"


def test_folders_of_pictures_are_footage_without_truth(pictures):
    dataset = open_dataset(pictures)
    assert dataset.name == "footage"
    assert [scene.name for scene in dataset.scenes] == ["a", "b"]
    views = dataset.scenes[1].views([2, 0])
    assert [round(float(view.image[0, 0, 0]) * 255) for view in views] == [200, 40]
    assert [view.index for view in views] == [2, 0]
    for view in views:
        assert (view.has_depth, view.has_pose, view.has_intrinsics) == (False, False, False)
        assert not view.valid.any()
        assert view.world_from_camera.isnan().all()


def test_a_check_of_footage_says_what_it_is_good_for(pictures):
    report = inspect_dataset(open_dataset(pictures), pictures, InspectionSettings())
    assert report.is_usable
    assert "no depth and no poses and no intrinsics" in report.findings[0].text
    assert "distillation" in report.findings[0].advice


def test_damaged_pictures_of_footage_are_named(pictures):
    (pictures / "a" / "9.png").write_bytes(b"no")
    with pytest.raises(InputError, match=r"9\.png"):
        open_dataset(pictures).scenes[0].views([1])
    (view,) = open_dataset(pictures).scenes[0].views([0])
    assert view.image.shape == (3, 30, 40)


def test_a_video_that_ends_early_is_told(pictures):
    scene = open_dataset(pictures).scenes[0]
    with pytest.raises(InputError, match="ends before its frame 7"):
        scene.views([0, 7])


@pytest.mark.realdata
def test_a_video_file_is_footage(real_data):
    dataset = open_dataset(real_data / "videos" / "rot_90.mov")
    views = dataset.scenes[0].views([2, 1])
    assert [view.size for view in views] == [(568, 320)] * 2
    assert views[0].time > views[1].time


def test_the_world_is_a_set_whose_scenes_are_training_seeds():
    settings = ProceduralSettings(num_scenes=5, frames=4, size=(42, 56), first=7)
    dataset = open_world(settings)
    assert len(dataset) == 20
    scene, position = dataset.locate(6)
    assert (scene.name, position) == ("8", 2)
    views = scene.views([3, 1])
    clip = sequence(training_seed(8), 4, size=(42, 56))
    for view, i in zip(views, (3, 1), strict=True):
        torch.testing.assert_close(view.image, clip.images[i], rtol=0, atol=1 / 255)
        torch.testing.assert_close(view.depth, clip.depth[i], rtol=1e-4, atol=0)
        torch.testing.assert_close(view.world_from_camera, clip.world_from_camera[i])
        assert view.index == i
        assert np.array_equal(view.sky.numpy(), ~view.valid.numpy())
    with pytest.raises(ConfigError, match="must be 1 or more"):
        ProceduralSettings(frames=0)
