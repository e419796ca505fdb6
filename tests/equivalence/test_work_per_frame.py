"""The work of a step outside attention does not depend on how many frames came before."""

from itertools import pairwise

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from everview.evaluation.latency import count_flop
from everview.memory import POLICIES, parse
from everview.memory.size import TokenShape, filled
from everview.model.network import build
from everview.model.presets import presets

FRAMES = 40
COPIES = ("clone", "copy_", "_to_copy", "cat")


class WrittenBytes(TorchDispatchMode):
    """Bytes of all results of operations other than attention kernels and views."""

    def __init__(self):
        super().__init__()
        self.total = 0
        self.largest_copy = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.name()
        is_view = func.is_view if hasattr(func, "is_view") else False
        if "attention" not in name and not is_view and "empty" not in name:
            tensors = result if isinstance(result, tuple | list) else (result,)
            written = sum(t.nbytes for t in tensors if isinstance(t, torch.Tensor))
            self.total += written
            if name.partition("::")[2] in COPIES:
                self.largest_copy = max(self.largest_copy, written)
        return result


@pytest.fixture(scope="module")
def network():
    return build(presets["tiny"], seed=0).requires_grad_(False)


@pytest.mark.parametrize("tracked", [False, True])
def test_bytes_written_outside_attention_do_not_grow(network, tracked):
    stream, written = network.stream(), []
    for _ in range(FRAMES):
        with WrittenBytes() as counter:
            stream.step(torch.rand(3, 56, 84))
        written.append(counter.total)
        if tracked and len(written) == 1:
            stream.track(torch.rand(1, 4, 2) * 50)
    steady = written[8:]  # by then the tracker has its bounded number of maps
    copies = [i for i, value in enumerate(steady) if value > min(steady)]
    assert len(copies) <= 3, f"storage may be moved a few times only, at {copies} of {FRAMES}"


def test_floating_point_operations_outside_attention_do_not_grow(network):
    stream, elsewhere = network.stream("full"), []
    for _ in range(12):
        with count_flop() as counter:
            stream.step(torch.rand(3, 56, 84))
        by_kind = counter.get_flop_counts()["Global"]
        elsewhere.append(sum(v for kind, v in by_kind.items() if "attention" not in str(kind)))
    assert len(set(elsewhere)) == 1
    assert elsewhere[0] > 1e6


@pytest.mark.parametrize("name", [name for name in POLICIES if name != "full"])
def test_a_bounded_stream_does_the_same_work_for_every_frame(network, name):
    stream, flop = network.stream(f"{name}:frames=3,camera=3"), []
    for _ in range(9):
        with count_flop() as counter:
            stream.step(torch.rand(3, 56, 84))
        flop.append(counter.get_total_flops())
    assert len(set(flop[4:])) == 1
    assert flop[4] < 1.5 * flop[2]


@pytest.mark.parametrize("name", [name for name in POLICIES if name != "full"])
def test_forgetting_never_copies_the_keys(name):
    """Of 520 frames, which is enough for `late_merge` to deal slots into parts."""
    shape = TokenShape(
        layers=1, heads=2, head_dim=32, per_frame=4, dtype=torch.float32, device=torch.device("cpu")
    )
    policy = parse(f"{name}:frames=520")
    memory = filled(policy, shape, policy.tokens_for(4))
    keys, values = (torch.randn(1, 2, 4, 32) for _ in range(2))
    memory.append(keys, values)
    memory.attend(torch.randn(1, 2, 4, 32))
    with WrittenBytes() as counter:
        memory.settle()
    assert memory.num_evicted > 0
    assert counter.largest_copy < 520 * keys.nbytes / 4


def test_attention_grows_by_the_formula(network):
    """4 * layers * tokens * width * (frames seen) * tokens: two products, two FLOP each."""
    stream, agg = network.stream("full"), network.config.aggregator
    attention = []
    for _ in range(6):
        with count_flop() as counter:
            stream.step(torch.rand(3, 56, 84))
        by_kind = counter.get_flop_counts()["Global"]
        attention.append(sum(v for kind, v in by_kind.items() if "attention" in str(kind)))
    tokens = 5 + 4 * 6
    per_frame = 4 * agg.depth * tokens * tokens * agg.embed_dim
    camera = network.config.camera_head
    per_camera = 4 * camera.num_iterations * camera.trunk_depth * camera.dim_in
    growth = {b - a for a, b in pairwise(attention)}
    assert growth == {per_frame + per_camera}
