import hashlib
import json
import stat
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from everview.errors import ConfigError
from everview.model.network import build
from everview.model.presets import presets
from everview.weights.hashes import file_hash, weights_hash
from everview.weights.load import load
from everview.weights.save import save


def test_a_smaller_dtype_is_what_lies_in_the_file(tiny, tmp_path):
    folder = save(tiny, tmp_path / "m", dtype=torch.float16, info={"license": "Apache-2.0"})
    with safe_open(folder / "weights.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
    content = json.loads((folder / "config.json").read_text())
    assert content["info"] == {"license": "Apache-2.0"}
    assert content["format"] == 1
    rounded = tiny.camera_head.token_norm.weight.half().float()
    found = load(folder, device="cpu").camera_head.token_norm.weight
    torch.testing.assert_close(found, rounded, rtol=0, atol=0)


def test_files_are_readable_by_others_and_nothing_temporary_is_left(tiny, tmp_path):
    folder = save(tiny, tmp_path / "m")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "weights.safetensors"]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert len(modes) == 1, "as the user's umask has it, for both"


def test_a_failure_leaves_the_old_files_as_they_were(tiny, tmp_path, monkeypatch):
    folder = save(tiny, tmp_path / "m")
    before = (folder / "weights.safetensors").read_bytes()

    def fail(values, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("everview.weights.save.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save(build(presets["tiny"], seed=2), folder)
    assert (folder / "weights.safetensors").read_bytes() == before


@given(most=st.integers(1, 3_000_000))
@settings(max_examples=10, deadline=None)
def test_shards_are_small_and_hold_everything(tiny, most):
    with tempfile.TemporaryDirectory() as place:
        folder = save(tiny, Path(place) / "m", shard_bytes=most)
        assert weights_hash(load(folder, device="cpu")) == weights_hash(tiny)
        for path in folder.glob("*.safetensors"):
            with safe_open(path, "pt") as file:
                sizes = [file.get_tensor(name).nbytes for name in file.keys()]  # noqa: SIM118
            assert sum(sizes) <= most or len(sizes) == 1


def test_a_folder_changes_from_one_file_to_several_and_back(tiny, tmp_path):
    folder = save(tiny, tmp_path / "m")
    (folder / "weights-mine.safetensors").write_text("not ours")
    other = build(presets["tiny"], seed=2)
    for shard_bytes, count in ((1_000_000, 3), (600_000, 4), (None, 1)):
        save(other, folder, shard_bytes=shard_bytes)
        assert len(list(folder.glob("*.safetensors"))) == count + 1
        assert (folder / "weights.safetensors.index.json").exists() == (count > 1)
        assert weights_hash(load(folder, device="cpu")) == weights_hash(other)
    assert (folder / "weights-mine.safetensors").read_text() == "not ours"
    with pytest.raises(ConfigError, match="shard_bytes must be 1 or more, got 0"):
        save(other, folder, shard_bytes=0)


def test_values_too_large_for_the_dtype_are_named(tmp_path):
    network = build(presets["tiny"], seed=2)
    with torch.no_grad():
        network.camera_head.token_norm.weight[0] = 1e6
    with pytest.raises(ConfigError, match=r"camera_head.token_norm.weight does not fit .*bfloat16"):
        save(network, tmp_path / "m", dtype=torch.float16)
    assert not (tmp_path / "m").exists()
    with pytest.raises(ConfigError, match="floating point"):
        save(network, tmp_path / "m", dtype=torch.int8)


def test_the_hash_belongs_to_the_values_not_to_the_file(tiny, tmp_path):
    folder = save(tiny, tmp_path / "m")
    torch.save(tiny.state_dict(), folder / "stream.pt")
    expected = weights_hash(tiny)
    assert weights_hash(load(folder, device="cpu")) == expected
    assert weights_hash(load(folder / "stream.pt", device="cpu")) == expected
    other = load(folder, device="cpu")
    with torch.no_grad():
        other.camera_head.token_norm.bias[0] += 1e-7
    assert weights_hash(other) != expected
    assert weights_hash(load(folder, device="cpu", precision="bfloat16")) != expected


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert file_hash(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()
