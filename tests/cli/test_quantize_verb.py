import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

import everview
from everview.cli.main import main
from everview.errors import ConfigError, InputError
from everview.model.network import build
from everview.model.presets import presets
from everview.quantization.clips import calibration_clips, choose_clips


@pytest.fixture(scope="module")
def small():
    """A network small enough to be quantized within a second."""
    tiny = presets["tiny"]
    config = replace(
        tiny, track_head=None, patch_embed=replace(tiny.patch_embed, depth=1),
        aggregator=replace(tiny.aggregator, depth=1),
        depth_head=replace(tiny.depth_head, intermediate_layer_idx=(0, 0, 0, 0)),
        point_head=replace(tiny.point_head, intermediate_layer_idx=(0, 0, 0, 0)),
    )  # fmt: skip
    return build(config, seed=1)


@pytest.fixture
def folder(small, tmp_path):
    return everview.save(small, tmp_path / "model")


def images(folder, count, size=(84, 56)):
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(count)
    for i in range(count):
        pixels = torch.randint(0, 255, (size[1], size[0], 3), generator=generator)
        Image.fromarray(pixels.to(torch.uint8).numpy()).save(folder / f"{i:03d}.png")
    return folder


def test_a_folder_that_every_verb_can_load_and_a_report(folder, tmp_path, capsys):
    out = tmp_path / "q"
    source = images(tmp_path / "shot", 24)
    call = ["quantize", str(folder), "-o", str(out), "--scheme", "w4a8", "--device", "cpu"]
    call += ["--calibration", str(source), "--clips", "4", "--frames", "3", "--held-out", "2"]
    assert main(call) == 0
    text = capsys.readouterr().out
    assert {line.split()[0] for line in text.splitlines()[1:]} == {
        "file", "in", "per", "error", "kernel", "layer",
    }  # fmt: skip
    report = json.loads((out / "report.json").read_text())
    assert report["file_bytes"]["quantized"] == (out / "weights.safetensors").stat().st_size
    assert report["file_bytes"]["quantized"] < report["file_bytes"]["bfloat16"]
    assert report["resident_bytes"]["quantized"] < 0.6 * report["resident_bytes"]["float"]
    assert 0 < report["against_float"]["mean"]["depth_abs_rel"] < 0.2
    assert report["against_float"]["worst"]["points"] >= report["against_float"]["mean"]["points"]
    assert len(report["worst_layers"]) == 5
    assert sum(k["layers"] for k in report["kernels"].values()) == len(report["layer_errors"])
    made = everview.load(out, device="cpu")
    assert made.quantization.scheme == "w4a8"
    assert made.info.license == "unknown: ask whoever gave you the file"
    recording = tmp_path / "recording"
    assert main(["run", str(source), "--model", str(out), "-o", str(recording)]) == 0
    capsys.readouterr()


def test_int8_of_run_quantizes_while_loading(folder, tmp_path, capsys):
    source = images(tmp_path / "shot", 3)
    out = tmp_path / "recording"
    call = ["run", str(source), "--model", str(folder), "-o", str(out), "--precision", "int8"]
    assert main([*call, "--memory", "window:frames=2"]) == 0
    capsys.readouterr()
    assert "w8a8 and float32" in (out / "recording.json").read_text()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--scheme", "w3a3"], "scheme 'w3a3' is unknown; use w8a8"),
        (["--method", "magic"], "method 'magic' is unknown; use nearest"),
        (["--calibration", "none", "--method", "smoothquant"], "needs calibration clips"),
        (["--keep", "x"], "--keep takes PATTERN=SCHEME"),
        (["--clips", "2"], "2 calibration clips are too few"),
        (["--calibration", "/nowhere"], "/nowhere"),
        (["--candidates", "5"], "--candidates must be at least --clips (12); got 5"),
    ],
)
def test_wrong_calls_are_told_in_one_line(folder, tmp_path, capsys, extra, message):
    call = ["quantize", str(folder), "-o", str(tmp_path / "q"), "--device", "cpu", "--frames", "2"]
    assert main([*call, "--held-out", "1", *extra]) in (2, 3)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "q").exists()


def test_a_folder_of_clips_gives_one_clip_each(small, tmp_path):
    for i in range(5):
        images(tmp_path / "all" / f"clip{i}", 3 + i)
    found = calibration_clips(small, str(tmp_path / "all"), clips=4, frames=3)
    assert [clip.shape for clip in found] == [(3, 3, 42, 56)] * 4
    with pytest.raises(InputError, match="has 5 clips, 6 are wanted"):
        calibration_clips(small, str(tmp_path / "all"), clips=6, frames=3)
    with pytest.raises(InputError, match=r"clip.* has fewer than 5 frames"):
        calibration_clips(small, str(tmp_path / "all"), clips=5, frames=5)


def test_one_source_is_drawn_from_all_over(small, tmp_path):
    source = str(images(tmp_path / "shot", 40))
    found = calibration_clips(small, source, clips=4, frames=2, seed=1)
    again = calibration_clips(small, source, clips=4, frames=2, seed=1)
    assert torch.equal(torch.stack(found), torch.stack(again))
    other = calibration_clips(small, source, clips=4, frames=2, seed=2)
    assert not torch.equal(torch.stack(found), torch.stack(other))
    with pytest.raises(InputError, match="gives 20 clips of 2 frames, 30 are wanted"):
        calibration_clips(small, source, clips=30, frames=2)
    with pytest.raises(ConfigError, match="frames >= 2"):
        calibration_clips(small, source, clips=3, frames=1)


def test_unusual_candidates_are_left_out(small):
    generator = torch.Generator().manual_seed(0)
    candidates = [0.5 + 0.1 * torch.rand(3, 3, 42, 56, generator=generator) for _ in range(12)]
    candidates[4] = torch.zeros(3, 3, 42, 56)
    picked = choose_clips(small, candidates, 4)
    assert len(picked) == 4
    assert not any(torch.equal(clip, candidates[4]) for clip in picked)
    with pytest.raises(ConfigError, match="too few to choose"):
        choose_clips(small, candidates[:4], 8)


@pytest.mark.usefixtures("small_previews")
@pytest.mark.parametrize("memory", ["key_diversity:frames=3,bits=8", "late_merge:frames=3,bits=4"])
def test_integers_in_network_and_memory_go_together(folder, tmp_path, memory):
    out = tmp_path / "recording"
    source = images(tmp_path / "shot", 8)
    call = ["run", str(source), "-o", str(out), "--model", str(folder), "--device", "cpu"]
    assert main([*call, "--precision", "int8", "--memory", memory]) == 0
    recording = everview.Recording.open(out)
    assert len(recording) == 8
    plain = tmp_path / "float"
    assert main([*call[:3], str(plain), *call[4:], "--memory", "full"]) == 0
    depth, expected = recording.depth(0), everview.Recording.open(plain).depth(0)
    assert abs(depth / expected - 1).mean() < 0.05
    bytes_held = [entry.memory for entry in recording.entries]
    assert len(set(bytes_held[4:])) == 1


def test_notes_beside_calibration_clips_are_no_clips(small, tmp_path):
    for number in range(2):
        images(tmp_path / "shots" / f"{number}", 3)
    (tmp_path / "shots" / "README.md").write_text("two shots")
    (tmp_path / "shots" / "times.txt").write_text("0 1")
    found = calibration_clips(small, str(tmp_path / "shots"), clips=2, frames=3)
    assert len(found) == 2
