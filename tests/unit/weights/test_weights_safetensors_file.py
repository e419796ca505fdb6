import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from everview.errors import WeightsError
from everview.weights.safetensors_file import open_safetensors


@pytest.fixture
def values():
    return {
        "a.weight": torch.randn(3, 5),
        "b": torch.randn(2, 3, 4).bfloat16(),
        "c": torch.randn(7).half(),
        "d": torch.tensor(3.5, dtype=torch.float64),
        "e": torch.zeros(0, 4),
        "f": torch.tensor([True, False]),
        "g": torch.tensor([[1, -2]], dtype=torch.int64),
    }


@pytest.fixture
def path(values, tmp_path):
    save_file(values, tmp_path / "x.safetensors", metadata={"note": "hello"})
    return tmp_path / "x.safetensors"


def test_values_equal_those_that_the_safetensors_package_wrote(path, values):
    file = open_safetensors(path)
    assert file.metadata["note"] == "hello"
    read = dict(file.read())
    assert read.keys() == values.keys()
    for name, value in values.items():
        assert read[name].dtype == value.dtype
        torch.testing.assert_close(read[name], value, rtol=0, atol=0)


def test_values_stay_when_the_file_is_emptied_afterwards(path, values):
    read = dict(open_safetensors(path).read())
    path.write_bytes(b"")
    torch.testing.assert_close(read["a.weight"], values["a.weight"], rtol=0, atol=0)


def test_a_file_that_lacks_its_end_names_sizes_and_the_first_value_that_is_cut(path):
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    last = max(open_header(path).items(), key=lambda item: item[1]["data_offsets"][1])[0]
    with pytest.raises(WeightsError, match=f"{size - 1:,} bytes.* promises {size:,}.*'{last}'"):
        open_safetensors(path)


def test_a_file_that_lost_bytes_while_it_was_read_names_the_value(path):
    file = open_safetensors(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(WeightsError, match="changed while being read"):
        dict(file.read())


def test_bytes_behind_the_last_value_are_refused(path):
    path.write_bytes(path.read_bytes() + b"abc")
    with pytest.raises(WeightsError, match="3 more than its header"):
        open_safetensors(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 bytes"),
        (struct.pack("<Q", 1000) + b"{}", "cut off in its header.* byte 1,008"),
        (struct.pack("<Q", 4) + b"nope", "no JSON"),
        (struct.pack("<Q", 2) + b"[]", "list, not a JSON object"),
        (b"PK\x03\x04" + bytes(30), "looks like a PyTorch file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        (b"<!DOCTYPE html><html>sign in</html>", "web page"),
    ],
)
def test_other_kinds_of_files_are_told_apart(content, message, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        open_safetensors(path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}, "takes 8 bytes"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}, "takes 8 bytes"),
        ({"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}, "stored as 'F4'"),
        ({"dtype": "F32", "shape": [2]}, "lacks dtype, shape or offsets"),
        ("nonsense", "lacks dtype, shape or offsets"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused_by_name(entry, message, tmp_path):
    header = json.dumps({"layer.weight": entry}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(WeightsError, match=f"'layer.weight'.*{message}"):
        open_safetensors(path)


def open_header(path):
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    return {name: entry for name, entry in header.items() if name != "__metadata__"}
