"""Laws of keys and values in few bits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from everview.memory import POLICIES, parse
from everview.memory.codes import EVERYTHING, GROUP, HEAD_ROOM, Codes
from everview.memory.layer_memory import LayerMemory

H, D = 2, 64


def tokens(seed, n=24, batch=1, spread=1.0):
    draws = torch.Generator().manual_seed(seed)
    scales = torch.rand(1, H, 1, D, generator=draws) * spread + 0.1
    return [torch.randn(batch, H, n, D, generator=draws) * scales for _ in range(3)]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 9999), bits=st.sampled_from([8, 4]), batch=st.integers(1, 2),
       spread=st.floats(0, 30))  # fmt: skip
def test_what_is_read_is_within_half_a_step_of_what_was_kept(seed, bits, batch, spread):
    codes = Codes(bits)
    _, keys, values = tokens(seed, batch=batch, spread=spread)
    held = codes.encode(keys, values)
    again = codes.decode_keys(held["keys"], EVERYTHING, torch.float32)
    reach = keys.amax(dim=2, keepdim=True) - keys.amin(dim=2, keepdim=True)
    step = HEAD_ROOM[bits] * reach / (2**bits - 1)
    # Scale and offset are float16: 2^-11 of their size each, the scale once per step.
    rounding = keys.abs().amax(dim=2, keepdim=True) * 2**-10
    assert ((again - keys).abs() <= 0.501 * step + rounding + 1e-6).all()
    read = codes.decode_values(held, torch.float32)
    grouped = values.unflatten(-1, (-1, GROUP))
    reach = grouped.amax(dim=-1) - grouped.amin(dim=-1)
    rounding = grouped.abs().amax(dim=-1) * 2**-9
    allowed = (0.501 * reach / (2**bits - 1) + rounding)[..., None].expand_as(grouped).flatten(-2)
    assert ((read - values).abs() <= allowed + 1e-6).all()


@pytest.mark.parametrize("bits", [8, 4])
def test_keys_beyond_the_range_of_the_first_frame_saturate(bits):
    codes = Codes(bits)
    _, keys, values = tokens(0)
    codes.encode(keys, values)
    held = codes.encode(100 * keys, values)
    read = codes.decode_keys(held["keys"], EVERYTHING, torch.float32)
    middle = (keys.amax(dim=2) + keys.amin(dim=2)) / 2
    half = HEAD_ROOM[bits] * (keys.amax(dim=2) - keys.amin(dim=2)) / 2
    assert ((read - middle[:, :, None]).abs() <= half[:, :, None] * 1.002).all()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("bits", [16, 8, 4])
def test_attention_is_over_the_decoded_past_and_the_newest_frame_as_it_is(bits, batch):
    memory = LayerMemory(bits)
    for i in range(4):
        q, k, v = tokens(i, batch=batch)
        past = memory.read() if i else (torch.zeros(batch, H, 0, D),) * 2
        memory.append(k, v)
        heads = memory.attend(q)
        memory.settle()
        expected = F.scaled_dot_product_attention(
            q, torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        )
        torch.testing.assert_close(heads, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("bits", "share"), [(16, 0.5), (8, 0.27), (4, 0.145)])
def test_bytes_are_what_the_formula_says(bits, share):
    memory = LayerMemory(bits)
    full = LayerMemory()
    for i in range(20):
        _, k, v = tokens(i, n=70)
        memory.append(k, v)
        memory.settle()
        full.append(k, v)
    scales = 0 if bits == 16 else 2 * H * D * 2
    groups = 0 if bits == 16 else D // GROUP
    assert memory.used_bytes == 20 * 70 * H * (2 * D * bits // 8 + 4 * groups) + scales
    assert memory.used_bytes <= share * full.used_bytes


@pytest.mark.parametrize("d", [32, 64])
def test_codes_of_two_small_frames_are_within_their_share_too(d):
    memory, full = parse("key_diversity:frames=2,bits=8").layer_memory(0), LayerMemory()
    for i in range(2):
        _, k, v = tokens(i, n=75)
        for one in (memory, full):
            one.append(k[..., :d], v[..., :d])
            one.settle()
    assert memory.used_bytes <= 0.27 * full.used_bytes


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("d", "group"), [(8, 8), (20, 20), (40, 20), (48, 24), (72, 24), (96, 32)])
def test_heads_of_any_width_are_held_in_groups_that_fill_them(d, group, bits):
    memory, codes = LayerMemory(bits), Codes(bits)
    q, k, v = (
        torch.randn(1, H, 9, d, generator=torch.Generator().manual_seed(i)) for i in range(3)
    )
    held = codes.encode(k, v)
    assert held["value_scale"].shape == (1, H, 9, d // group)
    step = held["value_scale"].amax(dim=-1, keepdim=True).float()
    assert ((codes.decode_values(held) - v).abs() <= 0.51 * step + 2e-3).all()
    for _ in range(3):
        memory.append(k, v)
        assert memory.attend(q).isfinite().all()
        memory.settle()


@pytest.mark.parametrize("bits", [8, 4])
def test_channels_without_range_and_far_from_zero_are_kept_as_exactly_as_float16(bits):
    codes = Codes(bits)
    keys = torch.tensor([0.0, 1e-7, 3.3, -700.0, 1e-3]).expand(1, 1, 24, 5)
    keys = torch.cat([keys, keys.flip(-1)[..., :3]], dim=-1).contiguous()
    read = codes.decode_keys(codes.encode(keys, keys)["keys"], EVERYTHING)
    torch.testing.assert_close(read, keys, rtol=2**-10, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_of_a_network_of_sixteen_bits_are_its_own(dtype):
    memory, full = LayerMemory(16), LayerMemory()
    for i in range(3):
        q, k, v = (t.to(dtype) for t in tokens(i))
        for one in (memory, full):
            one.append(k, v)
        torch.testing.assert_close(memory.attend(q), full.attend(q), rtol=0, atol=0)
        memory.settle()


def test_sixteen_bits_never_become_infinite():
    memory = LayerMemory(16)
    _, k, v = tokens(0)
    memory.append(k, 1e6 * v)
    assert all(t.isfinite().all() for t in memory.read())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bits", [None, 16, 8, 4])
@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_takes_every_type_in_every_number_of_bits(name, bits, dtype):
    options = [] if name == "full" else ["tokens=36"]
    options += [] if bits is None else [f"bits={bits}"]
    memory = parse(":".join([name, ",".join(options)])).layer_memory(0)
    for i in range(5):
        q, k, v = (t.to(dtype) for t in tokens(i, n=12))
        memory.append(k, v)
        heads = memory.attend(q)
        memory.settle()
        assert heads.dtype == dtype
        assert heads.isfinite().all()
    assert memory.num_tokens == (60 if name == "full" else 36)


def test_merged_duplicates_attend_as_if_all_were_there_in_codes_too():
    memory, full = parse("merge:tokens=48,bits=8").layer_memory(0), LayerMemory()
    q, k, v = tokens(5, spread=0)
    for i in range(10):  # a first frame, then the same one again and again
        keys, values = (k, v) if i else tokens(1, spread=0)[1:]
        full.append(keys, values)
        memory.append(keys, values)
        error = (memory.attend(q) - full.attend(q)).abs().mean()
        assert error < 2e-3 * v.abs().mean(), f"frame {i}"  # 0.06 without counts
        memory.settle()
    assert memory.num_evicted == 8 * 24
