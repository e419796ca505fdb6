"""Peak memory while loading; the peak of this process is reset and read through Linux's /proc."""

import ctypes
import dataclasses
import gc
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from everview.model.presets import presets
from everview.weights.load import empty_network, load

CLEAR_REFS = Path("/proc/self/clear_refs")
MOST = 1.25  # times the size of the file

pytestmark = pytest.mark.skipif(not CLEAR_REFS.exists(), reason="needs Linux's /proc")


def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def peak_of(function):
    """Result, and bytes by which the peak exceeded what was held before."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # else memory that was freed before would be used, unseen
    CLEAR_REFS.write_text("5")
    before = memory("VmRSS")
    result = function()
    return result, memory("VmHWM") - before


def write(config, path):
    shapes = {name: value.shape for name, value in empty_network(config).state_dict().items()}
    values = {name: torch.rand(shape) for name, shape in shapes.items()}
    (torch.save if path.suffix == ".pt" else save_file)(values, path)
    return path


@pytest.fixture(scope="module")
def medium():
    """A network of 70 MB, most of it in pieces of megabytes."""
    tiny = presets["tiny"]
    width = 512
    heads = {
        name: dataclasses.replace(getattr(tiny, name), dim_in=2 * width)
        for name in ("camera_head", "depth_head")
    }
    return dataclasses.replace(
        tiny,
        patch_embed=dataclasses.replace(tiny.patch_embed, embed_dim=width),
        aggregator=dataclasses.replace(tiny.aggregator, embed_dim=width),
        point_head=None,
        track_head=None,
        **heads,
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_loading_takes_little_more_memory_than_the_file(name, precision, medium, tmp_path):
    path = write(medium, tmp_path / name)
    size = path.stat().st_size
    network, peak = peak_of(lambda: load(path, config=medium, device="cpu", precision=precision))
    held = sum(value.nbytes for value in network.parameters())
    assert 0.9 * held < peak < MOST * size, f"{peak:,} bytes for a file of {size:,}"


@pytest.mark.weights
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_a_full_size_checkpoint_loads_within_its_size(name, precision, tmp_path):
    path = write(presets["vggt-1b"], tmp_path / name)
    size = path.stat().st_size
    assert size > 4 * 1_256_537_516
    network, peak = peak_of(lambda: load(path, device="cpu", precision=precision))
    path.unlink()
    print(f"{name} {precision}: peak {peak / size:.3f} x {size / 1e9:.2f} GB")  # noqa: T201
    held = sum(value.nbytes for value in network.parameters())
    assert 0.9 * held < peak < MOST * size
    assert sum(value.numel() for value in network.parameters()) == 1_256_537_516
