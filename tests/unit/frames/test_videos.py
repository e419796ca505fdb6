import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from everview.errors import ConfigError, InputError
from everview.frames import videos
from everview.frames.reader import read

TESTS = Path(__file__).parents[2]
VIDEOS = TESTS / "data" / "videos"
OFFICE = TESTS.parent / "src" / "everview" / "assets" / "clips" / "office.mp4"

pytestmark = pytest.mark.usefixtures("no_thread_left")


def numbers_in(frames) -> list[int]:
    """The numbers that the pictures of `make_video` tell."""
    return [round((float(f.image[:, 4:-4, 4:28].mean()) * 255 - 40) / 5) for f in frames]


@pytest.mark.parametrize("folder", [VIDEOS, OFFICE.parent], ids=["tests", "package"])
def test_clips_of_others_lie_beside_their_licence(folder):
    notice = (folder / "NOTICE").read_text()
    clips = [path for path in folder.iterdir() if path.suffix in (".mp4", ".mov", ".mkv")]
    assert clips
    assert all(clip.name in notice for clip in clips)
    assert "Copyright" in notice
    assert sum(clip.stat().st_size for clip in clips) < 2_000_000


def test_true_time_stamps_of_the_bundled_clip():
    truth = (VIDEOS / "office_timestamps_ms.txt").read_text().split()
    with read(OFFICE) as reader:
        assert reader.num_frames_hint == 60
        frames = list(reader)
        assert reader.problems == []
    assert [round(frame.timestamp * 1000, 6) for frame in frames] == [int(ms) for ms in truth]
    assert [frame.index for frame in frames] == list(range(60))
    assert frames[7].name == "office.mp4#7"


@pytest.mark.parametrize("name", ["even.mp4", "even.mkv", "even.mov", "even.ts"])
def test_containers_give_every_frame_in_order(name, make_video):
    path = make_video(name, times=[40 * n for n in range(12)])
    frames = list(read(path))
    assert numbers_in(frames) == list(range(12))
    steps = np.diff([frame.timestamp for frame in frames])
    np.testing.assert_allclose(steps, 0.04, atol=1e-6)


@pytest.mark.parametrize(("codec", "num_problems"), [("libx264", 1), ("mpeg4", 0)])
def test_time_rises_even_in_containers_that_cannot_tell(codec, num_problems, make_video):
    times = [40 * n for n in range(12)]
    path = make_video("old.avi", times=times, codec=codec, time_base=Fraction(1, 25))
    with read(path) as reader:
        frames = list(reader)
        assert len(reader.problems) == num_problems  # AVI knows no order of presentation
    assert numbers_in(frames) == list(range(12))
    steps = np.diff([frame.timestamp for frame in frames])
    assert steps.min() > 0.039
    assert steps.max() < 0.081


@pytest.mark.parametrize("name", ["uneven.mp4", "uneven.mkv"])
def test_variable_rate_is_exact(name, make_video):
    times = [0, 33, 100, 101, 350, 2000, 2040]
    frames = list(read(make_video(name, times=times)))
    assert [round(frame.timestamp * 1000, 3) for frame in frames] == times
    assert numbers_in(frames) == list(range(7))


def test_packets_out_of_order_come_in_order_of_presentation(make_video):
    path = make_video("b_frames.mkv", times=[40 * n for n in range(12)], options={"bf": "3"})
    with av.open(str(path)) as container:
        stamps = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
    assert stamps != sorted(stamps)
    assert numbers_in(read(path)) == list(range(12))
    assert [f.timestamp for f in read(VIDEOS / "unordered.mov")] == [0, 0.03125, 0.0625, 0.09375]


@pytest.mark.parametrize(("name", "quarters"), [("rot_90.mov", -1), ("rot_270.mov", 1)])
def test_rotated_videos_come_upright(name, quarters):
    with av.open(str(VIDEOS / name)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    frames = list(read(VIDEOS / name))
    assert len(frames) == 3
    assert frames[0].original_size == (568, 320)
    upright = torch.from_numpy(np.rot90(stored, quarters).copy()).permute(2, 0, 1) / 255
    assert (frames[0].image - upright).abs().mean() < 0.01
    (frame, *_) = read(VIDEOS / name, size=140)
    assert frame.pixel_map.original_size == (568, 320)


YUV_FORMATS = [  # pixel format, bits, full range?, colour space (1: BT.709, 5: BT.601)
    ("yuv444p", 8, False, 5),
    ("yuv444p", 8, False, 1),
    ("yuv444p", 8, True, 1),
    ("yuv444p10le", 10, False, 1),
    ("yuv444p10le", 10, True, 5),
    ("yuv420p10le", 10, False, 5),
]


@pytest.mark.parametrize(("pixel_format", "bits", "is_full", "space"), YUV_FORMATS)
def test_colours_are_right(pixel_format, bits, is_full, space, tmp_path):
    path = tmp_path / "colours.mkv"
    colours = np.array([[255, 0, 0], [0, 128, 0], [20, 40, 220], [128, 128, 128], [255, 255, 255]])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = pixel_format
        stream.codec_context.color_range = 2 if is_full else 1
        stream.codec_context.colorspace = space
        for colour in colours:
            frame = av.VideoFrame(32, 32, pixel_format)
            for plane, level in zip(
                frame.planes, yuv_from_rgb(colour, bits, is_full, space), strict=True
            ):
                samples = plane.buffer_size // (1 if bits == 8 else 2)
                plane.update(np.full(samples, level, np.uint8 if bits == 8 else np.uint16))
            frame.color_range, frame.colorspace = (2 if is_full else 1), space
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    shown = torch.stack([frame.image.mean(dim=(1, 2)) for frame in read(path)]) * 255
    np.testing.assert_allclose(shown.numpy(), colours, atol=1.6)


def yuv_from_rgb(colour: np.ndarray, bits: int, is_full: bool, space: int) -> list[int]:
    """ITU-R BT.709 or BT.601: luma and two colour differences, in studio or full range."""
    red, blue = (0.2126, 0.0722) if space == 1 else (0.299, 0.114)
    r, g, b = colour / 255
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    top = 2**bits - 1
    unit = 2 ** (bits - 8)
    if is_full:
        return [round(y * top), *(min(top, round(c * top + 128 * unit)) for c in (u, v))]
    return [round((16 + 219 * y) * unit), *(round((128 + 224 * c) * unit) for c in (u, v))]


def test_real_10_bit_and_av1_clips_are_read():
    ten_bit = list(read(VIDEOS / "h264_10bit.mp4"))
    assert len(ten_bit) == 30
    assert ten_bit[0].image.shape == (3, 200, 200)
    assert 0.1 < float(ten_bit[0].image.mean()) < 0.9
    with read(VIDEOS / "av1_testsrc.mkv", every=5) as reader:
        assert reader.num_frames_hint == 25
        assert len(list(reader)) == 25


def test_a_damaged_video_is_played_up_to_the_break_and_reported():
    with read(VIDEOS / "corrupted.mp4") as reader:
        frames = list(reader)
        assert len(frames) == 28
        assert all(frame.usable for frame in frames)
        assert reader.num_frames_hint == 50
        (problem,) = reader.problems
    assert problem.startswith("decoding stopped after 28 frames: InvalidDataError")


def test_a_camera_goes_on_after_damage(monkeypatch):
    device = str(VIDEOS / "corrupted.mp4")  # stands for a camera whose cable is loose
    monkeypatch.setattr(videos, "_camera_device", lambda number: (device, None))
    with read("0", every=10) as reader:
        assert (reader.kind, reader.source) == ("camera", "camera 0")
        frames = list(reader)
        assert frames[-1].index > 28
        assert reader.problems == ["damaged packets were skipped (InvalidDataError)"]


@pytest.mark.parametrize("name", ["cut.mkv", "cut.mp4"])
def test_a_video_that_was_cut_off_is_played_and_reported(name, make_video):
    options = {"movflags": "faststart"} if name.endswith("mp4") else None
    path = make_video("whole" + name[-4:], times=[40 * n for n in range(100)], options={"g": "10"})
    data = path.read_bytes()
    if options:
        data = with_index_first(path)
    cut = path.with_name(name)
    cut.write_bytes(data[: int(len(data) * 0.6)])
    with read(cut) as reader:
        frames = list(reader)
        assert 20 < len(frames) < 80
        assert numbers_in(frames)[:20] == list(range(20))
        assert len(reader.problems) == 1
    assert "ends early" in reader.problems[0] or "stopped after" in reader.problems[0]


def with_index_first(path: Path) -> bytes:
    """The same video, remuxed so that its index stands before the pictures."""
    target = path.with_name("faststart.mp4")
    with (
        av.open(str(path)) as source,
        av.open(str(target), "w", options={"movflags": "faststart"}) as container,
    ):
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    return target.read_bytes()


def test_a_transport_stream_that_was_cut_off_is_played(make_video):
    path = make_video("whole.ts", times=[40 * n for n in range(50)])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    frames = list(read(path))
    assert 10 < len(frames) < 50
    assert [n for n, f in zip(numbers_in(frames), frames, strict=True) if f.usable][:10] == list(
        range(10)
    )


def test_a_video_without_its_index_cannot_be_read(make_video):
    path = make_video("whole.mp4")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov")])
    with pytest.raises(InputError, match=r"whole\.mp4 cannot be read .*cut off"):
        read(path)


def test_a_video_without_a_single_frame_is_an_error(make_video):
    path = make_video("whole.mkv", times=[40 * n for n in range(50)])
    data = path.read_bytes()
    first_cluster = data.index(b"\x1f\x43\xb6\x75")
    path.write_bytes(data[: first_cluster + 40])
    with pytest.raises(InputError, match=r"whole\.mkv"):
        list(read(path))


def write_two_streams(path: Path) -> None:
    """Video 64x48, sound, video 96x48."""
    with av.open(str(path), "w") as container:
        small = container.add_stream("libx264", rate=25)
        sound = container.add_stream("aac", rate=44100, layout="mono")
        large = container.add_stream("libx264", rate=25)
        for stream, width in ((small, 64), (large, 96)):
            stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate, silence.pts, silence.time_base = 44100, 0, Fraction(1, 44100)
        container.mux(sound.encode(silence))
        for number, stream in itertools.product(range(4), (small, large)):
            pixels = np.full((48, stream.width, 3), 99, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        for stream in (small, sound, large):
            container.mux(stream.encode())


def test_one_of_several_streams_is_chosen_on_purpose(tmp_path):
    path = tmp_path / "two.mkv"
    write_two_streams(path)
    with read(path) as reader:
        assert next(reader).original_size == (48, 64)
        assert "2 video streams, the first is read" in reader.problems[0]
        assert "1: 96x48 h264 (number 2 in the file)" in reader.problems[0]
    for stream in (1, 2):  # the second video stream, by its place and by its number in the file
        with read(path, stream=stream) as reader:
            assert next(reader).original_size == (48, 96)
            assert reader.problems == []
    with pytest.raises(ConfigError, match=r"no video stream 3; give one of 0: 64x48 .*1: 96x48"):
        read(path, stream=3)


def test_text_and_sound_are_no_video(tmp_path):
    (tmp_path / "notes.txt").write_text("hello\n" * 100)
    with pytest.raises(InputError, match=r"notes\.txt holds no video stream"):
        read(tmp_path / "notes.txt")
    (tmp_path / "data.bin").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(InputError, match=r"data\.bin holds no video stream"):
        read(tmp_path / "data.bin")
    (tmp_path / "data.raw").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(InputError, match=r"data\.raw"):
        list(read(tmp_path / "data.raw"))
    with av.open(str(tmp_path / "song.m4a"), "w") as container:
        sound = container.add_stream("aac", rate=44100, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate, silence.pts, silence.time_base = 44100, 0, Fraction(1, 44100)
        container.mux(sound.encode(silence))
        container.mux(sound.encode())
    with pytest.raises(InputError, match=r"song\.m4a holds no video stream"):
        read(tmp_path / "song.m4a")


def test_black_frames_are_flagged(make_video):
    pictures = [np.full((48, 64, 3), level, np.uint8) for level in (0, 1, 90, 0)]
    pictures[3][20:30, 20:30] = 255  # dark, but there is something to see
    flags = [frame.flags for frame in read(make_video("fade.mkv", pictures))]
    assert flags == [("black",), ("black",), (), ()]
    flags = [f.flags for f in read(make_video("fade.mkv", pictures), size=140)]
    assert flags == [("black",), ("black",), (), ()]


def test_a_change_of_size_within_a_video_is_flagged(make_video):
    small = make_video("small.ts", [np.full((48, 64, 3), 90, np.uint8)] * 5)
    large = make_video("large.ts", [np.full((96, 64, 3), 90, np.uint8)] * 5)
    joined = small.with_name("joined.ts")
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    frames = list(read(joined))
    sizes = [frame.original_size for frame in frames if frame.usable]
    assert sizes == [(48, 64)] * 5
    other = [frame for frame in frames if not frame.usable]
    assert other
    assert all(frame.flags == ("other size: 96x64 instead of 48x64",) for frame in other)
    assert all(frame.image.shape == (3, 48, 64) for frame in other)
    assert not any(frame.image.any() for frame in other)


def test_a_stream_without_time_stamps_gets_the_rate_that_it_claims(make_video):
    path = make_video("bare.h264", times=[40 * n for n in range(10)], options={"bf": "0"})
    with read(path) as reader:
        frames = list(reader)
        assert len(frames) == 10
        assert np.all(np.diff([frame.timestamp for frame in frames]) > 0)
