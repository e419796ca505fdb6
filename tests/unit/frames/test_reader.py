import gc
import http.server
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from everview.errors import ConfigError, InputError
from everview.frames import reader as reader_module
from everview.frames.folders import open_folder
from everview.frames.preprocess import preprocess
from everview.frames.reader import FrameReader, read
from everview.frames.selection import Selection

TESTS = Path(__file__).parents[2]
VIDEOS = TESTS / "data" / "videos"
OFFICE = TESTS.parent / "src" / "everview" / "assets" / "clips" / "office.mp4"

pytestmark = pytest.mark.usefixtures("no_thread_left")


def test_frames_keep_their_original_pixels_unless_told_otherwise(make_folder):
    folder = make_folder(["1.png"])
    (frame,) = read(folder)
    stored = np.asarray(Image.open(folder / "1.png"))
    np.testing.assert_array_equal((frame.image * 255).round().byte().permute(1, 2, 0), stored)
    assert frame.pixel_map is None
    assert frame.original_size == (48, 64)
    assert frame.image.is_contiguous()


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_frames_are_preprocessed_for_a_model(fit, make_folder):
    folder = make_folder(["1.png"], height=64, width=48)
    (frame,) = read(folder, model=SimpleNamespace(input_size=70, fit=fit))
    expected = preprocess(folder / "1.png", 70, fit=fit)
    assert torch.equal(frame.image, expected.image)
    assert frame.pixel_map == expected.pixel_map
    assert frame.original_size == expected.pixel_map.original_size == (64, 48)


def test_a_size_wins_over_the_models(make_folder):
    folder = make_folder(["1.png"])
    (frame,) = read(folder, model=SimpleNamespace(input_size=70), size=140)
    assert frame.image.shape == (3, 112, 140)
    with pytest.raises(ConfigError, match="multiple of 14; got 100"):
        read(folder, size=100)


def test_video_frames_equal_preprocessing_of_their_pixels():
    originals = read(OFFICE, every=20)
    for original, frame in zip(originals, read(OFFICE, every=20, size=140), strict=True):
        pixels = (original.image * 255).round().byte().permute(1, 2, 0).numpy()
        assert torch.equal(frame.image, preprocess(pixels, 140).image)
        assert frame.image.shape == (3, 98, 140)


def test_a_stretch_of_a_video_is_given_in_seconds():
    frames = list(read(OFFICE, start=1.0, end=2.0))
    assert [frames[0].timestamp, frames[-1].timestamp] == [1.017, 1.968]
    assert [frame.index for frame in frames] == list(range(frames[0].index, frames[-1].index + 1))
    thinned = list(read(OFFICE, start=1.0, end=2.0, every=4))
    assert [frame.index for frame in thinned] == [frame.index for frame in frames][::4]


def test_a_stretch_of_images_is_given_by_index(make_folder):
    folder = make_folder([f"{n}.png" for n in range(10)])
    with read(folder, start=2, end=9, every=3) as reader:
        assert reader.num_frames_hint == 3
        assert [frame.index for frame in reader] == [2, 5, 8]
    with pytest.raises(ConfigError, match="images have no time"):
        list(read(folder, fps=5.0))


def test_fps_thins_a_video_by_time():
    with read(OFFICE, fps=4.0) as reader:
        times = [frame.timestamp for frame in reader]
        assert reader.frames_per_second == 4.0
    assert 12 <= len(times) <= 16  # 4.7 s with a gap of 1.5 s
    assert len({int(seconds * 4 + 0.01) for seconds in times}) == len(times)


def test_a_stretch_that_holds_no_frame_is_a_wrong_call():
    with pytest.raises(ConfigError, match=r"no frame is left between start=100.* after 60 frames"):
        list(read(OFFICE, start=100.0))


def test_the_reader_tells_what_it_reads(make_folder):
    folder = make_folder(["1.png", "2.png"])
    with read(folder) as reader:
        assert (reader.kind, reader.source, reader.num_frames_hint) == ("images", str(folder), 2)
        assert reader.frames_per_second is None
    with read(str(OFFICE), every=2) as reader:
        assert (reader.kind, reader.source, reader.num_frames_hint) == ("video", str(OFFICE), 30)
        assert reader.frames_per_second == pytest.approx(13.034 / 2, abs=0.01)


def test_images_of_another_size_are_flagged(make_folder, tmp_path):
    folder = make_folder(["1.png", "3.png"])
    Image.new("RGB", (48, 64), (99, 99, 99)).save(folder / "2.png")
    frames = list(read(folder, size=140))
    assert [frame.flags for frame in frames] == [
        (),
        ("other size: 64x48 instead of 48x64",),
        (),
    ]
    assert frames[1].image.shape == (3, 112, 140)
    assert frames[1].original_size == (64, 48)
    assert frames[1].pixel_map is None
    assert not frames[1].usable


def test_images_of_another_original_size_are_flagged_though_the_network_would_not_notice(
    make_folder,
):
    folder = make_folder(["1.png", "3.png"])
    Image.new("RGB", (128, 96), (99, 99, 99)).save(folder / "2.png")  # the same aspect ratio
    frames = list(read(folder, size=140))
    assert [frame.flags for frame in frames] == [(), ("other size: 96x128 instead of 48x64",), ()]
    assert frames[1].image.shape == frames[0].image.shape
    assert frames[1].original_size == (96, 128)
    assert frames[1].pixel_map is None


def test_black_images_are_flagged_also_with_white_padding(make_folder):
    folder = make_folder(["1.png"])
    Image.new("RGB", (64, 48), (1, 1, 1)).save(folder / "2.png")
    for options in ({}, {"size": 70}, {"model": SimpleNamespace(input_size=70, fit="pad")}):
        assert [frame.flags for frame in read(folder, **options)] == [(), ("black",)]


def test_absent_sources_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.mp4 does not exist"):
        read(tmp_path / "nothing.mp4")
    with pytest.raises(InputError, match="the source is empty"):
        read("")
    with pytest.raises(InputError, match=r"camera 97 cannot be opened: .*write \./97"):
        read(97)
    with pytest.raises(InputError, match="camera 97 cannot be opened"):
        read("97")


def test_a_look_ahead_takes_nothing(make_folder):
    with read(make_folder(["0.png", "1.png"])) as frames:
        assert frames.peek() is frames.peek()
        assert [frame.index for frame in frames] == [0, 1]
        assert frames.peek() is None


def test_a_reader_can_be_left_at_any_time(make_folder):
    folder = make_folder([f"{n}.png" for n in range(40)])
    for num in (0, 1, 5):
        with read(folder) as reader:
            for _, _ in zip(range(num), reader, strict=False):
                pass
        assert list(reader) == []
    reader = read(OFFICE)
    next(reader)
    reader.close()
    reader.close()


def test_a_forgotten_reader_ends_its_thread():
    for frame in read(OFFICE):
        assert frame.index == 0
        break
    gc.collect()
    deadline = time.monotonic() + 5
    while any("read-ahead" in thread.name for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_exception_in_the_thread_reaches_the_consumer(make_folder, monkeypatch):
    def torn(*arguments):
        raise RuntimeError("torn")

    monkeypatch.setattr(reader_module, "preprocess", torn)
    with pytest.raises(RuntimeError, match="torn"):
        list(read(make_folder(["1.png"]), size=70))


def test_reading_runs_ahead_of_the_consumer_but_not_far(make_folder):
    source = open_folder(make_folder([f"{n:02d}.png" for n in range(40)]))
    with FrameReader(source, Selection()) as reader:
        next(reader)
        deadline = time.monotonic() + 5
        while source.num_seen < 10:  # one taken, eight ready, one in hand
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.1)
        assert source.num_seen == 10


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def address(tmp_path):
    """Address of a server on this machine that knows no byte ranges, like Python's own."""
    for path in (OFFICE, *VIDEOS.glob("*.mov"), VIDEOS / "corrupted.mp4"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    handler = partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_files_are_read_over_http_as_from_disk(address):
    with read(f"{address}/rot_90.mov", size=140) as reader:
        assert reader.kind == "url"
        for remote, local in zip(reader, read(VIDEOS / "rot_90.mov", size=140), strict=True):
            assert torch.equal(remote.image, local.image)
            assert remote.timestamp == local.timestamp


def test_a_file_whose_index_comes_last_is_read_over_http(address):
    with read(f"{address}/office.mp4", every=10) as reader:
        assert reader.num_frames_hint == 6
        assert [frame.index for frame in reader] == [0, 10, 20, 30, 40, 50]
    with read(f"{address}/corrupted.mp4", every=7) as reader:
        assert len(list(reader)) == 4
        assert reader.problems[0].startswith("decoding stopped after 28 frames")


def test_addresses_that_fail_are_told_without_their_password(address):
    with pytest.raises(InputError, match=r"absent\.mp4 cannot be opened: .*404"):
        read(f"{address}/absent.mp4")
    with pytest.raises(InputError, match=r"rtsp://127\.0\.0\.1:1/x cannot be opened: .*refused"):
        read("rtsp://user:secret@127.0.0.1:1/x")
    with pytest.raises(InputError, match=r"nosuch://x cannot be opened: Protocol not found"):
        read("nosuch://x")
    with read(f"{address.replace('//', '//user:secret@')}/rot_90.mov") as reader:
        assert reader.source == f"{address}/rot_90.mov"
