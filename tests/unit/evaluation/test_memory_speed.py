"""The cache that ours is compared with is a fair one, and the benchmark says what it measured."""

import json

import pytest
import torch

from everview.cli.main import main
from everview.evaluation.memory_speed import (
    Concatenated,
    MemorySpeedSettings,
    measure_memory_speed,
)
from everview.memory.layer_memory import LayerMemory
from everview.memory.policies import parse
from everview.memory.reference import ReferenceMemory
from everview.memory.size import TokenShape

SHAPE = TokenShape(
    layers=1, heads=2, head_dim=8, per_frame=6, dtype=torch.float32, device=torch.device("cpu")
)


def frames(count):
    return torch.randn(count, 3, 1, 2, 6, 8)


def test_the_growing_cache_attends_as_ours_does():
    plain, ours = Concatenated(), LayerMemory()
    for q, k, v in frames(5):
        ours.append(k, v)
        torch.testing.assert_close(plain.frame(q, k, v), ours.attend(q), rtol=0, atol=0)
        ours.settle()


def test_the_cache_that_forgets_is_the_published_one():
    plain = Concatenated(20)
    published = parse("key_diversity:tokens=20,reference=true").layer_memory(0)
    assert isinstance(published, ReferenceMemory)
    for q, k, v in frames(7):
        published.budget = 20
        published.append(k, v)
        torch.testing.assert_close(plain.frame(q, k, v), published.attend(q), rtol=0, atol=0)
        published.settle()


def test_every_policy_and_length_has_a_row():
    settings = MemorySpeedSettings(
        policies=["full", "window", "merge:bits=8"], frames=(3, 5), repetitions=2
    )
    result = measure_memory_speed(SHAPE, settings)
    assert [(row["policy"], row["frames"]) for row in result["rows"]] == [
        (policy, count) for count in (3, 5) for policy in settings.policies
    ]
    for row in result["rows"]:
        assert row["tokens"] == 6 * row["frames"]
        assert min(row[key] for key in row if key.endswith("seconds")) > 0
        assert row["speed_up"] > 0


def test_the_verb_writes_it_for_a_preset_without_making_the_network(tmp_path, monkeypatch):
    monkeypatch.setattr("everview.model.network.build", None)
    out = tmp_path / "speed.json"
    call = ["bench", "memory", "--model", "tiny", "--size", "28", "42", "--past", "3"]
    assert main([*call, "-o", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["shape"]["tokens_per_frame"] == 5 + 2 * 3
    assert {"window", "late_merge", "key_diversity:bits=4"} <= {r["policy"] for r in result["rows"]}


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (["--past", "0"], "--past must be 1 or more, got 0"),
        (["--threads", "0"], "--threads must be 1 or more, got 0"),
        (["--size", "30", "42"], "multiples of 14, such as 28 42"),
    ],
)
def test_what_cannot_be_measured_is_refused(capsys, wish, words):
    for what in ("memory", "latency"):
        assert main(["bench", what, "--model", "tiny", *wish]) == 2
        assert words in capsys.readouterr().err
