import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from everview.cli.main import main
from everview.training.datasets.inspection.depth import judge
from everview.training.datasets.inspection.inspector import inspect_dataset
from everview.training.datasets.inspection.reprojection import Agreement, reprojection_error
from everview.training.datasets.inspection.views import InspectionSettings, look_at
from everview.training.datasets.recognise import open_dataset
from everview.training.datasets.sets import SETS

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
VEHICLE = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
"""OpenCV's camera axes from a vehicle's."""


def _report(folder, layout=None, **settings):
    dataset = open_dataset(folder, layout)
    return inspect_dataset(dataset, folder, InspectionSettings(**settings))


def _faults(report):
    return {finding.check: finding for finding in report.findings if finding.level == "fault"}


def _change_cameras(root, pattern, change):
    """Rewrite the poses and intrinsics of all camera files."""
    for path in root.glob(pattern):
        with np.load(path) as file:
            arrays = dict(file)
        np.savez(path, **change(arrays))


def _with_pose(function):
    return lambda arrays: {**arrays, "pose": function(arrays["pose"])}


@pytest.mark.parametrize("layout", [*SETS, "sequences"])
def test_every_layout_that_the_world_writes_passes(layout, stored):
    report = _report(stored(layout))
    assert report.layout == layout
    assert report.is_usable, report.findings
    assert report.findings == []
    assert report.measures["reprojection_error"] < 0.03
    assert report.measures["identity_error"] > 2 * report.measures["reprojection_error"]


def test_the_error_is_that_of_a_plane_that_comes_nearer(stored):
    first, second = open_dataset(stored("spring"), "spring").scenes[0].views([0, 1])
    flat = {"depth": torch.full_like(first.depth, 4.0), "valid": torch.ones_like(first.valid)}
    first, second = (type(v)(**{**vars(v), **flat}) for v in (first, second))
    motion = torch.eye(4, dtype=torch.float64)
    motion[2, 3] = -1.0  # one metre towards the plane, whose depth stays 4: |4 - 3| / 4
    found = reprojection_error(first, second, motion)
    assert found.error == pytest.approx(0.25)
    assert 0.5 < found.overlap < 0.62  # the field of view shrinks to (3/4)^2
    motion[2, 3] = -8.0
    assert reprojection_error(first, second, motion).overlap == 0


@pytest.mark.parametrize("layout", ["wildrgbd", "vkitti2"])
def test_depth_in_another_unit_is_a_fault_and_the_unit_is_guessed(layout, copy_of):
    root = copy_of(layout)
    factor = 10 if layout == "wildrgbd" else 0.1
    for path in root.rglob("*.png"):
        values = np.asarray(Image.open(path))
        if values.dtype == np.uint16:
            Image.fromarray((values * factor).astype(np.uint16)).save(path)
    fault = _faults(_report(root))["reprojection"]
    assert f"multiplied by {1 / factor:g}" in fault.text
    assert "different units" in fault.advice


def test_metric_depth_in_millimetres_is_a_fault(copy_of):
    root = copy_of("spring")
    for path in root.glob("*/depth/*.npy"):
        np.save(path, np.load(path) * 1000)
    faults = _faults(_report(root, "spring"))
    assert "looks like millimetres" in faults["depth"].text
    assert "multiplied by 0.001" in faults["reprojection"].text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (np.linalg.inv, "camera_from_world, OpenCV axes"),
        (lambda pose: pose @ OPENGL, "world_from_camera, OpenGL axes"),
        (lambda pose: np.linalg.inv(pose @ OPENGL), "camera_from_world, OpenGL axes"),
        (lambda pose: pose @ VEHICLE, "world_from_camera, vehicle axes"),
    ],
)
def test_poses_of_another_convention_are_a_fault_and_the_convention_is_named(
    change, expected, copy_of
):
    root = copy_of("hypersim")
    _change_cameras(root, "*/*/*cam.npz", _with_pose(change))
    fault = _faults(_report(root))["reprojection"]
    assert expected in fault.text
    assert "convert the poses to world_from_camera, OpenCV axes" in fault.advice


def test_one_scene_of_another_convention_among_good_ones_is_named(copy_of, clips):
    root = copy_of("hypersim")
    _change_cameras(root, "ai_001_001/*/*cam.npz", _with_pose(lambda pose: pose @ OPENGL))
    report = _report(root)
    assert "ai_001_001" in " ".join(finding.text for finding in report.findings) or (
        "OpenGL" in _faults(report)["reprojection"].text
    )


def test_one_flipped_axis_is_a_fault(copy_of):
    root = copy_of("hypersim")
    flip = np.diag([1.0, -1.0, 1.0, 1.0])
    _change_cameras(root, "*/*/*cam.npz", _with_pose(lambda pose: pose @ flip))
    assert "determinant -1" in _faults(_report(root))["rotations"].text


def test_rotations_with_a_scale_are_a_fault_and_rough_ones_a_warning(copy_of):
    root = copy_of("hypersim")

    def scaled(factor):
        def change(pose):
            pose = pose.copy()
            pose[:3, :3] *= factor
            return pose

        return change

    _change_cameras(root, "*/*/*cam.npz", _with_pose(scaled(1.001)))
    (finding,) = _report(root).findings
    assert (finding.level, finding.check) == ("warning", "rotations")
    _change_cameras(root, "*/*/*cam.npz", _with_pose(scaled(1.1)))
    assert "no rotation" in _faults(_report(root))["rotations"].advice


def test_transposed_poses_are_a_fault(copy_of):
    root = copy_of("hypersim")
    _change_cameras(root, "*/*/*cam.npz", _with_pose(np.transpose))
    report = _report(root)
    assert any("last row" in finding.text for finding in report.findings)


def test_poses_that_are_not_finite_are_counted(copy_of):
    root = copy_of("scannet")
    path = sorted(root.glob("*/*/cam/*.npz"))[1]
    with np.load(path) as file:
        np.savez(path, intrinsics=file["intrinsics"], pose=np.full((4, 4), -np.inf))
    report = _report(root)
    assert report.is_usable
    assert "1 of 12 poses are not finite" in report.findings[0].text
    assert report.measures["finite_poses"] == pytest.approx(11 / 12)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda K: K / 70, "normalised"),
        (lambda K: np.diag([8.0, 8.0, 1.0]) @ K, "another image size"),
        (lambda K: K * [[-1], [1], [1]], "above 0"),
        (lambda K: np.diag([2.0, 1.0, 1.0]) @ K * [[1, 1, 0.5], [1, 1, 1], [1, 1, 1]], "square"),
    ],
)
def test_intrinsics_of_another_image_are_a_fault(change, expected, copy_of):
    root = copy_of("spring")
    _change_cameras(root, "*/cam/*.npz", lambda a: {**a, "intrinsics": change(a["intrinsics"])})
    assert expected in _faults(_report(root, "spring"))["intrinsics"].advice


def test_frames_are_as_far_apart_as_samples_step(copy_of):
    root = copy_of("scannet")  # gap 30: half a block of 2 would be 30 apart, the scene has 6
    dataset = open_dataset(root)
    seen = look_at(dataset, InspectionSettings(frames=2))
    assert [[view.index for view in block] for block in seen.blocks] == [[0, 3], [0, 3]]
    seen = look_at(dataset, InspectionSettings(frames=4))
    assert [view.index for view in seen.blocks[0]] == [1, 2, 3, 4]


def test_absent_and_truncated_files_are_named(copy_of):
    root = copy_of("hypersim")
    picture = sorted(root.glob("*/*/*rgb.png"))[2]
    picture.write_bytes(picture.read_bytes()[:700])
    gone = sorted(root.glob("*/*/*depth.npy"))[4]
    gone.unlink()
    fault = _faults(_report(root))["files"]
    assert fault.text.startswith("2 files are absent or damaged")
    assert f"{gone} does not exist" in fault.files
    assert any(str(picture) in text and "truncated" in text for text in fault.files)


def test_damage_outside_the_frames_looked_at_is_found_when_every_file_is_read(copy_of):
    root = copy_of("hypersim")
    picture = sorted(root.glob("*/*/*rgb.png"))[1]
    picture.write_bytes(b"no")
    assert _report(root, frames=2).is_usable
    assert str(picture) in _faults(_report(root, frames=2, every_file=True))["files"].text


def test_depth_without_values_is_a_fault(copy_of):
    root = copy_of("spring")
    for path in root.glob("*/depth/*.npy"):
        np.save(path, np.zeros((56, 70), np.float32))
    assert "0.00% of the pixels" in _faults(_report(root, "spring"))["depth"].text


def test_depth_of_another_aspect_ratio_is_a_fault(copy_of):
    root = copy_of("spring")
    for path in root.glob("*/depth/*.npy"):
        np.save(path, np.ascontiguousarray(np.load(path).T))
    assert "70 x 56 pixels, its depth 56 x 70" in _faults(_report(root, "spring"))["shapes"].text


def test_poses_of_other_frames_are_told(copy_of):
    root = copy_of("hypersim")
    noise = np.random.default_rng(0)

    def somewhere(pose):
        pose = pose.copy()
        pose[:3, 3] = noise.uniform(-3, 3, 3)
        return pose

    _change_cameras(root, "*/*/*cam.npz", _with_pose(somewhere))
    report = _report(root)
    assert not report.is_usable
    assert "misses the other frame's depth" in _faults(report)["reprojection"].text


def _agreement(**more):
    values = {
        "stored": 0.01, "identity": 0.3, "overlap": 0.6, "rotation_only": 0.2,
        "best_convention": "other", "best_convention_error": 0.3,
        "best_scale": 10.0, "best_scale_error": 0.3,
    }  # fmt: skip
    return Agreement(**{**values, **more})


@pytest.mark.parametrize(
    ("numbers", "level"),
    [
        ({}, None),
        ({"stored": 0.03}, None),
        ({"stored": 0.03, "best_scale_error": 0.01}, "fault"),
        ({"stored": 0.03, "best_scale_error": 0.02}, None),  # not clearly better
        ({"stored": 0.4, "best_scale_error": 0.02, "rotation_only": 0.021}, "fault"),
        ({"stored": 0.1}, "warning"),
        ({"stored": 0.4}, "fault"),
        ({"stored": 0.004, "identity": 0.005}, "note"),
        ({"stored": math.inf}, "warning"),
        ({"stored": math.inf, "identity": 0.1}, "fault"),
        ({"stored": 0.02, "best_convention_error": 0.003}, "fault"),
    ],
)
def test_verdicts_follow_the_errors(numbers, level):
    levels = [finding.level for finding in judge(_agreement(**numbers))]
    assert levels == ([] if level is None else [level])


def test_depth_that_only_turning_on_the_spot_explains_is_not_called_a_unit():
    found = judge(_agreement(stored=0.4, best_scale_error=0.02, rotation_only=0.021))
    assert "multiplied" not in found[0].text


def test_a_camera_that_stands_still_tells_nothing_about_poses(copy_of):
    root = copy_of("hypersim")
    first = sorted(root.glob("*/*/*cam.npz"))[0].read_bytes()
    for pattern in ("*cam.npz", "*depth.npy", "*rgb.png"):
        paths = sorted(root.glob(f"*/*/{pattern}"))
        first = paths[0].read_bytes()
        for path in paths:
            path.write_bytes(first)
    (finding,) = _report(root).findings
    assert (finding.level, finding.check) == ("note", "reprojection")
    assert "hardly moves" in finding.text


def test_the_command_prints_a_table_and_ends_with_0(stored, capsys):
    assert main(["data", "check", str(stored("vkitti2"))]) == 0
    text = capsys.readouterr().out
    assert "vkitti2, 2 scenes, 12 frames; looked at 2 scenes, 12 frames, 6 pairs" in text
    assert "reprojection" in text
    assert "fault" not in text


def test_the_command_ends_with_3_and_says_what_to_do_where_something_is_wrong(copy_of, capsys):
    root = copy_of("hypersim")
    _change_cameras(root, "*/*/*cam.npz", _with_pose(np.linalg.inv))
    assert main(["data", "check", str(root)]) == 3
    assert "-> convert the poses to world_from_camera, OpenCV axes" in capsys.readouterr().out


def test_the_command_writes_json_for_machines(stored, capsys):
    assert main(["data", "check", str(stored("spring")), "--set", "spring", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["is_usable"]
    assert report["layout"] == "spring"
    assert 0 < report["measures"]["reprojection_error"] < 0.03


def test_the_command_refuses_what_it_cannot_do(stored, tmp_path, capsys):
    assert main(["data", "check", str(tmp_path / "absent")]) == 3
    assert main(["data", "check", str(stored("spring")), "--set", "nothing"]) == 2
    assert main(["data", "check", str(stored("spring")), "--frames", "1"]) == 2
    assert "--frames 2 or more" in capsys.readouterr().err
