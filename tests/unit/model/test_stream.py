import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from everview.errors import ConfigError, InputError
from everview.frames.frame import Frame
from everview.frames.preprocess import preprocess
from everview.geometry.pixel_map import PixelMap
from everview.model.config import Config
from everview.model.network import build
from everview.model.presets import presets
from everview.model.tracking import MAX_QUERY_FRAMES, NUM_RECENT


def test_the_report_counts_frames_tokens_and_bytes_by_the_formula(tiny):
    stream = tiny.stream("full", batch=2)
    for _ in range(3):
        stream.step(torch.rand(2, 3, 28, 42))
    report, agg = stream.report(), tiny.config.aggregator
    tokens = 3 * (5 + 2 * 3)
    assert (report.frames, report.tokens, report.evictions) == (3, tokens, 0)
    assert report.cache_bytes == 2 * agg.depth * 2 * tokens * agg.embed_dim * 4
    assert report.cache_bytes < report.state_bytes


@pytest.mark.parametrize("cache", ["per_round", "shared"])
def test_the_camera_cache_holds_one_key_per_round_and_frame(tiny, cache):
    stream = tiny.stream(camera_cache=cache)
    for _ in range(3):
        stream.step(torch.rand(3, 28, 42))
    held = [[m.num_tokens for m in blocks] for blocks in stream._state.camera]
    expected = 3 if cache == "per_round" else 3 * 4
    assert held == [[expected] * 2] * 4


def test_a_step_accepts_a_frame_and_can_be_mapped_to_its_original(tiny):
    pixel_map = PixelMap(original_size=(50, 80), network_size=(28, 42), scale=(42 / 80, 28 / 50))
    frame = Frame(
        image=torch.rand(3, 28, 42), timestamp=0.0, index=0, original_size=(50, 80),
        pixel_map=pixel_map,
    )  # fmt: skip
    pred = tiny.stream().step(frame)
    assert pred.at("original").depth.shape == (1, 1, 50, 80)
    assert tiny([frame, frame]).at("original").points.shape == (1, 2, 50, 80, 3)


def test_a_step_without_maps_remembers_and_tracks_the_same(tiny):
    images, points = torch.rand(4, 3, 28, 42), torch.tensor([[10.0, 9.0]])
    with tiny.stream("full") as whole, tiny.stream("full") as lean:
        for i, image in enumerate(images):
            expected, pred = whole.step(image), lean.step(image, dense=i == 3)
            assert (pred.depth is None, pred.points is None) == (i < 3, i < 3)
            assert torch.equal(pred.pose_encoding, expected.pose_encoding)
            if i:
                assert torch.equal(pred.tracks, expected.tracks)
            else:
                whole.track(points)
                lean.track(points)
    assert torch.equal(pred.depth, expected.depth)


def test_nothing_behind_the_prediction_refers_to_the_past(tiny):
    """A prediction that is kept must not keep the stream's memory alive."""
    stream = tiny.stream()
    pred = stream.step(torch.rand(3, 28, 42))
    owned = {m.read()[0].untyped_storage().data_ptr() for m in stream._state.layers}
    kept = {getattr(pred, n).untyped_storage().data_ptr() for n in ("depth", "points")}
    assert not owned & kept
    assert pred.depth.grad_fn is None


def test_a_step_that_fails_changes_nothing(tiny, monkeypatch):
    frames = torch.rand(3, 3, 28, 42)
    expected_stream, stream = tiny.stream(), tiny.stream()
    expected = [expected_stream.step(f) for f in frames]
    stream.step(frames[0])
    with monkeypatch.context() as patch:
        patch.setattr(tiny, "dense", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            stream.step(frames[1])
    got = [stream.step(f) for f in frames[1:]]
    torch.testing.assert_close(got[1].depth, expected[2].depth, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(3, 30, 42), "multiples of 14"),
        (torch.zeros(3, 28, 42, dtype=torch.uint8), "floating point"),
        (torch.rand(2, 3, 28, 42), r"model\.stream\(batch=2\)"),
    ],
)
def test_an_image_that_does_not_fit_is_refused_with_the_remedy(tiny, image, message):
    with pytest.raises(ConfigError, match=message):
        tiny.stream().step(image)


def test_a_closed_stream_says_so(tiny):
    with tiny.stream() as stream:
        pass
    with pytest.raises(ConfigError, match="closed"):
        stream.step(torch.rand(3, 28, 42))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"memory": "best"}, "'best' is unknown"),
        ({"camera_cache": "none"}, "per_round"),
        ({"batch": 0}, "at least 1"),
    ],
)
def test_a_stream_refuses_unknown_settings(tiny, arguments, message):
    with pytest.raises(ConfigError, match=message):
        tiny.stream(**arguments)


def test_a_network_with_global_attention_cannot_stream():
    config = Config.from_dict(presets["tiny"].to_dict() | {"attention": "global"})
    with pytest.raises(ConfigError, match="causal"):
        build(config).stream()


class TestTracks:
    def test_tracks_appear_for_all_points_asked_for_so_far(self, tiny):
        stream, size = tiny.stream(), (3, 56, 84)
        assert stream.step(torch.rand(size)).tracks is None
        stream.track(torch.rand(1, 5, 2) * 50)
        assert stream.step(torch.rand(size)).tracks.shape == (1, 1, 5, 2)
        stream.track(torch.rand(3, 2) * 50)
        pred = stream.step(torch.rand(size))
        assert pred.tracks.shape == (1, 1, 8, 2)
        assert pred.visibility.shape == pred.track_confidence.shape == (1, 1, 8)

    def test_a_point_that_is_no_number_is_refused_and_the_others_go_on(self, tiny):
        stream, frame = tiny.stream(), torch.rand(1, 3, 56, 56)
        stream.step(frame)
        stream.track(torch.rand(2, 2) * 50)
        with pytest.raises(ConfigError, match="must be finite: one is not, first in row 1"):
            stream.track(torch.tensor([[20.0, 20.0], [torch.nan, 3.0]]))
        assert stream.step(frame).tracks.isfinite().all()

    def test_tracks_depend_on_the_new_frame_unlike_the_published_ones(self, tiny):
        first = torch.rand(3, 56, 84)
        found = []
        for second in (first, first.flip(-1)):
            stream = tiny.stream()
            stream.step(first)
            stream.track(torch.full((1, 1, 2), 20.0))
            found.append(stream.step(second).tracks)
        assert (found[0] - found[1]).abs().max() > 1e-4

    def test_two_frames_of_a_stream_are_tracked_as_the_batch_tracks_them(self, tiny):
        network = build(presets["tiny"], seed=1).double()
        clip = torch.rand(1, 2, 3, 56, 84, dtype=torch.float64)
        points = torch.rand(1, 4, 2, dtype=torch.float64) * 50
        stream = network.stream()
        stream.step(clip[:, 0])
        stream.track(points)
        got, expected = stream.step(clip[:, 1]), network(clip, query_points=points)
        torch.testing.assert_close(got.tracks, expected.tracks[:, 1:], rtol=0, atol=1e-6)
        torch.testing.assert_close(got.visibility, expected.visibility[:, 1:], rtol=0, atol=1e-6)

    def test_a_bounded_number_of_feature_maps_is_kept(self, tiny):
        stream = tiny.stream()
        stream.step(torch.rand(3, 56, 84))
        stream.track(torch.rand(1, 2, 2) * 50)
        for _ in range(NUM_RECENT + 3):
            stream.step(torch.rand(3, 56, 84))
        assert len(stream._state.recent_maps) == NUM_RECENT

    def test_points_of_one_frame_share_its_map(self, tiny):
        stream = tiny.stream()
        stream.step(torch.rand(3, 56, 84))
        for _ in range(MAX_QUERY_FRAMES + 1):
            stream.track(torch.rand(1, 2, 2) * 50)
        assert len(stream._state.groups) == 1
        pred = stream.step(torch.rand(3, 56, 84))
        assert pred.tracks.shape == (1, 1, 2 * (MAX_QUERY_FRAMES + 1), 2)

    def test_points_of_many_frames_are_followed_with_a_bounded_number_of_maps(self, tiny):
        network = build(presets["tiny"], seed=1)
        stream = network.stream()
        for _ in range(MAX_QUERY_FRAMES + 3):
            stream.step(torch.rand(3, 56, 84))
            stream.track(torch.rand(1, 2, 2) * 50)
        before = stream.step(torch.rand(3, 56, 84))
        assert before.tracks.shape == (1, 1, 2 * (MAX_QUERY_FRAMES + 3), 2)
        assert len(stream._state.groups) == MAX_QUERY_FRAMES
        numbers = [point for group in stream._state.groups for point in group.points]
        assert sorted(numbers) == list(range(2 * (MAX_QUERY_FRAMES + 3)))
        assert numbers != sorted(numbers)
        for group in stream._state.groups:  # tracks leave in the order of asking
            given = before.tracks[0, 0, group.points]
            torch.testing.assert_close(given, group.latest[0], rtol=0, atol=0)

    def test_another_size_of_frame_is_refused_while_points_are_followed(self, tiny):
        stream = tiny.stream()
        stream.step(torch.rand(3, 56, 84))
        stream.track(torch.rand(1, 2, 2))
        stream.step(torch.rand(3, 56, 84))
        with pytest.raises(ConfigError, match="frames of one size"):
            stream.step(torch.rand(3, 56, 56))
        assert stream.step(torch.rand(3, 56, 84)).tracks.shape == (1, 1, 2, 2)

    def test_a_network_without_track_confidence_gives_none(self):
        values = presets["tiny"].to_dict()
        values["track_head"]["predict_conf"] = False
        stream = build(values).stream()
        stream.step(torch.rand(3, 56, 84))
        stream.track(torch.rand(1, 2, 2))
        pred = stream.step(torch.rand(3, 56, 84))
        assert pred.track_confidence is None
        assert pred.visibility.shape == (1, 1, 2)

    def test_tracks_go_on_after_a_resume(self, tiny, tmp_path):
        frames = torch.rand(5, 3, 56, 84)
        stream = tiny.stream()
        stream.step(frames[0])
        stream.track(torch.rand(1, 3, 2) * 50)
        stream.step(frames[1])
        stream.save(tmp_path / "s.safetensors")
        resumed = tiny.resume(tmp_path / "s.safetensors")
        for frame in frames[2:]:
            one, other = stream.step(frame), resumed.step(frame)
            torch.testing.assert_close(one.tracks, other.tracks, rtol=0, atol=0)

    def test_points_before_the_first_frame_or_on_small_images_are_refused(self, tiny):
        with pytest.raises(ConfigError, match="needs a frame"):
            tiny.stream().track(torch.rand(1, 2, 2))
        stream = tiny.stream()
        stream.step(torch.rand(3, 14, 14))
        stream.track(torch.rand(1, 2, 2))  # 14 / 2 = 7 cells hold three levels
        network = build(presets["mini"])
        stream = network.stream()
        stream.step(torch.rand(3, 14, 28))
        with pytest.raises(ConfigError, match="at least 16 x 16 pixels"):
            stream.track(torch.rand(1, 2, 2))


class TestSavedState:
    @pytest.fixture
    def saved(self, tiny, tmp_path):
        stream = tiny.stream()
        stream.step(torch.rand(3, 28, 42))
        stream.save(tmp_path / "s.safetensors")
        return tmp_path / "s.safetensors"

    def test_an_absent_file_is_named(self, tiny, tmp_path):
        with pytest.raises(InputError, match=r"no\.safetensors does not exist"):
            tiny.resume(tmp_path / "no.safetensors")

    def test_a_truncated_file_is_named(self, tiny, saved):
        saved.write_bytes(saved.read_bytes()[:-100])
        with pytest.raises(InputError, match=r"s\.safetensors is damaged"):
            tiny.resume(saved)

    def test_another_version_is_refused_by_name(self, tiny, saved):
        with safe_open(saved, "pt") as file:
            header = json.loads(file.metadata()["everview"])
        header["format"] = "everview.stream.99"
        save_file(load_file(saved), saved, metadata={"everview": json.dumps(header)})
        with pytest.raises(InputError, match=r"everview\.stream\.99"):
            tiny.resume(saved)

    def test_another_network_is_refused(self, saved):
        with pytest.raises(InputError, match="another architecture"):
            build(presets["mini"]).resume(saved)

    def test_other_weights_or_another_precision_are_refused(self, saved):
        with pytest.raises(InputError, match="another weights"):
            build(presets["tiny"], seed=2).resume(saved)
        with pytest.raises(InputError, match=r"another precision .*bfloat16"):
            build(presets["tiny"], seed=1).set_precision(torch.bfloat16).resume(saved)

    def test_a_missing_tensor_or_header_entry_is_named(self, tiny, saved):
        with safe_open(saved, "pt") as file:
            header = json.loads(file.metadata()["everview"])
        tensors = load_file(saved)
        del tensors["layers.0.keys"]
        save_file(tensors, saved, metadata={"everview": json.dumps(header)})
        with pytest.raises(InputError, match=r"layers\.0\.keys' is missing"):
            tiny.resume(saved)
        del header["policy"]
        save_file(load_file(saved), saved, metadata={"everview": json.dumps(header)})
        with pytest.raises(InputError, match="is damaged"):
            tiny.resume(saved)

    def test_the_folder_of_the_file_is_made(self, tiny, tmp_path):
        tiny.stream().save(tmp_path / "new" / "s.safetensors")
        assert tiny.resume(tmp_path / "new" / "s.safetensors").num_frames == 0


class TestInputs:
    def test_a_frame_with_its_original_pixels_is_preprocessed(self, tiny):
        frame = Frame(image=torch.rand(3, 60, 80), timestamp=0.0, index=0, original_size=(60, 80))
        pred = tiny.stream().step(frame)
        assert pred.depth.shape == (1, 1, 42, 56)
        assert pred.at("original").depth.shape == (1, 1, 60, 80)

    def test_arrays_and_preprocessed_images_are_taken(self, tiny):
        prepared = preprocess(np.zeros((60, 80, 3), np.uint8), 56)
        assert tiny.stream().step(prepared).pixel_map is not None
        assert tiny.stream().step(prepared.image.numpy()).depth.shape == (1, 1, 42, 56)
        assert tiny([prepared, prepared]).depth.shape == (1, 2, 42, 56)

    def test_something_else_is_refused_by_name(self, tiny):
        with pytest.raises(ConfigError, match="got str"):
            tiny.stream().step("frame.png")

    def test_frames_of_different_originals_have_no_common_original(self, tiny):
        frames = [preprocess(np.zeros((h, 80, 3), np.uint8), 56) for h in (60, 61)]
        assert tiny(frames).pixel_map is None

    @pytest.mark.parametrize("call", ["clip", "step"])
    def test_ambient_autocast_changes_nothing(self, tiny, clip, call):
        def run():
            return tiny(clip) if call == "clip" else tiny.stream().step(clip[:, 0])

        expected = run()
        with torch.autocast("cpu", torch.bfloat16):
            got = run()
        torch.testing.assert_close(got.depth, expected.depth, rtol=0, atol=0)

    def test_a_prefill_that_fails_midway_changes_nothing(self, tiny, clip, monkeypatch):
        stream = tiny.stream(camera_cache="shared")
        stream.step(clip[:, 0])
        calls = iter([False, True])
        dense = tiny.dense
        with monkeypatch.context() as patch:
            patch.setattr(tiny, "dense", lambda *a: 1 / 0 if next(calls) else dense(*a))
            with pytest.raises(ZeroDivisionError):
                stream.prefill(clip[:, 1:3])
        assert stream.num_frames == 1
        assert stream.report().tokens == 5 + 24
        with pytest.raises(ConfigError, match="b s 3 H W"):
            stream.prefill(clip[:, :0])
