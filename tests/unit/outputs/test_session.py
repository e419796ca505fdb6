import errno
import time

import numpy as np
import pytest
import torch
from PIL import Image

from everview.errors import ConfigError, InputError, NotEnoughMemoryError
from everview.frames.reader import FrameReader
from everview.outputs import preview, session
from everview.outputs.entries import read_entries
from everview.outputs.recorder import Recorder
from everview.outputs.recording import Recording
from everview.outputs.session import check_folder, record
from everview.pipeline.config import RunConfig


@pytest.fixture(autouse=True)
def _small_previews(monkeypatch):
    monkeypatch.setattr(preview, "MAX_PANEL_HEIGHT", 48)


@pytest.fixture
def run(network, image_folder, tmp_path, observer):
    def run(
        name="out", *, net=network, source=image_folder, resume=False, planner=None, **settings
    ):
        return record(
            net, str(source), tmp_path / name, RunConfig(**settings),
            observer=observer, resume=resume, planner=planner,
        )  # fmt: skip

    return run


def _numbers(folder):
    recording = Recording.open(folder)
    poses = [(entry.index, entry.row, entry.pose_encoding) for entry in recording.entries]
    depth = [recording.depth(row) for row in range(len(recording))]
    return poses, np.stack(depth), (folder / "points.ply").read_bytes()


def _assert_same(folder, other):
    (a, b, c), (d, e, f) = _numbers(folder), _numbers(other)
    assert a == d
    np.testing.assert_array_equal(b, e)
    assert c == f


def _interrupt_at(monkeypatch, network, number, error=KeyboardInterrupt):
    """The network is stopped when it is given its n-th frame."""
    kind = type(network.stream())
    step = kind.step

    def interrupted(self, frame):
        if self.num_frames == number:
            raise error
        return step(self, frame)

    monkeypatch.setattr(kind, "step", interrupted)


def test_a_folder_becomes_a_recording_and_bad_frames_are_skipped_with_a_reason(run, tmp_path):
    outcome = run()
    assert (outcome.status, outcome.num_finished, outcome.num_skipped) == ("finished", 8, 2)
    recording = Recording.open(tmp_path / "out")
    flags = {entry.index: entry.flags for entry in recording.entries if entry.row is None}
    assert flags[4] == ("black",)
    assert flags[6][0].startswith("corrupt")
    assert recording.info["counts"]["skipped_by_reason"] == {"black": 1, "corrupt": 1}
    assert recording.info["status"] == "finished"
    assert recording.info["settings"]["size"] == 42
    assert recording.info["source"]["kind"] == "images"
    assert len(recording.info["model"]["fingerprint"]) == 64
    assert (tmp_path / "out" / "preview.mp4").exists()


def test_ctrl_c_finishes_all_files_and_resume_gives_the_same_numbers(
    run, tmp_path, network, monkeypatch, observer
):
    run("whole")
    with monkeypatch.context() as patch:
        _interrupt_at(patch, network, 5)
        assert run().status == "stopped"
    info = Recording.open(tmp_path / "out").info
    assert (info["status"], info["reason"]) == ("stopped", "by the user")
    assert (tmp_path / "out" / "preview.mp4").exists()
    assert not (tmp_path / "out" / "tail").exists()
    outcome = run(resume=True)
    assert (outcome.status, outcome.num_finished) == ("finished", 8)
    _assert_same(tmp_path / "out", tmp_path / "whole")


@pytest.mark.parametrize("stop", [3, 4, 7])
def test_resume_goes_on_from_the_saved_state(run, tmp_path, network, monkeypatch, stop):
    run("whole")
    steps = []
    with monkeypatch.context() as patch:
        _interrupt_at(patch, network, stop, error=RuntimeError("power cut"))
        with pytest.raises(RuntimeError, match="power cut"):
            run(checkpoint_every=2)
    assert Recording.open(tmp_path / "out").info["status"] == "failed"
    kind = type(network.stream())
    step = kind.step
    monkeypatch.setattr(kind, "step", lambda *a: steps.append(0) or step(*a))
    run(resume=True)
    assert len(steps) == 8 - stop // 2 * 2  # only what came after the last state
    _assert_same(tmp_path / "out", tmp_path / "whole")


def test_a_state_is_saved_only_when_its_frames_are_recorded(run, tmp_path, network, monkeypatch):
    stream, write, saved = type(network.stream()), Recorder.write, []

    def slow(self, result):
        time.sleep(0.03)
        write(self, result)

    def watched(self, path):
        lines = read_entries(tmp_path / "out" / "frames.jsonl")
        saved.append((self.num_frames, sum(entry.row is not None for entry, _ in lines)))

    monkeypatch.setattr(Recorder, "write", slow)
    monkeypatch.setattr(stream, "save", watched)
    run(checkpoint_every=3)
    assert saved == [(3, 3), (6, 6), (8, 8)]


def test_a_state_that_is_ahead_of_the_recording_is_not_used(run, tmp_path, network, monkeypatch):
    run("whole")
    with monkeypatch.context() as patch:
        _interrupt_at(patch, network, 3)
        run()
    ahead = type(network.stream())(past=99.0, num_frames=4)
    ahead.save(tmp_path / "out" / "state.safetensors")
    run(resume=True)
    _assert_same(tmp_path / "out", tmp_path / "whole")


def test_stopping_saves_the_state_too_when_states_are_wanted(run, tmp_path, network, monkeypatch):
    _interrupt_at(monkeypatch, network, 5)
    run(checkpoint_every=100)
    assert network.resume(tmp_path / "out" / "state.safetensors").num_frames == 5


def test_resuming_a_finished_recording_changes_nothing(run, tmp_path, observer):
    run()
    before = (tmp_path / "out" / "frames.jsonl").read_bytes()
    (tmp_path / "out" / "preview.mp4").unlink()
    outcome = run(resume=True)
    assert (outcome.num_finished, outcome.num_skipped) == (8, 2)
    assert (tmp_path / "out" / "frames.jsonl").read_bytes() == before
    assert observer.new == 10
    assert (tmp_path / "out" / "preview.mp4").exists()  # as after a kill before it was made


def test_resume_without_a_recording_begins_one(run, tmp_path):
    assert run(resume=True).num_finished == 8


def test_a_folder_that_is_not_empty_is_left_alone(run, tmp_path):
    run()
    with pytest.raises(ConfigError, match="not empty; add --resume to go on with it, or name"):
        run()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="other is not empty; name a new folder with -o"):
        check_folder(tmp_path / "other", resume=False)
    with pytest.raises(ConfigError, match="holds no recording to --resume"):
        check_folder(tmp_path / "other", resume=True)
    with pytest.raises(ConfigError, match="is a file"):
        check_folder(tmp_path / "other" / "letter.txt", resume=False)


def test_a_folder_with_nothing_but_an_unfinished_manifest_is_as_good_as_empty(tmp_path):
    (tmp_path / "recording.partial.json").write_text("{")
    assert check_folder(tmp_path, resume=False)


def test_a_live_source_cannot_be_gone_on_with(run, monkeypatch):
    run()
    monkeypatch.setattr(FrameReader, "kind", "camera", raising=False)
    real = FrameReader.__init__

    def live(self, *arguments, **keywords):
        real(self, *arguments, **keywords)
        self.kind, self.num_frames_hint = "camera", None

    monkeypatch.setattr(FrameReader, "__init__", live)
    with pytest.raises(ConfigError, match="is live and cannot be gone on with"):
        run(resume=True)


def test_resume_with_other_settings_model_or_source_is_refused(
    run, network, monkeypatch, tmp_path, make_network, image_folder
):
    with monkeypatch.context() as patch:
        _interrupt_at(patch, network, 3)
        run()
    with pytest.raises(ConfigError, match="settings every: 1 there, 2 now"):
        run(resume=True, every=2)
    other = make_network()
    other.weight.data += 1
    with pytest.raises(ConfigError, match="model fingerprint"):
        run(resume=True, net=other)
    with pytest.raises(ConfigError, match="source path"):
        run(resume=True, source=f"{image_folder}/*.png")


def test_a_source_that_has_changed_is_noticed(run, network, monkeypatch, image_folder):
    with monkeypatch.context() as patch:
        _interrupt_at(patch, network, 6)
        run()
    (image_folder / "1.png").write_bytes(b"gone")
    with pytest.raises(InputError, match=r"where it had frame 1, there is now frame 1 \(skipped\)"):
        run(resume=True)


def test_a_source_whose_pictures_have_another_size_now_is_noticed(
    run, network, monkeypatch, image_folder
):
    with monkeypatch.context() as patch:
        _interrupt_at(patch, network, 6)
        run()
    for path in image_folder.glob("[!6].png"):  # 6 is no image
        Image.open(path).resize((120, 80)).save(path)
    with pytest.raises(InputError, match=r"80x120 .*began with 40x60; record anew"):
        run(resume=True)


def test_a_source_that_has_become_shorter_is_noticed(run, network, monkeypatch, image_folder):
    with monkeypatch.context() as patch:
        _interrupt_at(patch, network, 6)
        run()
    for number in range(5, 10):
        (image_folder / f"{number}.png").unlink()
    with pytest.raises(InputError, match="it now ends before frame 5"):
        run(resume=True)


def test_a_plan_sees_the_size_of_a_source_that_is_opened_once(run, monkeypatch):
    opened, seen = [], []
    read = session.read
    monkeypatch.setattr(session, "read", lambda *a, **k: opened.append(a) or read(*a, **k))

    def planner(size, num_frames):
        seen.append((size, num_frames))
        return RunConfig(memory="full")

    assert run(planner=planner).num_finished == 8
    assert seen == [((28, 42), 10)]
    assert len(opened) == 1


def test_too_little_memory_is_told_before_anything_is_written(run, tmp_path):
    # ten frames hinted, storage for sixteen; 1000 bytes each
    with pytest.raises(NotEnoughMemoryError, match="enough for 8 frames of this size"):
        run(memory_limit=15_999)
    assert not (tmp_path / "out").exists()
    assert run(memory_limit=16_000).num_finished == 8


def test_a_limit_that_is_reached_ends_the_run_with_everything_saved(
    run, tmp_path, network, monkeypatch
):
    monkeypatch.setattr(
        "everview.pipeline.run.MemoryGuard._check_forecast", lambda *arguments: None
    )
    with pytest.raises(NotEnoughMemoryError, match="all frames so far are saved"):
        run(memory_limit=4500)
    recording = Recording.open(tmp_path / "out")
    assert len(recording) == 5
    assert recording.info["status"] == "failed"
    assert (tmp_path / "out" / "preview.mp4").exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "not enough memory .*; all finished frames are saved"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "not enough memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
    ],
)
def test_running_out_of_memory_or_disk_has_one_name(
    run, network, monkeypatch, tmp_path, error, message
):
    _interrupt_at(monkeypatch, network, 2, error=error)
    with pytest.raises(NotEnoughMemoryError, match=message):
        run()
    assert len(Recording.open(tmp_path / "out")) == 2


MEMORY_ERRORS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("MPS backend out of memory"),
]


@pytest.mark.parametrize("error", MEMORY_ERRORS)
def test_too_little_memory_for_the_first_frame_writes_nothing(
    run, network, monkeypatch, tmp_path, error
):
    _interrupt_at(monkeypatch, network, 0, error=error)
    with pytest.raises(NotEnoughMemoryError, match=r"memory for the first frame.*--size"):
        run()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", MEMORY_ERRORS)
def test_too_little_memory_for_all_frames_at_once_says_that_it_may_go_one_by_one(
    run, make_network, monkeypatch, tmp_path, error
):
    network = make_network()

    def greedy(frames):
        raise error

    monkeypatch.setattr(network, "forward", greedy)
    with pytest.raises(NotEnoughMemoryError, match=r"memory for all frames at once.*--batch"):
        run(net=network, batch=True)
    assert not (tmp_path / "out").exists()


def test_too_little_memory_for_the_saved_state_has_the_same_name(run, network, monkeypatch):
    with monkeypatch.context() as patch:
        _interrupt_at(patch, network, 3)
        run(checkpoint_every=2)

    def greedy(path):
        raise MemoryError

    monkeypatch.setattr(network, "resume", greedy)
    with pytest.raises(NotEnoughMemoryError, match="not enough memory"):
        run(resume=True)


def test_other_errors_of_the_first_frame_keep_their_name(run, network, monkeypatch):
    _interrupt_at(monkeypatch, network, 0, error=RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        run()


@pytest.fixture
def night(tmp_path):
    """Four black images, then what the test adds."""
    folder = tmp_path / "night"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (60, 40)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("batch", [False, True])
def test_a_source_with_nothing_but_black_frames_ends_with_an_input_error(
    run, night, tmp_path, batch
):
    with pytest.raises(InputError, match=r"none of 4 frames is usable: black \(0\.png\)"):
        run(source=night, batch=batch)
    assert not (tmp_path / "out").exists()


def test_a_long_night_is_recorded_as_it_passes_and_still_ends_with_an_input_error(
    run, night, tmp_path, monkeypatch
):
    monkeypatch.setattr(session, "LOOK_AHEAD", 2)
    with pytest.raises(InputError, match="none of 4 frames is usable"):
        run(source=night, checkpoint_every=1)
    info = Recording.open(tmp_path / "out").info
    assert info["counts"]["skipped_by_reason"] == {"black": 4}
    assert (info["status"], "none of 4 frames" in info["reason"]) == ("failed", True)


@pytest.mark.parametrize("look_ahead", [2, 100])
@pytest.mark.parametrize("batch", [False, True])
def test_one_usable_frame_after_a_night_is_enough(
    run, night, image_folder, tmp_path, monkeypatch, look_ahead, batch
):
    monkeypatch.setattr(session, "LOOK_AHEAD", look_ahead)
    (image_folder / "0.png").rename(night / "9.png")
    outcome = run(source=night, batch=batch)
    assert (outcome.num_finished, outcome.num_skipped) == (1, 4)
    assert [entry.row for entry in Recording.open(tmp_path / "out").entries] == [None] * 4 + [0]


def test_an_error_of_the_writer_ends_the_run(run, monkeypatch):
    write = Recorder.write

    def failing(self, result):
        if self.num_rows == 2:
            raise OSError(errno.EIO, "cable pulled")
        write(self, result)

    monkeypatch.setattr(Recorder, "write", failing)
    with pytest.raises(OSError, match="cable pulled"):
        run()


def test_all_frames_at_once_give_a_recording_too(run, tmp_path, make_network):
    outcome = run(net=make_network("global"), batch=True)
    assert (outcome.num_finished, outcome.num_skipped) == (8, 2)
    assert [entry.row for entry in Recording.open(tmp_path / "out").entries][3:8] == [
        3, None, 4, None, 5,
    ]  # fmt: skip


def test_a_global_network_cannot_stream_and_says_what_to_add(run, make_network):
    with pytest.raises(ConfigError, match="add --batch"):
        run(net=make_network("global"))


def test_a_source_without_a_usable_picture_ends_with_an_input_error(run, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a single frame can be decoded"):
        run(source=bad)


@pytest.mark.parametrize("stop", [1, 4])
def test_the_real_network_continues_with_identical_numbers(tiny, run, tmp_path, monkeypatch, stop):
    run("whole", net=tiny)
    with monkeypatch.context() as patch:
        _interrupt_at(patch, tiny, stop)
        run(net=tiny, checkpoint_every=3)
    assert run(net=tiny, resume=True).status == "finished"
    _assert_same(tmp_path / "out", tmp_path / "whole")
