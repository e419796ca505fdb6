"""What a plan says is what a stream takes."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from everview.errors import ConfigError, NotEnoughMemoryError
from everview.memory import POLICIES
from everview.model.network import build
from everview.model.presets import presets
from everview.pipeline import plan as plans
from everview.pipeline.plan import make_plan

SIZE = (28, 42)
TEXTS = [f"{name}:frames=3,camera=5" for name in POLICIES if name != "full"] + [
    "full", "full:bits=8", "full:bits=16", "key_diversity:tokens=40,bits=8,camera=5",
    "merge:tokens=40,bits=4,camera=5", "coverage:frames=4,bits=16,camera=5",
]  # fmt: skip


@pytest.fixture(scope="module")
def network():
    return build(presets["tiny"], seed=1)


@pytest.mark.parametrize("text", TEXTS)
def test_the_bytes_of_a_stream_are_predicted_exactly(network, text):
    plan = make_plan(network, SIZE, memory=text, num_frames=13)
    stream = network.stream(text)
    for image in torch.rand(13, 3, *SIZE):
        stream.step(image)
    assert plan.state_bytes == stream.report().state_bytes


def test_layers_that_share_take_no_more_than_is_planned(network, monkeypatch):
    monkeypatch.setattr("everview.memory.policies.diversity.SHARED_EVERY", 2)
    text, uniform = "key_diversity:frames=4,budget=adaptive,camera=5", "key_diversity:frames=4"
    stream = network.stream(text)
    for image in torch.rand(13, 3, *SIZE):
        stream.step(image)
        for number, memory in enumerate(stream._state.layers):  # each has its turn
            if memory.score is not None:
                memory.score.fill_(float(number != stream._state.num_frames // 3 % 2))
    taken = stream.report().state_bytes
    assert taken > make_plan(network, SIZE, memory=f"{uniform},camera=5").state_bytes
    plan = make_plan(network, SIZE, memory=text)
    assert taken <= plan.state_bytes


def test_a_policy_that_grows_has_no_end_where_the_length_is_unknown(network):
    plan = make_plan(network, SIZE, memory="full", limit=1, num_frames=None)
    assert plan.state_bytes is None
    assert plan.peak_bytes is None


def test_auto_takes_bits_away_before_tokens(network, monkeypatch):
    rehearsal = make_plan(network, SIZE)
    measured = plans._Rehearsal(base_bytes=1000, step_bytes=100, seconds=0.1)
    nothing = plans._Trial(scratch_bytes=0, seconds=0.1)
    monkeypatch.setattr(plans, "_rehearse", lambda *_: measured)
    monkeypatch.setattr(plans, "_try_layer", lambda *_: nothing)
    needed = {}
    for bits in ("", ",bits=8", ",bits=4"):
        plan = make_plan(network, SIZE, memory=f"key_diversity:tokens=8000,frames=2{bits}")
        needed[bits] = plan.peak_bytes
    assert rehearsal.tokens == 8000
    for bits, limit in needed.items():
        chosen = make_plan(network, SIZE, limit=limit)
        assert chosen.memory == f"key_diversity:tokens=8000,frames=2{bits}"
        assert make_plan(network, SIZE, limit=limit - 1).memory != chosen.memory
    below = make_plan(network, SIZE, limit=needed[",bits=4"] // 2)
    assert below.bits == 8
    assert 2 * below.frame_tokens <= below.tokens < 8000
    assert below.peak_bytes <= needed[",bits=4"] // 2
    with_one_more = f"key_diversity:tokens={below.tokens + 2},bits=8"
    more = make_plan(network, SIZE, memory=with_one_more)
    assert more.peak_bytes > needed[",bits=4"] // 2


def test_what_cannot_fit_is_refused_with_what_would(network):
    with pytest.raises(NotEnoughMemoryError, match=r"the least at this size is --memory-limit \d"):
        make_plan(network, SIZE, limit=1000)
    with pytest.raises(NotEnoughMemoryError, match=r"full at 28x42 needs .* the limit is 1.0 kB"):
        make_plan(network, SIZE, memory="full", limit=1000, num_frames=5)


def test_the_least_that_is_named_does_fit(network, monkeypatch):
    measured = plans._Rehearsal(base_bytes=10**8, step_bytes=100, seconds=0.1)
    monkeypatch.setattr(plans, "_rehearse", lambda *_: measured)
    with pytest.raises(NotEnoughMemoryError) as caught:
        make_plan(network, SIZE, limit=1000)
    least = int(str(caught.value).partition("--memory-limit ")[2].partition("MB")[0])
    assert make_plan(network, SIZE, limit=least * 10**6).bits in (4, 8)


@pytest.mark.parametrize("memory", ["full", "window:frames=800"])
def test_a_policy_that_does_not_fit_is_told_its_own_limit(network, monkeypatch, memory):
    measured = plans._Rehearsal(base_bytes=10**8, step_bytes=100, seconds=0.1)
    monkeypatch.setattr(plans, "_rehearse", lambda *_: measured)
    call = {"memory": memory, "num_frames": 1000}
    peak = make_plan(network, SIZE, **call).peak_bytes
    with pytest.raises(NotEnoughMemoryError, match="--memory auto fits this limit") as caught:
        make_plan(network, SIZE, limit=int(0.98 * peak), **call)
    enough = int(str(caught.value).partition("--memory-limit ")[2].partition("MB")[0])
    assert make_plan(network, SIZE, limit=enough * 10**6, **call).memory == memory
    with pytest.raises(NotEnoughMemoryError, match=r"--memory-limit \d+MB with --memory auto"):
        make_plan(network, SIZE, limit=10**8, **call)


def test_a_network_that_sees_all_at_once_has_no_plan():
    with pytest.raises(ConfigError, match="causal"):
        make_plan(build(replace(presets["tiny"], attention="global")), SIZE)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["merge:tokens=40000,bits=4", "window:tokens=40000,bits=4"])
def test_what_forgetting_takes_for_a_moment_is_part_of_the_plan(text):
    """Of a stream whose memory is full, in a process of its own: steps of the bundled model."""
    code = """
import json, sys
import torch
from everview.memory.policies import parse
from everview.pipeline.peak import PeakMemory
from everview.pipeline.plan import make_plan
from everview.weights.load import load
network, text, image = load("mini", device="cpu"), sys.argv[1], torch.rand(3, 140, 140)
plan = make_plan(network, (140, 140), memory=text)
stream, peak = network.stream(text), PeakMemory(network.device)
with torch.no_grad():
    stream.step(image)
    for memory in stream._state.layers:
        b, h, p, d = memory.read_keys().shape
        while (missing := plan.tokens - memory.num_tokens) > 0:
            new = torch.randn(2, b, h, min(5 * p, missing), d)
            memory.append(*new)
            memory.settle()
    peak.reset()
    for _ in range(3):
        stream.step(image)
print(json.dumps([plan.peak_bytes, peak.peak]))
"""
    command = [sys.executable, "-c", code, text]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    predicted, measured = json.loads(done.stdout)
    assert 0.9 < predicted / measured < 1.1, (predicted, measured)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("memory", "size", "fusion"),
    [
        ("key_diversity:frames=20", 140, {}),
        ("key_diversity:tokens=30000", 140, {}),
        ("full", 140, {}),
        # voxels so small that none is seen twice, until the cloud is full
        ("key_diversity:frames=20", 280, {"voxel_fraction": 1e-4, "max_points": 500_000}),
    ],
)
def test_the_predicted_peak_is_within_a_tenth_of_the_measured_one(tmp_path, memory, size, fusion):
    """Of a whole run of the bundled model, in a process of its own."""
    code = """
import json, sys
from importlib.resources import files
from everview.cli.main import main
from everview.outputs.fusion import FusionConfig
from everview.pipeline.peak import PeakMemory
import torch
clip = str(files("everview") / "assets/clips/office.mp4")
memory, size, fusion, out = sys.argv[1:]
FusionConfig.__init__.__kwdefaults__.update(json.loads(fusion))
if out:
    assert main(["run", clip, "-o", out, "--memory", memory, "--size", size]) == 0
    print(json.dumps(PeakMemory(torch.device("cpu")).peak))
else:
    assert main(["plan", clip, "--memory", memory, "--size", size, "-o", "plan.json"]) == 0
"""
    run, plan = (
        subprocess.run(
            [sys.executable, "-c", code, memory, str(size), json.dumps(fusion), out], cwd=tmp_path,
            capture_output=True, text=True, check=True,
        )
        for out in (str(tmp_path / "out"), "")
    )  # fmt: skip
    measured = json.loads(run.stdout.splitlines()[-1])
    predicted = json.loads((tmp_path / "plan.json").read_text())["peak_bytes"]
    assert 0.9 < predicted / measured < 1.1, (memory, predicted, measured, plan.stdout)
