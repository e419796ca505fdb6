"""Bounded memory against numbers of the reference (README_memory_quant.md beside this file)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from everview.memory.policies import parse
from everview.memory.reference import layer_budgets, share_budgets, survivors
from everview.memory.slots import SlotMemory
from everview.model.aggregator import Aggregator
from everview.model.config import Config
from everview.model.encoder import PatchProjection
from everview.model.heads.camera import CameraHead
from everview.model.layers.block import Attention
from everview.model.layers.rope import rotary_tables

FOLDER = Path(__file__).parent / "rolling_memory"


def read(name):
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        facts = {key: _parsed(value) for key, value in (file.metadata() or {}).items()}
        return {key: file.get_tensor(key) for key in file.keys()}, facts  # noqa: SIM118


def _parsed(text):
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def weights(tensors):
    return {name[2:]: tensor for name, tensor in tensors.items() if name.startswith("w.")}


EVICTION, CASES = read("eviction")


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: f"case {case['case']}")
def test_the_same_tokens_survive(case):
    c = f"c{case['case']}"
    keys = EVICTION[f"{c}.k"]
    index, score = survivors(keys, anchors=case["anchors"], budget=case["budget"])
    assert torch.equal(index, EVICTION[f"{c}.kept_index"].long())
    assert float(score) == pytest.approx(float(EVICTION[f"{c}.mean_score"]), abs=1e-6)


@pytest.mark.parametrize(
    "case", [c for c in CASES["cases"] if c["anchors"]], ids=lambda c: f"case {c['case']}"
)
def test_slots_keep_the_same_set(case):
    c, anchors, budget = f"c{case['case']}", case["anchors"], case["budget"]
    keys, values = EVICTION[f"{c}.k"], EVICTION[f"{c}.v"]
    memory = SlotMemory(parse(f"key_diversity:tokens={max(budget, 2 * anchors)}"), 0)
    memory.append(keys[:, :, :anchors], values[:, :, :anchors])
    memory.settle()
    memory.budget = budget
    memory.append(keys[:, :, anchors:], values[:, :, anchors:])
    memory.settle()
    for got, kind in zip(memory.read(), "kv", strict=True):
        expected = EVICTION[f"{c}.kept_{kind}"]
        order = [t.flatten(0, 1)[..., 0].sort(dim=-1).values for t in (got, expected)]
        torch.testing.assert_close(*order, rtol=0, atol=0)


def test_layers_get_the_same_budgets():
    tensors, facts = read("dynamic_budget")
    for case in facts["cases"]:
        b = f"b{case['case']}"
        got = layer_budgets(tensors[f"{b}.last_scores"], case["total"])
        assert all(abs(x - y) <= 1 for x, y in zip(got, tensors[f"{b}.budgets"], strict=True))


def test_one_attention_module_with_eviction():
    tensors, facts = read("attention_step")
    attention = Attention(facts["dim"], facts["heads"], qk_norm=True)
    attention.load_state_dict(weights(tensors), strict=True)
    like = tensors["t0.x"]
    rotary = rotary_tables(
        (4, 4), num_special=facts["special_tokens"], head_dim=facts["dim"] // facts["heads"],
        base=facts["rope_frequency"], like=like,
    )  # fmt: skip
    memory = parse(f"key_diversity:tokens={facts['budget']},reference=true").layer_memory(0)
    for t, length in enumerate(facts["lengths"]):
        with torch.no_grad():
            q, k, v = attention.project(tensors[f"t{t}.x"], rotary, 1)
            heads = attention.look_back(q, k, v, num_frames=1, memory=memory)
            y = attention.merge(heads)
        memory.settle()
        memory.budget = facts["budget"]
        torch.testing.assert_close(y, tensors[f"t{t}.y"], atol=1e-5, rtol=1e-5)
        assert memory.num_tokens == length
        for got, kind in zip(memory.read(), "kv", strict=True):
            torch.testing.assert_close(got, tensors[f"t{t}.{kind}"], atol=1e-5, rtol=1e-5)


class Projection(nn.Module):
    """Patches to tokens without an encoder, as in the golden network."""

    def __init__(self, dim):
        super().__init__()
        self.patches = PatchProjection(14, dim)

    def forward(self, images, grid):
        return self.patches(images)


def tiny_aggregator(tensors, facts):
    dim = facts["dim"]
    config = Config.from_dict(
        {
            "attention": "causal",
            "patch_embed": {"embed_dim": dim, "depth": 1, "num_heads": 2, "img_size": 56},
            "aggregator": {
                "embed_dim": dim, "depth": facts["depth"], "num_heads": facts["heads"],
                "mlp_ratio": facts["mlp_ratio"],
            },
            "camera_head": {"dim_in": 2 * dim, "num_heads": 2, "trunk_depth": 1},
            "depth_head": None, "point_head": None, "track_head": None,
        }
    )  # fmt: skip
    aggregator = Aggregator(config)
    aggregator.patch_embed = Projection(dim)
    stored = {
        name.replace("patch_embed.proj", "patch_embed.patches.proj"): tensor
        for name, tensor in weights(tensors).items()
    }
    aggregator.load_state_dict(stored, strict=True)
    return aggregator


@pytest.mark.parametrize("run", ["bounded", "unbounded"])
def test_a_small_aggregator_streams_as_published(run):
    tensors, facts = read("stream_tiny")
    config, expected = facts["config"], facts["runs"][run]
    aggregator = tiny_aggregator(tensors, config)
    text = f"key_diversity:tokens={expected['total'] // 2},reference=true"
    policy = parse(text)
    memories = [policy.layer_memory(i) for i in range(config["depth"])]
    for i, frame in enumerate(tensors["frames"]):
        if i:
            share_budgets(memories, expected["total"])
            assert [memory.budget for memory in memories] == expected["budgets"][i]
        with torch.no_grad():
            kept = aggregator(frame[None, None], first_frame=i, memories=memories)
        for memory in memories:
            memory.settle()
        tokens = kept[config["depth"] - 1][0, 0]
        torch.testing.assert_close(tokens, tensors[f"{run}.t{i}.tokens"], atol=1e-4, rtol=1e-4)
        assert [memory.num_tokens for memory in memories] == expected["lengths"][i]
    for layer, memory in enumerate(memories):
        for got, kind in zip(memory.read(), "kv", strict=True):
            torch.testing.assert_close(
                got, tensors[f"{run}.final.{kind}{layer}"], atol=1e-4, rtol=1e-4
            )


def test_an_unbounded_stream_equals_one_pass():
    tensors, facts = read("stream_tiny")
    aggregator = tiny_aggregator(tensors, facts["config"])
    with torch.no_grad():
        kept = aggregator(tensors["frames"][None])
    tokens = kept[facts["config"]["depth"] - 1][0]
    torch.testing.assert_close(tokens, tensors["oneshot.tokens"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("policy", ["full", "key_diversity:tokens=100,camera=8"])
@pytest.mark.parametrize("cache", ["oneshot_causal", "streaming_shared_cache"])
def test_the_camera_head_streams_with_either_cache(policy, cache):
    tensors, facts = read("camera_head_stream")
    config = Config.from_dict(
        {"camera_head": {
            "dim_in": facts["dim"], "num_heads": facts["heads"],
            "trunk_depth": facts["trunk_depth"], "num_iterations": facts["iterations"],
        }, "aggregator": {"embed_dim": facts["dim"] // 2, "num_heads": 2, "depth": 24},
         "patch_embed": {"embed_dim": facts["dim"] // 2, "num_heads": 2, "depth": 1},
         "depth_head": None, "point_head": None, "track_head": None}
    ).camera_head  # fmt: skip
    head = CameraHead(config, is_causal=True)
    head.load_state_dict(weights(tensors), strict=True)
    chosen = parse(policy)
    rounds = [
        [chosen.camera_memory() for _ in range(facts["trunk_depth"])]
        for _ in range(1 if cache == "streaming_shared_cache" else facts["iterations"])
    ]
    memories = rounds * (facts["iterations"] // len(rounds))
    for t, token in enumerate(tensors["pose_tokens"]):
        with torch.no_grad():
            got = head(token[None, None], memories=memories)[:, 0, 0]
        for blocks in rounds:
            for memory in blocks:
                memory.settle()
        torch.testing.assert_close(got, tensors[cache][t], atol=2e-5, rtol=2e-5)
