import contextlib
import copy
import io
import itertools
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import zarr
from evo.tools.file_interface import read_tum_trajectory_file

from everview.errors import ConfigError, InputError
from everview.outputs import dense, recorder
from everview.outputs.manifest import check_same_run, read_manifest
from everview.outputs.ply import read_ply
from everview.outputs.recorder import Recorder
from everview.outputs.recording import Recording

pytestmark = pytest.mark.usefixtures("short_shards")


@pytest.fixture
def write(tmp_path, manifest):
    """Write results into a new recording that is not closed yet."""
    all_made = []

    def write(frames):
        made = Recorder.create(tmp_path / f"out{len(all_made)}", copy.deepcopy(manifest))
        all_made.append(made)
        for result in frames:
            made.write(result)
        return made

    yield write
    for made in all_made:
        _end(made)


def _end(made):
    """What the end of a process would close."""
    made._lines.close()
    made._trajectory.close()


def _same_recordings(first, second):
    """Everything but the clock."""
    a, b = Recording.open(first), Recording.open(second)
    assert a.entries == b.entries
    for name in a.maps:
        for row in range(len(a)):
            np.testing.assert_array_equal(a._read(name, row), b._read(name, row))
    for name in ("trajectory.tum", "points.ply"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    for key in ("counts", "points", "network_size", "pixel_map", "status"):
        assert a.info[key] == b.info[key]


def test_what_is_read_is_what_was_predicted(write, results):
    frames = results(7, skip=(2,))
    made = write(frames)
    made.close()
    recording = Recording.open(made.folder)
    done = [result for result in frames if result.prediction is not None]
    assert [entry.row for entry in recording.entries] == [0, 1, None, 2, 3, 4, 5]
    assert recording.maps == ("colour", "depth", "depth_confidence", "points_confidence")
    for row, result in enumerate(done):
        truth = result.prediction
        np.testing.assert_allclose(recording.depth(row), truth.depth[0, 0], rtol=1.5e-4)
        for name in ("depth_confidence", "points_confidence"):
            expected = getattr(truth, name)[0, 0]
            np.testing.assert_allclose(getattr(recording, name)(row), expected, rtol=0.02)
        colour = result.frame.image.numpy().transpose(1, 2, 0) * 255
        np.testing.assert_allclose(recording.colour(row), colour, atol=0.501)
        np.testing.assert_array_equal(recording.pose_encoding[row], truth.pose_encoding[0, 0])
        np.testing.assert_allclose(recording.intrinsics()[row], truth.intrinsics[0, 0])
        again = recording.prediction(row)
        np.testing.assert_array_equal(again.pose_encoding, truth.pose_encoding)
        np.testing.assert_array_equal(again.depth[0, 0], recording.depth(row))
        np.testing.assert_allclose(again.intrinsics, truth.intrinsics)
        assert again.pixel_map == truth.pixel_map
        original = truth.at("original").intrinsics[0, 0]
        np.testing.assert_allclose(recording.intrinsics("original")[row], original, rtol=1e-6)


def test_poses_and_points_are_relative_to_the_first_camera(write, results):
    frames = results(4)
    made = write(frames)
    made.close()
    recording = Recording.open(made.folder)
    absolute = [result.prediction.world_from_camera[0, 0] for result in frames]
    for row, pose in enumerate(recording.world_from_camera):
        expected = np.linalg.inv(absolute[0]) @ absolute[row]
        np.testing.assert_allclose(pose, expected, atol=1e-6)
    lifted = frames[3].prediction.points_from_depth()[0, 0]  # in the network's world
    camera_from_world = np.linalg.inv(absolute[0])
    expected = lifted @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    np.testing.assert_allclose(recording.points(3), expected, atol=1e-3)


def test_another_program_reads_the_trajectory(write, results):
    made = write(results(5, skip=(0,)))
    made.close()
    recording = Recording.open(made.folder)
    read = read_tum_trajectory_file(made.folder / "trajectory.tum")
    np.testing.assert_allclose(read.timestamps, [0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(np.array(read.poses_se3), recording.world_from_camera, atol=1e-8)
    np.testing.assert_allclose(recording.timestamps, read.timestamps)


def test_recording_json_tells_all_that_a_reader_needs(write, results):
    made = write(results(6, skip=(1, 4)))
    made.close()
    info = json.loads((made.folder / "recording.json").read_text())
    assert info["format_version"] == 1
    assert info["status"] == "finished"
    assert info["counts"] == {"finished": 4, "skipped": 2, "skipped_by_reason": {"corrupt": 2}}
    assert info["network_size"] == [28, 42]
    assert info["original_size"] == [56, 84]
    assert info["points"]["voxel_size"] > 0
    assert info["points"]["confidence_quantile"] == 0.3
    assert info["timings"]["network_seconds"] == pytest.approx(0.04)
    array = zarr.open_group(made.folder / "dense.zarr", mode="r")["depth"]
    assert array.attrs["formula"] == info["dense"]["depth"]["formula"]
    assert {"camera_axes", "world", "trajectory", "pixels"} <= info["conventions"].keys()


def test_a_running_recording_can_be_read_and_grows(write, results):
    frames = results(6)
    made = write(frames[:1])
    recording = Recording.open(made.folder)
    for number, result in enumerate(frames[1:], start=2):
        made.write(result)
        assert recording.refresh() == len(recording) == number
        np.testing.assert_allclose(
            recording.depth(number - 1), result.prediction.depth[0, 0], rtol=1.5e-4
        )
        assert recording.info["status"] == "running"
    with pytest.raises(IndexError, match="6 finished frames; asked for 6"):
        recording.depth(6)
    with pytest.raises(InputError, match="has no normals; it has colour, depth"):
        recording._read("normals", 0)


def test_an_empty_recording_opens(write, results):
    made = write(results(2, skip=(0, 1)))
    made.close()
    recording = Recording.open(made.folder)
    assert len(recording) == 0
    assert recording.world_from_camera.shape == (0, 4, 4)
    assert recording.intrinsics("original").shape == (0, 3, 3)
    assert read_ply(made.folder / "points.ply")[0].shape == (0, 3)


def test_a_pose_that_is_not_finite_is_flagged_and_spoils_nothing_else(write, results):
    frames = results(3)
    frames[1].prediction.pose_encoding[...] = np.nan
    made = write(frames)
    made.close()
    recording = Recording.open(made.folder)
    assert recording.entry(1).flags == ("invalid camera: pose is not finite",)
    assert np.isnan(recording.pose_encoding[1]).all()
    assert np.isfinite(recording.world_from_camera[[0, 2]]).all()
    assert np.isfinite(read_ply(made.folder / "points.ply")[0]).all()


@pytest.mark.parametrize(
    ("numbers", "values", "flag"),
    [
        (slice(7, 8), 3.93, "invalid camera: field of view 3.93 rad"),
        (slice(8, 9), np.pi, "invalid camera: field of view 3.14 rad"),
        (slice(7, 9), 0.0, "invalid camera: field of view 0 rad"),
        (slice(7, 8), 0.0005, "invalid camera: field of view 0.0005 rad"),
        (slice(3, 7), 0.0, "invalid camera: rotation of length 0"),
        (slice(0, 1), np.inf, "invalid camera: pose is not finite"),
    ],
)
def test_a_camera_that_cannot_be_is_flagged_and_its_points_are_left_out(
    write, results, numbers, values, flag
):
    frames = results(3)
    without = write([frames[0], frames[2]])
    without.close()
    frames[1].prediction.pose_encoding[..., numbers] = values
    made = write(frames)
    made.close()
    recording = Recording.open(made.folder)
    assert [entry.flags for entry in recording.entries] == [(), (flag,), ()]
    clouds = [(recorder.folder / "points.ply").read_bytes() for recorder in (made, without)]
    assert clouds[0] == clouds[1]
    again = Recorder.resume(made.folder)
    again.close()
    assert (made.folder / "points.ply").read_bytes() == clouds[0]


@pytest.mark.parametrize("stop", [0, 1, 3, 4, 6, 9])
@pytest.mark.parametrize("is_closed", [True, False])
def test_a_continued_recording_equals_an_uninterrupted_one(write, results, stop, is_closed):
    frames = results(10, skip=(2, 5))
    whole = write(frames)
    whole.close()
    made = write(frames[:stop])
    if is_closed:
        made.close("stopped", "by the user")
    _end(made)
    again = Recorder.resume(made.folder)
    assert again.num_entries == stop
    for result in frames[stop:]:
        again.write(result)
    again.close()
    _same_recordings(made.folder, whole.folder)
    assert read_manifest(made.folder)["timings"]["resumed"] == 1


@pytest.mark.parametrize("num_files", [1, 2, 3])
def test_a_kill_while_the_folder_is_made_can_be_continued(write, results, num_files):
    made = write([])
    _end(made)
    for path in sorted(made.folder.iterdir(), key=lambda path: path.name != "recording.json"):
        num_files -= 1
        if num_files < 0:
            path.rmdir() if path.is_dir() else path.unlink()
    again = Recorder.resume(made.folder)
    for result in results(3):
        again.write(result)
    again.close()
    assert len(Recording.open(made.folder)) == 3


def test_two_processes_cannot_write_one_recording(write, results):
    made = write(results(2))
    with pytest.raises(ConfigError, match="is being written by another process"):
        Recorder.resume(made.folder)
    made.write(results(3)[2])  # the first one goes on unharmed
    assert len(Recording.open(made.folder)) == 3


class _Killed(BaseException):
    """Nothing may catch it, as nothing catches a kill."""


class _Killer:
    """Counts the steps that touch the disk; at the n-th, and ever after, the process is gone."""

    def __init__(self, monkeypatch, deadline):
        self.deadline, self.steps, self.is_dead = deadline, 0, False
        for owner, name in (
            (Path, "replace"), (Path, "unlink"), (Path, "rmdir"),
            (zarr.Array, "resize"), (zarr.Array, "__setitem__"),
        ):  # fmt: skip
            monkeypatch.setattr(owner, name, self._counting(getattr(owner, name)))
        self._append = recorder._append
        monkeypatch.setattr(recorder, "_append", self._tearing)

    def step(self):
        if threading.current_thread() is not threading.main_thread():
            return  # inside Zarr, which is atomic
        self.steps += 1
        if self.is_dead or self.steps == self.deadline:
            self.is_dead = True
            raise _Killed

    def _counting(self, function):
        def counting(*arguments, **keywords):
            self.step()
            return function(*arguments, **keywords)

        return counting

    def _tearing(self, file, line):
        try:
            self.step()
        except _Killed:
            file.write(line[: len(line) // 2])
            raise
        self._append(file, line)


@pytest.mark.parametrize(("count", "shard"), [(4, 2), pytest.param(11, 4, marks=pytest.mark.slow)])
def test_a_kill_at_any_step_loses_no_finished_frame(write, results, monkeypatch, count, shard):
    monkeypatch.setattr(dense, "FRAMES_PER_SHARD", shard)
    frames = results(count, skip=(1,))
    whole = write(frames)
    whole.close()
    for deadline in itertools.count(1):
        made = write([])
        with monkeypatch.context() as patch, contextlib.suppress(_Killed):
            killer = _Killer(patch, deadline)
            for result in frames:
                made.write(result)
            made.close()
        if not killer.is_dead:
            break
        _end(made)
        _every_line_is_backed(made.folder, frames)
        again = Recorder.resume(made.folder)
        for result in frames[again.num_entries :]:
            again.write(result)
        again.close()
        _same_recordings(made.folder, whole.folder)
        assert not list(made.folder.rglob("*partial*"))
        assert not (made.folder / "tail").exists()
    assert deadline > 30  # the steps were really counted


def _every_line_is_backed(folder, frames):
    recording = Recording.open(folder)
    done = [result for result in frames if result.prediction is not None]
    for row in range(len(recording)):
        np.testing.assert_allclose(
            recording.depth(row), done[row].prediction.depth[0, 0], rtol=1.5e-4
        )
    lines = (folder / "trajectory.tum").read_bytes().count(b"\n")
    assert len(recording) <= lines <= len(recording) + 1


def test_a_folder_that_is_no_recording_or_of_the_future_is_refused_by_name(tmp_path, write):
    with pytest.raises(InputError, match=r"is no recording: it has no recording\.json"):
        Recording.open(tmp_path)
    folder = write([]).folder
    content = json.loads((folder / "recording.json").read_text())
    (folder / "recording.json").write_text(json.dumps(content | {"format_version": 99}))
    with pytest.raises(InputError, match="version 99; this everview reads 'everview recording'"):
        Recording.open(folder)
    (folder / "recording.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        Recording.open(folder)


def test_going_on_with_other_settings_names_the_difference(manifest):
    other = copy.deepcopy(manifest)
    other["settings"]["every"] = 2
    with pytest.raises(ConfigError, match=r"settings every: 1 there, 2 now.*--resume"):
        check_same_run(manifest, other, Path("out"))
    other = copy.deepcopy(manifest)
    other["model"] |= {"fingerprint": "beef", "name": "renamed"}
    with pytest.raises(ConfigError, match="model fingerprint: 'f00d' there, 'beef' now"):
        check_same_run(manifest, other, Path("out"))
    other["model"]["fingerprint"] = "f00d"
    check_same_run(manifest, other, Path("out"))  # the same weights under another name


def test_a_folder_that_cannot_be_made_is_a_wrong_call(tmp_path, manifest):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write to .*name another with -o"):
        Recorder.create(tmp_path / "file" / "out", manifest)


def test_the_cloud_and_the_manifest_are_renewed_meanwhile(write, results, monkeypatch):
    monkeypatch.setattr(recorder, "CLOUD_SECONDS", 0.0)
    monkeypatch.setattr(recorder, "MANIFEST_SECONDS", 0.0)
    made = write(results(2))
    assert len(read_ply(made.folder / "points.ply")[0]) > 0
    assert read_manifest(made.folder)["counts"]["finished"] == 2


def test_a_disk_that_takes_half_a_line_is_full(write, results):
    made = write(results(1))

    class HalfFull(io.RawIOBase):
        def write(self, line):
            return len(line) // 2

    made._trajectory.close()
    made._trajectory = HalfFull()
    with pytest.raises(OSError, match="No space left"):
        made.write(results(2)[1])
