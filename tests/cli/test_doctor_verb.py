import json

import pytest
import torch

from everview.cli import diagnosis
from everview.cli.doctor import Doctor
from everview.errors import ConfigError
from everview.model.presets import presets


@pytest.fixture
def quick(monkeypatch):
    """No measurement: 100 and 300 GFLOP/s."""
    speeds = {torch.float32: 1e11, torch.bfloat16: 3e11}
    monkeypatch.setattr(diagnosis, "matrix_product_speed", lambda d, *a, **k: speeds[d])


def test_text_names_machine_device_kernels_decoder_extras_and_what_will_be_fast(quick, capsys):
    assert Doctor(device="cpu").run() == 0
    text = capsys.readouterr().out
    first_words = [line.split()[0] for line in text.splitlines()]
    assert set(first_words) >= {
        "everview", "machine", "devices", "taken", "speed", "attention", "memory",
        "quantized", "decoder", "extra", "here",
    }  # fmt: skip
    assert "float32 100 GFLOP/s, bfloat16 300 GFLOP/s" in text
    assert "bfloat16 is 3.0 times as fast as float32 here: use --precision bfloat16" in text
    assert "decodes h264" in text
    assert "w8a16, w4a16: weight_only" in text
    kernel = "scaled_dot_product_attention, codes expanded head by head"
    assert f"memory     bits 16, 8, 4: {kernel}" in text
    assert "fp8: reference (simulated)" in text


def test_json_holds_plain_values(quick, capsys):
    Doctor(device="cpu", json=True).run()
    found = json.loads(capsys.readouterr().out)
    assert found["device"] == "cpu"
    assert found["precision"] == "float32"
    assert "cpu" in found["devices"]
    assert found["extras"]["train"]["install"] == 'pip install "everview[train]"'


def test_speed_is_really_measured(capsys):
    found = diagnosis.diagnose("cpu", seconds=0.01)
    assert all(speed > 1e8 for speed in found["matrix_product_flops"].values())


def test_a_missing_extra_comes_with_its_pip_line(quick, monkeypatch, capsys):
    monkeypatch.setattr(
        diagnosis.importlib.metadata,
        "requires",
        lambda name: ["torch>=2.5", 'no-such-package>=1; extra == "view"', "rich; extra == 'view'"],
    )
    Doctor(device="cpu").run()
    line = 'extra      view: lacks no-such-package; pip install "everview[view]"'
    assert line in capsys.readouterr().out.splitlines()


def test_an_extra_of_another_system_is_not_missed(monkeypatch):
    wanted = 'no-such-package; (platform_system == "Plan9") and extra == "gpu"'
    monkeypatch.setattr(diagnosis.importlib.metadata, "requires", lambda name: [wanted])
    assert diagnosis.extras() == {}


def test_the_plain_kernel_always_works_and_comes_last():
    kernels = diagnosis.attention_kernels(torch.device("cpu"))
    assert kernels.keys() == {"without mask", "with mask"}
    for by_dtype in kernels.values():
        assert all(names[-1] == "plain" for names in by_dtype.values())


def test_an_absent_device_is_refused_before_anything_is_measured():
    with pytest.raises(ConfigError, match="cuda:99"):
        Doctor(device="cuda:99").run()


def test_operations_of_a_frame_match_a_count_by_hand():
    # 4 x 6 patches and 5 special tokens; width 32; 2 encoder blocks and 4 pairs
    tokens = 5 + 4 * 6
    by_hand = 10 * tokens * (24 * 32**2 + 4 * tokens * 32)
    assert diagnosis.aggregator_flops(presets["tiny"], (56, 84)) == by_hand


def test_little_memory_and_slow_bfloat16_change_the_advice():
    found = {
        "matrix_product_flops": {"float32": 1e11, "bfloat16": 1e10},
        "device": "cpu",
        "machine": {"memory_bytes": 6_000_000_000},
        "attention": {"without mask": {"bfloat16": ["plain"]}},
    }
    text = " ".join(diagnosis.advice(found))
    assert "stay with float32" in text
    assert "6 GB of memory are too few" in text
    on_gpu = " ".join(diagnosis.advice({**found, "device": "cuda"}))
    assert "No flash attention" in on_gpu
