import pytest

from everview.cli.main import main
from everview.outputs.recording import Recording

SLOW = pytest.mark.slow
# what the README of the developers' data says that a reader gets
SOURCES = [
    ("videos/corrupted.mp4", 28),
    ("videos/derived_rot90.mp4", 30),
    ("videos/unordered.mov", 4),
    ("videos/rot_90.mov", 3),
    *(
        pytest.param(name, count, marks=SLOW)
        for name, count in {
            "videos/av1_testsrc.mkv": 125,
            "videos/bt709_full_range.mp4": 30,
            "videos/derived_vfr.mp4": 60,
            "videos/h264_10bit.mp4": 30,
            "videos/h265_128.mp4": 10,
            "videos/juggle_24fps.mp4": 247,
            "videos/lady_running_mpeg4.mp4": 65,
            "videos/lane_white_right.mp4": 221,
            "videos/nasa_two_video_streams.mp4": 325,
            "videos/rot_0.mov": 3,
            "videos/rot_180.mov": 3,
            "videos/rot_270.mov": 3,
            "videos/teddy_bad_header.mp4": 141,
            "hololens_office": 100,
            "kinect_kitchen": 100,
            "fox": 50,
            "kitti_street": 51,
        }.items()
    ),
]


@pytest.mark.realdata
@pytest.mark.usefixtures("small_previews")
@pytest.mark.parametrize(("name", "count"), SOURCES)
def test_real_sources_become_recordings_of_the_right_length(
    real_data, model_folder, tmp_path, capsys, name, count
):
    call = ["run", str(real_data / name), "-o", str(tmp_path / "out"), "--model", model_folder]
    assert main(call) == 0
    assert capsys.readouterr().err == ""
    recording = Recording.open(tmp_path / "out")
    assert len(recording) == count
    assert recording.info["status"] == "finished"
    is_damaged = any("decoding stopped" in flag for flag in recording.info["flags"])
    assert is_damaged == (name == "videos/corrupted.mp4")


@pytest.mark.realdata
@pytest.mark.usefixtures("small_previews")
def test_a_sideways_video_is_recorded_upright(real_data, model_folder, tmp_path):
    source = str(real_data / "videos" / "rot_90.mov")
    assert main(["run", source, "-o", str(tmp_path / "out"), "--model", model_folder]) == 0
    recording = Recording.open(tmp_path / "out")
    assert recording.info["original_size"] == [568, 320]
    assert recording.intrinsics("original")[0, 1, 2] == pytest.approx(
        284, abs=4
    )  # cut to whole patches
