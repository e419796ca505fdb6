"""The published order, against the text of rolling_memory.md 2, step by step."""

import pytest
import torch

from everview.errors import ConfigError
from everview.memory import parse
from everview.memory.reference import layer_budgets, safe_budget

P, H, D, LAYERS = 11, 2, 8, 4


def frame(seed, alike):
    """Keys and values of all layers; those of the first layer are as alike as told."""
    draws = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, LAYERS, 1, H, P, D, generator=draws)
    keys[0] = keys[0] * (1 - alike) + alike
    return keys, values


def published(keys, budget, anchors):
    """Indexes that stay in one layer, and the score."""
    unit = torch.nn.functional.normalize(keys[:, :, anchors:].double(), dim=-1)
    similarity = (unit * unit.mean(dim=2, keepdim=True)).sum(dim=-1)
    kept = similarity.argsort(dim=-1)[..., : budget - anchors].sort(dim=-1).values + anchors
    first = torch.arange(anchors).expand(*keys.shape[:2], -1)
    return torch.cat([first, kept], dim=-1)[..., None].expand(-1, -1, -1, D), similarity.mean()


@pytest.mark.parametrize("alike", [0.0, 0.25])
@pytest.mark.parametrize("tokens", [12, 13, 14, 15, 18, 21, 22, 40])
def test_every_budget_above_the_first_frame_is_served_as_published(tokens, alike):
    policy = parse(f"key_diversity:tokens={tokens},reference=true")
    memories = [policy.layer_memory(i) for i in range(LAYERS)]
    held = [torch.zeros(2, 1, H, 0, D) for _ in memories]
    scores = torch.zeros(LAYERS)
    for i in range(12):
        budgets = layer_budgets(scores, LAYERS * tokens)
        keys, values = frame(i, alike)
        if min(budgets) < P:
            poorest = memories[budgets.index(min(budgets))]
            with pytest.raises(ConfigError, match="write key_diversity:tokens=70,"):
                poorest.append(keys[0], values[0])
            return
        for layer, memory in enumerate(memories):
            memory.append(keys[layer], values[layer])
            both = torch.stack([keys[layer], values[layer]])
            both = torch.cat([held[layer], both], dim=3)
            if both.shape[3] > budgets[layer]:
                index, scores[layer] = published(both[0], budgets[layer], P)
                both = torch.stack([tensor.gather(2, index) for tensor in both])
            held[layer] = both
            for ours, theirs in zip(memory.read(), both, strict=True):
                assert torch.equal(ours, theirs)
            memory.settle()
        policy.balance(memories, i + 1)


def test_a_share_of_just_the_first_frame_keeps_just_that():
    memory = parse("key_diversity:tokens=22,reference=true").layer_memory(0)
    first, values = (tensor[0] for tensor in frame(0, 0.0))
    memory.append(first, values)
    memory.settle()
    memory.budget = P
    memory.append(frame(1, 0.0)[0][0], values)
    assert torch.equal(memory.read_keys(), first)


def test_the_safe_budget_leaves_every_layer_its_anchors_whatever_the_scores():
    for layers, anchors in ((2, 9), (4, 11), (24, 1041), (24, 1374)):
        scores = torch.zeros(layers)
        scores[0] = 1  # the others differ as much as can be
        total = layers * safe_budget(anchors, layers)
        assert anchors < min(layer_budgets(scores, total)) <= anchors + 2
    assert 24 * safe_budget(1041, 24) - 178129 in range(24)  # rolling_memory.md 4.2


def test_a_budget_of_the_first_frame_alone_is_refused_with_the_least():
    memory = parse(f"key_diversity:tokens={P},reference=true").layer_memory(0)
    with pytest.raises(ConfigError, match=f"write key_diversity:tokens={P + 1} "):
        memory.append(*(tensor[0] for tensor in frame(0, 0.0)))
