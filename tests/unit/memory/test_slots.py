"""Laws of the memory whose slots are overwritten in place."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from everview.errors import ConfigError
from everview.memory import POLICIES, parse
from everview.memory.layer_memory import LayerMemory
from everview.memory.policies import diversity
from everview.memory.reference import survivors
from everview.model.network import build
from everview.model.presets import presets

BOUNDED = [name for name in POLICIES if name != "full"]
IN_CODES = [f"{name}:bits={bits}," for name in BOUNDED for bits in (8, 4)]
WITH_ANY_BITS = [f"{name}:" for name in BOUNDED] + IN_CODES
P, H, D = 6, 2, 8


def frame(seed, batch=1, size=P):
    draws = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, H, size, D, generator=draws) for _ in range(3)]


def taken(memory, seed, batch=1, size=P):
    q, k, v = frame(seed, batch, size)
    memory.append(k, v)
    heads = memory.attend(q)
    memory.settle()
    return heads


def as_set(memory):
    """Keys and values of each head in an order of their own."""
    keys, values = memory.read()
    both = torch.cat([keys, values], dim=-1)
    order = both[..., 0].argsort(dim=-1)
    return both.gather(2, order[..., None].expand_as(both))


@settings(deadline=None, max_examples=30)
@given(frames=st.integers(2, 5), extra=st.integers(0, P - 1), length=st.integers(1, 12),
       batch=st.integers(1, 2), start=st.integers(0, 999))  # fmt: skip
def test_slots_hold_what_copying_the_survivors_would_hold(frames, extra, length, batch, start):
    budget = frames * P + extra
    memory = parse(f"key_diversity:tokens={budget}").layer_memory(0)
    plain = torch.zeros(batch, H, 0, 2 * D)
    for i in range(length):
        taken(memory, start + i, batch)
        _, k, v = frame(start + i, batch)
        plain = torch.cat([plain, torch.cat([k, v], dim=-1)], dim=2)
        if plain.shape[2] > budget:
            index, _ = survivors(plain[..., :D], anchors=P, budget=budget)
            plain = plain.gather(2, index[..., None].expand(-1, -1, -1, 2 * D))
    order = plain[..., 0].argsort(dim=-1)
    expected = plain.gather(2, order[..., None].expand_as(plain))
    torch.testing.assert_close(as_set(memory), expected, rtol=0, atol=0)


@pytest.mark.parametrize("start", WITH_ANY_BITS)
def test_nothing_grows_and_nothing_moves_over_hundreds_of_frames(start):
    memory = parse(f"{start}tokens=40").layer_memory(3)
    places, sizes = set(), set()
    for i in range(200):
        taken(memory, i)
        if i > 20:
            places.update(memory.tensors()[name].data_ptr() for name in ("keys", "values"))
            sizes.add((memory.reserved_bytes, memory.num_tokens))
    assert len(places) == 2
    assert len(sizes) == 1
    assert memory.num_tokens <= 40
    assert memory.num_evicted == 200 * P - memory.num_tokens


@pytest.mark.parametrize("name", BOUNDED)
def test_the_first_frame_stays_and_attention_is_over_the_past_and_the_whole_newest_frame(name):
    memory = parse(f"{name}:tokens=30").layer_memory(0)
    for i in range(9):
        held = memory.read() if i else (torch.zeros(1, H, 0, D),) * 2
        keys, values = (t.clone() for t in held)
        q, k, v = frame(i)
        heads = taken(memory, i)
        if "merge" in name and i > 4:
            continue
        expected = F.scaled_dot_product_attention(
            q, torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
        )
        torch.testing.assert_close(heads, expected)
    first = frame(0)[1]
    stays = (memory.read()[0][:, :, :, None] == first[:, :, None]).all(dim=-1).any(dim=2).all()
    assert bool(stays) == (name != "window")


@pytest.mark.parametrize("start", WITH_ANY_BITS)
def test_a_failed_step_changes_nothing(start):
    memory, other = (parse(f"{start}tokens=30").layer_memory(1) for _ in range(2))
    for i in range(12):
        q, k, v = frame(100 + i)
        before = memory.num_tokens
        memory.append(k, v)
        memory.attend(q)
        memory.truncate(before)
        torch.testing.assert_close(taken(memory, i), taken(other, i), rtol=0, atol=0)
    torch.testing.assert_close(as_set(memory), as_set(other), rtol=0, atol=0)


@pytest.mark.parametrize("start", WITH_ANY_BITS)
def test_a_stored_memory_goes_on_as_if_nothing_had_happened(start):
    memory = parse(f"{start}tokens=30").layer_memory(1)
    for i in range(9):
        taken(memory, i)
    stored = {key: tensor.clone() for key, tensor in memory.tensors().items()}
    other = parse(f"{start}tokens=30").layer_memory(1)
    other.restore(stored)
    for i in range(9, 15):
        torch.testing.assert_close(taken(memory, i), taken(other, i), rtol=0, atol=0)
    assert memory.num_evicted == other.num_evicted


@pytest.mark.parametrize("name", BOUNDED)
def test_with_room_for_all_every_policy_is_full_to_the_bit(name):
    memory, full = parse(f"{name}:tokens=72").layer_memory(1), LayerMemory()
    for i in range(12):
        q, k, v = frame(i)
        full.append(k, v)
        expected = full.attend(q)
        torch.testing.assert_close(taken(memory, i), expected, rtol=0, atol=0)


def test_the_order_of_keys_does_not_matter_to_attention():
    q, k, v = frame(0, size=60)
    order = torch.randperm(60)
    torch.testing.assert_close(
        F.scaled_dot_product_attention(q, k[:, :, order], v[:, :, order]),
        F.scaled_dot_product_attention(q, k, v),
        rtol=1e-5, atol=1e-6,
    )  # fmt: skip


def test_merged_duplicates_attend_as_if_all_were_there():
    memory, full = parse("merge:tokens=18").layer_memory(0), LayerMemory()
    q, k, v = frame(5)
    for i in range(5):  # a first frame, then the same one again and again
        keys, values = (k, v) if i else frame(1)[1:]
        full.append(keys, values)
        memory.append(keys, values)
        torch.testing.assert_close(memory.attend(q), full.attend(q), rtol=1e-5, atol=1e-5)
        memory.settle()
    assert memory.num_evicted > 0


@pytest.mark.parametrize("parts", [1, 2, 4, 5])
@pytest.mark.parametrize("name", ["merge", "late_merge"])
def test_merging_keeps_the_number_of_tokens_and_the_sum_of_their_values(name, parts, monkeypatch):
    monkeypatch.setattr(diversity, "PART", 4)
    memory = parse(f"{name}:tokens=29,nearness=0,parts={parts}").layer_memory(0)
    total = 0.0
    for i in range(9):
        q, k, v = frame(i)
        memory.append(k.abs(), v)  # all cosines are positive: everything can be merged
        memory.attend(q)
        memory.settle()
        total = total + v.sum(dim=2)
    held = memory.tensors()
    counts = held["log_count"].exp()
    assert memory.num_evicted == 9 * P - 29
    torch.testing.assert_close(counts.sum(dim=2), torch.full(counts.shape[:2], 9.0 * P))
    weighted = (counts[..., None] * held["values"]).sum(dim=2)
    torch.testing.assert_close(weighted, total, rtol=1e-4, atol=1e-4)


def test_parts_are_fewer_where_there_is_little_to_choose_from():
    memories = [parse(f"merge:tokens=18,parts={n}").layer_memory(0) for n in (1, 1000)]
    for i in range(6):
        for memory in memories:
            taken(memory, i)
    few, many = (memory.tensors() for memory in memories)
    assert all(torch.equal(few[name], many[name]) for name in few)


def test_late_merge_in_two_frames_is_merge():
    late, plain = (parse(f"{name}:frames=2").layer_memory(0) for name in ("late_merge", "merge"))
    for i in (0, 1, 1, 2, 3):
        taken(late, i)
        taken(plain, i)
    torch.testing.assert_close(as_set(late), as_set(plain))
    assert float(late.tensors()["log_count"].max()) > 0


def test_windows_forget_the_oldest():
    memory = parse("anchor_window:frames=3").layer_memory(0)
    for i in range(7):
        taken(memory, i)
    expected = torch.cat([torch.cat(frame(i)[1:], dim=-1) for i in (0, 5, 6)], dim=2)
    order = expected[..., 0].argsort(dim=-1)
    torch.testing.assert_close(
        as_set(memory), expected.gather(2, order[..., None].expand_as(expected)), rtol=0, atol=0
    )


def test_frame_cover_drops_the_repetition_and_keeps_what_differs():
    memory = parse("frame_cover:frames=4").layer_memory(0)
    for seed in (0, 1, 2, 3, 2):
        taken(memory, seed)
    expected = torch.cat([torch.cat(frame(i)[1:], dim=-1) for i in (0, 1, 2, 3)], dim=2)
    order = expected[..., 0].argsort(dim=-1)
    torch.testing.assert_close(
        as_set(memory), expected.gather(2, order[..., None].expand_as(expected)), rtol=0, atol=0
    )


@pytest.mark.parametrize("sizes", [((28, 42), (42, 56)), ((42, 56), (28, 42))])
@pytest.mark.parametrize("bits", ["", ",bits=8"])
@pytest.mark.parametrize("name", BOUNDED)
def test_frames_of_another_size_are_taken_or_refused_with_the_remedy(tiny, name, bits, sizes):
    stream = tiny.stream(f"{name}:frames=4{bits}")
    first, second = (torch.rand(3, *size) for size in sizes)
    for image in (first,) * 5:
        stream.step(image, dense=False)
    before = stream.report()
    for image in (second, second, first):
        if image is second and name in ("frame_cover", "coverage"):
            with pytest.raises(ConfigError, match="keeps whole frames of one size"):
                stream.step(image, dense=False)
            assert stream.report() == before
        else:
            stream.step(image, dense=False)
    assert stream.report().tokens == before.tokens


@pytest.mark.parametrize("name", ["frame_cover", "coverage"])
def test_whole_frames_are_kept_where_several_are_too_many(name):
    memory = parse(f"{name}:frames=5").layer_memory(0)
    for i in range(4):
        taken(memory, i)
    taken(memory, 4, size=3 * P)  # as three frames at once
    frames = memory.tensors()["order"].view(1, H, 5, P)
    assert (frames == frames[..., :1] + torch.arange(P)).all()
    assert (frames[..., 0] % P == 0).all()
    assert memory.num_evicted == 2 * P


def test_a_random_choice_is_a_reservoir():
    memory = parse("random:tokens=606").layer_memory(0)
    for i in range(400):
        taken(memory, i)
    ages = memory.tensors()["order"][:, :, P:].float() / (400 * P)
    assert abs(float(ages.mean()) - 0.5) < 0.03
    assert abs(float(ages.std()) - 12**-0.5) < 0.03


def test_every_seed_layer_and_head_draws_anew():
    seeds = (0, 1, -1, 255, 256, 2**32, 2**40, 2**56, 2**63 - 1)
    kept = set()
    for seed in seeds:
        for layer in (0, 1):
            memory = parse(f"random:tokens=30,seed={seed}").layer_memory(layer)
            for i in range(9):
                taken(memory, i)
            order = memory.tensors()["order"][0]
            kept.update(tuple(sorted(numbers.tolist())) for numbers in order)
    assert len(kept) == len(seeds) * 2 * H


POLICY_TEXTS = [
    "key_diversity:frames=3,camera=3",
    "merge:frames=3,camera=3",
    "coverage:frames=3,bits=8",
    "merge:frames=3,bits=4",
    "full:bits=8",
    "key_diversity:frames=3,budget=adaptive",
    "key_diversity:frames=3,reference=true",
]


class TestStreams:
    @pytest.fixture
    def tiny(self):
        return build(presets["tiny"], seed=1)

    @pytest.fixture
    def frames(self):
        return torch.rand(8, 3, 28, 42, generator=torch.Generator().manual_seed(3))

    @pytest.mark.parametrize("text", POLICY_TEXTS)
    def test_a_saved_stream_goes_on_to_the_bit(self, tiny, frames, tmp_path, text):
        stream = tiny.stream(text)
        for image in frames[:5]:
            stream.step(image)
        stream.save(tmp_path / "s.safetensors")
        other = tiny.resume(tmp_path / "s.safetensors")
        for image in frames[5:]:
            ours, theirs = stream.step(image), other.step(image)
            assert torch.equal(ours.pose_encoding, theirs.pose_encoding)
            assert torch.equal(ours.points, theirs.points)
        ours, theirs = stream.report(), other.report()
        if not ours.is_bounded:  # storage that grows by doubling starts anew
            theirs = dataclasses.replace(theirs, state_bytes=ours.state_bytes)
        assert ours == theirs

    @pytest.mark.parametrize("text", POLICY_TEXTS)
    def test_prefill_is_the_same_as_steps_and_undone_if_it_fails(
        self, tiny, frames, text, monkeypatch
    ):
        stepped, filled = tiny.stream(text), tiny.stream(text)
        for image in frames[:2]:
            stepped.step(image)
            filled.step(image)
        calls, dense = iter([False, False, False, True]), tiny.dense
        with monkeypatch.context() as patch:
            patch.setattr(tiny, "dense", lambda *a: 1 / 0 if next(calls) else dense(*a))
            with pytest.raises(ZeroDivisionError):
                filled.prefill(frames[None, 2:])
        one_by_one = [stepped.step(image) for image in frames[2:]]
        at_once = filled.prefill(frames[None, 2:])
        for i, step in enumerate(one_by_one):
            assert torch.equal(at_once.depth[:, i], step.depth[:, 0])
            assert torch.equal(at_once.pose_encoding[:, i], step.pose_encoding[:, 0])

    def test_streams_with_other_policies_do_not_touch_each_other(self, tiny, frames):
        alone = [[s.step(f) for f in frames] for s in map(tiny.stream, POLICY_TEXTS)]
        streams = [tiny.stream(text) for text in POLICY_TEXTS]
        for i, image in enumerate(frames):
            for stream, expected in zip(streams, alone, strict=True):
                assert torch.equal(stream.step(image).points, expected[i].points)

    @pytest.mark.parametrize("name", BOUNDED)
    def test_where_memory_runs_out_a_stream_goes_on_with_less(
        self, tiny, frames, tmp_path, name, monkeypatch
    ):
        stream = tiny.stream(f"{name}:frames=4")
        for image in frames[:5]:
            stream.step(image)
        before, most = stream.report(), parse(f"{name}:frames=4").tokens_for(11)
        with monkeypatch.context() as patch:
            _run_out_once(patch)
            stream.step(frames[5])
        after = stream.report()
        assert (before.shortages, after.shortages, after.frames) == (0, 1, 6)
        assert after.tokens <= 0.75 * most
        assert after.state_bytes < before.state_bytes
        assert after.policy == f"{name}:tokens={after.tokens}"
        stream.save(tmp_path / "s.safetensors")
        other = tiny.resume(tmp_path / "s.safetensors")
        for image in frames[6:]:
            assert torch.equal(stream.step(image).points, other.step(image).points)
        assert stream.report() == other.report()

    @pytest.mark.parametrize("text", ["full", "window:frames=2", "key_diversity:frames=2"])
    def test_where_nothing_can_be_given_up_the_error_stays(self, tiny, frames, text, monkeypatch):
        stream = tiny.stream(text)
        for image in frames[:3]:
            stream.step(image)
        before = stream.report()
        _run_out_once(monkeypatch, times=99)
        with pytest.raises(RuntimeError, match="can't allocate"):
            stream.step(frames[3])
        assert stream.report().frames == before.frames

    def test_the_report_tells_what_is_held_and_forgotten(self, tiny, frames):
        stream = tiny.stream("window:tokens=25,camera=4")
        sizes = set()
        for image in frames:
            stream.step(image)
            report = stream.report()
            sizes.add(report.state_bytes - report.fixed_bytes)
        assert (report.tokens, report.evictions) == (25, 8 * 11 - 25)
        assert report.cache_bytes == 2 * tiny.config.aggregator.depth * 25 * 4 * (
            tiny.config.aggregator.embed_dim
        )
        assert len(sizes) == 1
        assert report.is_bounded

    def test_too_small_a_budget_is_refused_by_the_first_step(self, tiny, frames):
        stream = tiny.stream("coverage:tokens=21")
        with pytest.raises(ConfigError, match="write coverage:tokens=22"):
            stream.step(frames[0])
        assert stream.num_frames == 0


def _run_out_once(monkeypatch, times=1):
    """Storing a frame fails, in the middle of a step, as it does when memory is short."""
    append, failures = LayerMemory.append, iter(range(times))

    def failing(memory, keys, values):
        if getattr(memory, "layer", 1) == 1 and next(failures, None) is not None:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")
        append(memory, keys, values)

    monkeypatch.setattr(LayerMemory, "append", failing)
