import pytest
import torch

from everview.errors import ConfigError
from everview.memory import POLICIES, parse
from everview.memory.policies import automatic

BOUNDED = [name for name in POLICIES if name != "full"]


def test_text_and_policy_are_the_same_thing():
    for text in (
        "full",
        "window:tokens=50",
        "full:bits=8",
        "random:frames=3,bits=4",
        "random:frames=3,seed=2",
        "coverage:frames=4,recent=0.25",
        "key_diversity:tokens=25000,camera=64,budget=adaptive",
        "merge:tokens=9,nearness=0.9",
        "key_diversity:tokens=25000,reference=true",
    ):
        assert parse(parse(text).text) == parse(text)
        assert sorted(parse(text).text.split(",")) == sorted(text.split(","))


def test_auto_is_bounded_and_smaller_where_little_is_free():
    assert parse("auto") == automatic()
    assert automatic(free_bytes=40_000_000, values=250).tokens == automatic().tokens == 8000
    assert automatic(free_bytes=4_000_000, values=250).tokens == 1000


def test_auto_keeps_two_frames_however_little_memory_is_free():
    def least(free_bytes):
        return automatic(free_bytes=free_bytes, values=256, per_frame=100)

    assert (least(10**6).tokens, least(10**6).bits) == (244, None)
    assert (least(500_000).tokens, least(500_000).bits) == (459, 8)
    assert (least(200_000).tokens, least(200_000).bits) == (347, 4)
    nothing = least(0)
    assert nothing.bits == 4
    assert nothing.tokens_for(5000) == 10_000
    assert parse(nothing.text) == nothing


def test_of_tokens_and_frames_the_larger_budget_counts():
    both = parse("window:tokens=100,frames=3")
    assert both.tokens_for(20) == 100
    assert both.tokens_for(50) == 150


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "'nothing' is unknown; choose from full, window, anchor_window"),
        ("full:tokens=3", "no option 'tokens'; its options are bits"),
        ("window:frame=3", "no option 'frame'; its options are tokens, frames, camera"),
        ("window", "needs a budget: window:tokens=8000"),
        ("window:tokens=many", "tokens is a whole number, got 'many'"),
        ("key_diversity:tokens=2e3", "tokens is a whole number, got '2e3'"),
        ("key_diversity:frames=2.5", "frames is a whole number, got '2.5'"),
        ("merge:tokens=50,nearness=much", "nearness is a number, got 'much'"),
        ("window:tokens=99999999999999999999", "tokens must be <= 2147483647, got 9999"),
        ("window:tokens=50,camera=2147483648", "camera must be <= 2147483647"),
        (
            "random:tokens=50,seed=99999999999999999999",
            r"seed must be from -2\^63 to 2\^63 - 1, got",
        ),
        ("value_aware:tokens=50,weight=nan", "weight is a finite number, got nan"),
        ("value_aware:tokens=50,weight=inf", "weight is a finite number, got inf"),
        ("window:tokens=0", "tokens must be >= 1, got 0"),
        ("random:frames=1", "frames must be >= 2, got 1"),
        ("key_diversity:tokens=5,reference=yes", "true or false, got 'yes'"),
        ("key_diversity:tokens=5,budget=fair", "budget is uniform or adaptive, got fair"),
        ("coverage:frames=5,recent=1", r"recent is a share in \[0, 1\), got 1"),
        ("merge:tokens=5,parts=0", "parts must be >= 1, got 0"),
        ("late_merge:tokens=5,nearness=-0.1", r"nearness is a cosine in \[0, 1\], got -0.1"),
        ("key_diversity:tokens=5,reference=true,bits=8", "leave bits out"),
        ("value_aware:tokens=50,reference=true", "write key_diversity:tokens=8000,reference=true"),
        ("merge:tokens=50,reference=true", "'merge' was never published"),
        ("late_merge:tokens=50,reference=true", "leave it out, or write key_diversity"),
        ("window:tokens=5,bits=3", "bits must be 16, 8, 4, got 3"),
    ],
)
def test_what_cannot_be_is_refused_by_name(text, message):
    with pytest.raises(ConfigError, match=message):
        parse(text)


@pytest.mark.parametrize("name", BOUNDED)
def test_a_budget_below_two_frames_is_refused_with_the_least(name):
    policy = parse(f"{name}:tokens=15")
    memory = policy.layer_memory(0)
    frame = torch.zeros(1, 2, 8, 4)
    if name == "window":
        memory.append(frame, frame)
        return
    with pytest.raises(ConfigError, match=f"have 8 and 16 are the least: write {name}:tokens=16"):
        memory.append(frame, frame)
    assert memory.num_tokens == 0
