import copy

import av
import numpy as np
import pytest
from PIL import Image

from everview.outputs import preview
from everview.outputs.colormap import MISSING, colour_depth, inferno
from everview.outputs.preview import depth_range, write_preview
from everview.outputs.recorder import Recorder
from everview.outputs.recording import Recording
from everview.outputs.topview import PATH_COLOUR, TopView, _round_length


@pytest.fixture
def recording(tmp_path, manifest, results):
    made = Recorder.create(tmp_path / "out", copy.deepcopy(manifest))
    for result in results(7):
        made.write(result)
    made.close()
    return Recording.open(made.folder)


def _frames(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_the_video_shows_every_frame_input_beside_depth_beside_path(recording):
    assert write_preview(recording) == [
        recording.folder / "preview.mp4", recording.folder / "preview.png",
    ]  # fmt: skip
    frames = _frames(recording.folder / "preview.mp4")
    assert len(frames) == 7
    height, width = frames[0].shape[:2]
    assert width % 2 == height % 2 == 0
    size = (preview.MAX_PANEL_HEIGHT * 42 // 28, preview.MAX_PANEL_HEIGHT)
    shown = frames[3][preview.TITLE :, preview.GAP :][: size[1], : size[0]]
    original = Image.fromarray(recording.colour(3)).resize(size, Image.Resampling.BICUBIC)
    assert np.abs(shown - np.asarray(original, np.float64)).mean() < 12  # after compression
    with av.open(str(recording.folder / "preview.mp4")) as container:
        assert container.streams.video[0].average_rate == 10  # time stamps are 0.1 s apart


def test_the_sheet_shows_first_and_last_frame(recording):
    write_preview(recording)
    sheet = Image.open(recording.folder / "preview.png")
    painter = preview.PreviewPainter(recording)
    first, last = painter.paint(0), painter.paint(6)
    assert sheet.size == (first.width, 5 * first.height)
    np.testing.assert_array_equal(sheet.crop((0, 0, *first.size)), first)
    np.testing.assert_array_equal(
        sheet.crop((0, 4 * first.height, first.width, 5 * first.height)), last
    )


def test_a_long_recording_becomes_a_time_lapse(recording, monkeypatch):
    monkeypatch.setattr(preview, "MAX_FRAMES", 3)
    write_preview(recording)
    assert len(_frames(recording.folder / "preview.mp4")) == 3


def test_without_frames_there_is_no_preview(tmp_path, manifest):
    made = Recorder.create(tmp_path / "empty", manifest)
    made.close()
    assert write_preview(Recording.open(made.folder)) == []


def test_the_depth_range_holds_most_depths(recording):
    near, far = depth_range(recording)
    depths = np.stack([recording.depth(row) for row in range(len(recording))])
    assert np.mean((depths >= near) & (depths <= far)) > 0.9


def test_near_is_bright_far_is_dark_and_nothing_is_grey():
    depth = np.array([[1.0, 2.0, 4.0, np.nan, 0.5]], np.float32)
    colours = colour_depth(depth, near=1.0, far=4.0)[0].astype(int)
    brightness = colours.sum(axis=-1)
    assert brightness[0] > brightness[1] > brightness[2]
    assert colours[3].tolist() == MISSING.tolist()
    assert colours[4].tolist() == colours[0].tolist()  # clamped


def test_the_colours_are_those_of_inferno():
    known = {0.0: (0, 0, 4), 0.25: (87, 16, 110), 0.5: (188, 55, 84), 1.0: (252, 255, 164)}
    for value, colour in known.items():
        np.testing.assert_allclose(inferno(np.array([value]))[0], colour, atol=7)


def test_the_path_from_above_goes_right_with_x_and_up_with_z():
    poses = np.tile(np.eye(4), (11, 1, 1))
    poses[:, 0, 3] = np.linspace(0, 1, 11)  # to the right
    nothing = np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8)
    panel = np.asarray(TopView(poses, *nothing, size=200).draw(11))
    rows, columns = np.nonzero((panel == PATH_COLOUR).all(axis=-1))
    assert np.ptp(columns) > 100 > 10 > np.ptp(rows)
    poses[:, :3, 3] = [0, 0, 1] * np.linspace(0, 1, 11)[:, None]  # ahead
    view = TopView(poses, *nothing, size=200)
    half = np.nonzero((np.asarray(view.draw(6)) == PATH_COLOUR).all(axis=-1))
    full = np.nonzero((np.asarray(view.draw(11)) == PATH_COLOUR).all(axis=-1))
    assert np.ptp(full[0]) > 1.8 * np.ptp(half[0])
    assert full[0].min() < half[0].min()  # up


def test_the_cloud_is_seen_from_above_in_its_colours():
    points = np.array([[0.0, 5.0, 1.0], [1.0, -5.0, 0.0]], np.float32)
    colours = np.array([[255, 0, 0], [0, 255, 0]], np.uint8)
    view = TopView(np.eye(4)[None], points, colours, size=100, voxel_size=0.1)
    panel = np.asarray(view.draw(1)).astype(int)
    red = np.argwhere((panel[..., 0] > 100) & (panel[..., 1] < 60))
    green = np.argwhere((panel[..., 1] > 100) & (panel[..., 0] < 60))
    assert len(red) > 1  # a voxel covers several pixels
    assert red[:, 0].mean() < green[:, 0].mean()  # farther ahead is further up
    assert red[:, 1].mean() < green[:, 1].mean()  # less x is further left


def test_a_camera_that_stands_still_or_is_lost_can_be_drawn():
    nothing = np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8)
    for poses in (np.eye(4)[None], np.tile(np.eye(4), (3, 1, 1))):
        TopView(poses, *nothing, size=64).draw(1)


@pytest.mark.parametrize(("length", "expected"), [(1, 1), (0.99, 0.5), (4.2, 2), (730, 500)])
def test_scale_bars_have_round_lengths(length, expected):
    assert _round_length(length) == pytest.approx(expected)
