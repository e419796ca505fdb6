"""The size of a saved stream as docs/memory.md tells it."""

import pytest
import torch

from everview.memory import POLICIES
from everview.model.network import build
from everview.model.presets import presets

FRAMES = 6


@pytest.fixture(scope="module")
def network():
    return build(presets["tiny"], seed=1)


@pytest.mark.parametrize(
    ("text", "frames"),
    [("full", 6), ("full:bits=8", 6), ("window:frames=3,camera=4", 3),
     ("key_diversity:frames=4,camera=5", 4), ("merge:frames=3,camera=2,bits=4", 3),
     ("attention_mass:frames=3,camera=5,bits=16", 3)],
)  # fmt: skip
def test_a_saved_stream_is_as_large_as_the_formula_says(network, tmp_path, text, frames):
    stream = network.stream(text)
    for image in torch.rand(FRAMES, 3, 28, 42):
        stream.step(image)
    stream.save(tmp_path / "state.safetensors")
    content = (tmp_path / "state.safetensors").read_bytes()
    described = 8 + int.from_bytes(content[:8], "little")
    aggregator, camera = network.config.aggregator, network.config.camera_head
    L, C, h = aggregator.depth, aggregator.embed_dim, aggregator.num_heads
    P = 1 + aggregator.num_register_tokens + 6
    D, H, R = camera.dim_in, camera.num_heads, camera.num_iterations * camera.trunk_depth
    policy = POLICIES[text.partition(":")[0]]
    is_bounded, bits = text[:4] != "full", stream._state.policy.bits
    groups = h * -(-(C // h) // 32)
    k = 2 * C * 4 if bits is None else 2 * C * bits // 8 + 4 * groups * (bits < 16)
    T, F = frames * P, min(FRAMES, getattr(stream._state.policy, "camera", FRAMES))
    notes = 8 * h + 4 * h * len(policy.notes) if is_bounded else 0
    compares = is_bounded and "inverse_norm" in policy.notes
    s = 4 * C * compares + 4 * C * (bits in (4, 8))
    K = len(network.aggregator.layers)
    told = L * (T * (k + notes) + s) + R * F * (2 * D * 4 + 8 * H * is_bounded) + 8 * K * P * C
    memories = stream._state.memories().values()
    tensors = sum(len(memory.tensors()) for memory in memories) + K
    assert stream.report().taken_bytes == len(content) - described
    counters = 36 * len(memories)  # of what was seen, and a score: as good as nothing
    assert 0 <= len(content) - described - told <= counters
    assert described < 250 * tensors + 10_000
