import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from everview.memory.layer_memory import LayerMemory


def tokens(n, start=0):
    values = torch.arange(start, start + n, dtype=torch.float32)
    return values.view(1, 1, n, 1).expand(2, 3, n, 4).contiguous()


@settings(deadline=None)
@given(counts=st.lists(st.integers(1, 7), min_size=1, max_size=20))
def test_what_was_appended_is_read_in_order_and_little_is_reserved(counts):
    memory, total = LayerMemory(), 0
    for n in counts:
        memory.append(tokens(n, total), -tokens(n, total))
        total += n
        keys, values = memory.read()
        torch.testing.assert_close(keys, tokens(total), rtol=0, atol=0)
        torch.testing.assert_close(values, -tokens(total), rtol=0, atol=0)
        assert memory.used_bytes == 2 * 2 * 3 * total * 4 * 4
        assert memory.used_bytes <= memory.reserved_bytes <= 2 * memory.used_bytes


def test_storage_is_moved_a_logarithmic_number_of_times():
    memory, places = LayerMemory(), set()
    for i in range(1000):
        memory.append(tokens(1, i), tokens(1, i))
        places.add(memory.read()[0].data_ptr())
    assert len(places) <= 11


def test_truncate_undoes_appends():
    memory = LayerMemory()
    memory.append(tokens(3), tokens(3))
    memory.append(tokens(2, 100), tokens(2, 100))
    memory.truncate(3)
    memory.append(tokens(1, 3), tokens(1, 3))
    torch.testing.assert_close(memory.read()[0], tokens(4), rtol=0, atol=0)


def test_an_empty_memory_holds_nothing():
    assert LayerMemory().used_bytes == LayerMemory().reserved_bytes == 0


def test_storage_that_runs_out_halfway_leaves_all_tokens_in_place(monkeypatch):
    memory = LayerMemory()
    memory.append(tokens(2), -tokens(2))
    calls, empty = iter([False, True]), torch.empty
    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", lambda *a, **k: 1 / 0 if next(calls) else empty(*a, **k))
        with pytest.raises(ZeroDivisionError):
            memory.append(tokens(1, 2), -tokens(1, 2))
    memory.append(tokens(1, 2), -tokens(1, 2))
    keys, values = memory.read()
    torch.testing.assert_close(keys, tokens(3), rtol=0, atol=0)
    torch.testing.assert_close(values, -tokens(3), rtol=0, atol=0)
