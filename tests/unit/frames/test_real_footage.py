"""Every file of the developers' real sequences, against the figures in their README."""

import numpy as np
import pytest
import torch
from PIL import Image

from everview.errors import InputError
from everview.frames.reader import read
from everview.frames.selection import Selection
from everview.frames.videos import open_video

pytestmark = pytest.mark.realdata

VIDEOS = {  # name: frames, (height, width) upright
    "av1_testsrc.mkv": (125, (360, 640)),
    "bt709_full_range.mp4": (30, (720, 1280)),
    "corrupted.mp4": (28, (720, 1280)),
    "derived_rot90.mp4": (30, (360, 540)),
    "derived_vfr.mp4": (60, (360, 540)),
    "h264_10bit.mp4": (30, (200, 200)),
    "h265_128.mp4": (10, (128, 128)),
    "juggle_24fps.mp4": (247, (720, 1280)),
    "lady_running_mpeg4.mp4": (65, (480, 854)),
    "lane_white_right.mp4": (221, (540, 960)),
    "nasa_two_video_streams.mp4": (325, (180, 320)),
    "rot_0.mov": (3, (320, 568)),
    "rot_90.mov": (3, (568, 320)),
    "rot_180.mov": (3, (320, 568)),
    "rot_270.mov": (3, (568, 320)),
    "teddy_bad_header.mp4": (141, (480, 368)),
    "unordered.mov": (4, (50, 50)),
}
PROBLEMS = {"corrupted.mp4": "stopped after 28", "nasa_two_video_streams.mp4": "2 video streams"}
FOLDERS = {
    "fox": (50, (960, 540)),
    "hololens_office": (100, (360, 540)),
    "kinect_kitchen": (100, (480, 640)),
    "kitti_street": (51, (370, 1226)),
}


def test_the_survey_leaves_no_video_out(real_data):
    present = {path.name for path in (real_data / "videos").iterdir() if path.suffix != ".txt"}
    assert present == set(VIDEOS)


@pytest.mark.parametrize("name", VIDEOS)
def test_videos_give_the_frames_that_their_readme_counts(name, real_data):
    num_frames, size = VIDEOS[name]
    video = open_video(real_data / "videos" / name)
    pictures = list(video.raw_frames(Selection(every=60)))
    video.close()
    assert video.num_seen == num_frames
    assert pictures[0].pixels.shape == (*size, 3)
    assert not any(picture.problem for picture in pictures)
    if name in PROBLEMS:
        assert PROBLEMS[name] in video.problems[0]
    else:
        assert video.problems == []


@pytest.mark.parametrize("name", VIDEOS)
def test_videos_are_read_for_a_network(name, real_data):
    _, size = VIDEOS[name]
    with read(real_data / "videos" / name, size=140, every=40) as reader:
        for frame in reader:
            assert frame.usable
            assert frame.original_size == size
            assert frame.image.shape[2] == 140


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_are_read_for_a_network(name, real_data):
    num_frames, size = FOLDERS[name]
    with read(real_data / name, size=140, every=10) as reader:
        frames = list(reader)
        assert reader.problems == []
    assert len(frames) == -(-num_frames // 10)
    assert {frame.original_size for frame in frames} == {size}
    assert all(frame.usable for frame in frames)
    names = [path.name for path in (real_data / name / "images").iterdir()]
    assert [frame.name for frame in frames] == sorted(names)[::10]


def test_the_second_stream_can_be_chosen(real_data):
    path = real_data / "videos" / "nasa_two_video_streams.mp4"
    for stream in (1, 3):
        video = open_video(path, stream=stream)
        (first, *_) = video.raw_frames(Selection(every=60))
        video.close()
        assert (first.pixels.shape, video.num_seen) == ((270, 480, 3), 390)


def test_variable_rate_matches_the_truth_file(real_data):
    truth = (real_data / "videos" / "derived_vfr_timestamps_ms.txt").read_text().split()
    frames = read(real_data / "videos" / "derived_vfr.mp4", size=14)
    assert [round(frame.timestamp * 1000, 6) for frame in frames] == [int(ms) for ms in truth]


def test_turned_videos_show_the_source_upright(real_data):
    images = sorted((real_data / "hololens_office" / "images").iterdir())
    for frame in read(real_data / "videos" / "derived_rot90.mp4", every=10):
        source = torch.from_numpy(np.array(Image.open(images[frame.index]))).permute(2, 0, 1)
        assert (frame.image * 255 - source).abs().mean() < 2.5
    upright = next(iter(read(real_data / "videos" / "rot_0.mov"))).image
    around = next(iter(read(real_data / "videos" / "rot_180.mov"))).image
    assert around.shape == upright.shape


def test_the_folder_of_videos_is_no_image_folder(real_data):
    with pytest.raises(InputError, match="holds no images"):
        read(real_data / "videos")
