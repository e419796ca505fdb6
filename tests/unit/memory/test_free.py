import pytest
import torch

from everview.memory import free
from everview.memory.free import free_memory
from everview.model.network import build
from everview.model.presets import presets

CPU = torch.device("cpu")


@pytest.fixture
def system(monkeypatch, tmp_path):
    """A Linux whose files are given as text."""
    monkeypatch.setattr(free, "ROOT", tmp_path)

    def write(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    write({"proc/meminfo": "MemFree: 10 kB\nMemAvailable:    4000 kB\n"})
    return write


def test_what_files_hold_for_the_time_being_is_free(system):
    assert free_memory(CPU) == 4_096_000


def test_a_control_group_leaves_less(system):
    system({
        "proc/self/cgroup": "0::/box/inner\n",
        "sys/fs/cgroup/box/memory.max": "3000000",
        "sys/fs/cgroup/box/memory.current": "1200000",
        "sys/fs/cgroup/box/memory.stat": "anon 5\ninactive_file 200000\n",
        "sys/fs/cgroup/box/inner/memory.max": "max",
        "sys/fs/cgroup/box/inner/memory.current": "1000",
    })  # fmt: skip
    assert free_memory(CPU) == 2_000_000


def test_a_container_sees_its_own_group_at_the_top(system):
    system({
        "proc/self/cgroup": "3:cpu,memory:/host/path\n2:cpu:/host/path\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "700",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "800",
    })  # fmt: skip
    assert free_memory(CPU) == 0


def test_other_systems_do_not_tell(system, tmp_path):
    (tmp_path / "proc/meminfo").unlink()
    assert free_memory(CPU) is None


@pytest.mark.parametrize("num_bytes", [0, 10_000])
def test_a_stream_that_nobody_chose_starts_with_hardly_any_memory(monkeypatch, num_bytes):
    monkeypatch.setattr("everview.model.network.free_memory", lambda _: num_bytes)
    stream = build(presets["tiny"], seed=1).stream()
    for image in torch.rand(4, 3, 56, 84):
        stream.step(image)
    assert stream.report().tokens == 2 * (1 + 4 + 24)
