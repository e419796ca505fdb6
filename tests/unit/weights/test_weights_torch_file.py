import argparse

import pytest
import torch

from everview.errors import WeightsError
from everview.weights.torch_file import open_torch_file


@pytest.fixture
def values():
    return {"a.weight": torch.randn(30, 50), "b": torch.randn(20).half()}


def read(path):
    return dict(open_torch_file(path).read())


def assert_same(read, values):
    assert read.keys() == values.keys()
    for name, value in values.items():
        torch.testing.assert_close(read[name], value.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("key", [None, "model", "state_dict", "model_state_dict"])
@pytest.mark.parametrize("zipped", [True, False])
def test_parameters_are_found_at_the_top_or_one_level_below(key, zipped, values, tmp_path):
    checkpoint = values if key is None else {"epoch": 3, key: values, "lr": 1e-4}
    torch.save(checkpoint, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    assert_same(read(tmp_path / "x.pt"), values)


def test_names_and_shapes_are_known_before_values_are_read(values, tmp_path):
    torch.save(values, tmp_path / "x.pt")
    opened = open_torch_file(tmp_path / "x.pt").values
    assert all(value.is_meta for value in opened.values())
    assert {k: (v.shape, v.dtype) for k, v in opened.items()} == {
        k: (v.shape, v.dtype) for k, v in values.items()
    }


def test_trained_parameters_come_without_their_history(tmp_path):
    torch.save(torch.nn.Linear(3, 2).state_dict(keep_vars=True), tmp_path / "x.pt")
    assert not any(value.requires_grad for value in read(tmp_path / "x.pt").values())


def test_a_checkpoint_with_a_large_optimizer_state_is_mapped_and_its_values_outlive_the_file(
    values, tmp_path, monkeypatch
):
    path = tmp_path / "x.pt"
    torch.save({"model": values, "optimizer": torch.zeros(20_000)}, path)
    mapped = []
    original = torch.load
    monkeypatch.setattr(
        torch, "load", lambda *a, **k: mapped.append(k["mmap"]) or original(*a, **k)
    )
    result = read(path)
    assert mapped == [False, True]
    path.unlink()
    assert_same(result, values)


def test_values_that_share_memory_or_are_windows_into_more_become_independent(tmp_path):
    base = torch.randn(100, 100)
    torch.save({"window": base[:2], "turned": base.T, "twin": base}, tmp_path / "x.pt")
    result = read(tmp_path / "x.pt")
    assert_same(result, {"window": base[:2], "turned": base.T, "twin": base})
    pointers = {value.untyped_storage().data_ptr() for value in result.values()}
    assert len(pointers) == 3
    assert result["window"].untyped_storage().nbytes() == result["window"].nbytes
    assert all(value.is_contiguous() for value in result.values())


@pytest.mark.parametrize("part", [0.1, 0.5, 0.999])
def test_a_file_that_lacks_its_end_says_so_with_its_size(part, values, tmp_path):
    torch.save(values, tmp_path / "x.pt")
    content = (tmp_path / "x.pt").read_bytes()
    cut = content[: int(len(content) * part)]
    (tmp_path / "x.pt").write_bytes(cut)
    with pytest.raises(WeightsError, match=f"is cut off: .* {len(cut):,} bytes, but the directory"):
        open_torch_file(tmp_path / "x.pt")


@pytest.mark.parametrize("content", [b"", b"nonsense", b"<html>sign in</html>", bytes(1000)])
def test_other_kinds_of_files_are_no_pytorch_files(content, tmp_path):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.pt \(\d.* bytes\) cannot be read"):
        open_torch_file(tmp_path / "x.pt")


def test_a_file_that_would_run_code_is_refused_and_the_code_is_not_run(tmp_path):
    torch.save(
        {"model": {"a": torch.zeros(1)}, "arguments": argparse.Namespace()}, tmp_path / "x.pt"
    )
    with pytest.raises(
        WeightsError, match=r"object of argparse\.Namespace .* would run code\. Save"
    ):
        open_torch_file(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        (torch.zeros(3), "holds a Tensor; expected parameters by name"),
        ({}, "no parameters by name; it has nothing"),
        ({"epoch": 3, "model": "vggt"}, "it has 'epoch', 'model'"),
    ],
)
def test_a_file_without_parameters_says_what_it_holds(checkpoint, message, tmp_path):
    torch.save(checkpoint, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=message):
        open_torch_file(tmp_path / "x.pt")
