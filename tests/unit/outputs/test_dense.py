import numpy as np
import pytest
import zarr

from everview.outputs.dense import DenseReader, DenseWriter


def _maps(row, *, extra=0):
    generator = np.random.default_rng(row)
    return {
        "depth": generator.integers(0, 65535, (6, 8), dtype=np.uint16),
        "colour": generator.integers(0, 255, (6, 8, 3), dtype=np.uint8),
    }


@pytest.fixture
def folders(tmp_path):
    return tmp_path / "dense.zarr", tmp_path / "tail"


def _check(reader, count):
    for row in range(count):
        for name, expected in _maps(row).items():
            np.testing.assert_array_equal(reader.read(name, row), expected)


@pytest.mark.usefixtures("short_shards")
@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 11])
def test_every_frame_is_read_while_running_and_after_the_end(folders, count):
    writer, reader = DenseWriter(*folders), DenseReader(*folders)
    for row in range(count):
        writer.append(row, _maps(row))
        _check(reader, row + 1)
    writer.finish(count)
    _check(reader, count)
    assert not folders[1].exists()


@pytest.mark.usefixtures("short_shards")
def test_full_shards_lie_in_one_file_per_map_and_the_tail_is_short(folders):
    writer = DenseWriter(*folders)
    for row in range(11):
        writer.append(row, _maps(row))
    assert (
        len(list((folders[0] / "depth" / "c").rglob("*")))
        - len([p for p in (folders[0] / "depth" / "c").rglob("*") if p.is_dir()])
        == 2
    )
    assert len(list(folders[1].iterdir())) == 3


@pytest.mark.usefixtures("short_shards")
def test_a_finished_store_is_plain_zarr_with_its_code_in_the_attributes(folders):
    writer = DenseWriter(*folders, attributes={"depth": {"kind": "log"}})
    for row in range(6):
        writer.append(row, _maps(row))
    writer.finish(6)
    array = zarr.open_group(folders[0], mode="r")["depth"]
    assert array.shape == (6, 6, 8)
    assert dict(array.attrs) == {"kind": "log"}
    assert array.metadata.dimension_names == ("time", "y", "x")
    np.testing.assert_array_equal(array[5], _maps(5)["depth"])


@pytest.mark.usefixtures("short_shards")
@pytest.mark.parametrize("finish_first", [True, False])
@pytest.mark.parametrize("kept", [0, 2, 4, 5, 7])
def test_reopening_keeps_what_was_finished_and_goes_on(folders, kept, finish_first):
    writer = DenseWriter(*folders)
    for row in range(kept):
        writer.append(row, _maps(row))
    if finish_first:
        writer.finish(kept)
    else:
        writer.append(kept, _maps(999))  # its line was never written
    again = DenseWriter(*folders)
    again.reopen(kept)
    assert all(int(path.name[:8]) < kept for path in folders[1].iterdir())
    for row in range(kept, 10):
        again.append(row, _maps(row))
    again.finish(10)
    _check(DenseReader(*folders), 10)


def test_asking_for_a_frame_that_is_not_there_says_how_many_are(folders):
    writer = DenseWriter(*folders)
    writer.append(0, _maps(0))
    writer.finish(1)
    with pytest.raises(IndexError, match="holds 1 frames; asked for 1"):
        DenseReader(*folders).read("depth", 1)


def test_a_frame_goes_through_no_other_file_than_ours(folders, monkeypatch):
    """Libraries leave files of their own naming behind when they are killed."""
    monkeypatch.setattr("safetensors.numpy.save_file", None)
    monkeypatch.setattr("everview.outputs.dense.save_file", None, raising=False)
    writer = DenseWriter(*folders)
    writer.append(0, _maps(0))
    _check(DenseReader(*folders), 1)


@pytest.mark.usefixtures("short_shards")
def test_rubbish_of_a_killed_process_in_the_tail_does_not_stop_a_resume(folders):
    writer = DenseWriter(*folders)
    for row in range(3):
        writer.append(row, _maps(row))
    for name in (".tmpX1yZ9q", "00000003.partial.safetensors", "notes.tmp"):
        (folders[1] / name).write_bytes(b"half a frame")
    again = DenseWriter(*folders)
    again.reopen(2)
    assert [path.name for path in sorted(folders[1].iterdir())] == [
        "00000000.safetensors", "00000001.safetensors",
    ]  # fmt: skip
    again.append(2, _maps(2))
    again.finish(3)
    _check(DenseReader(*folders), 3)
    assert not folders[1].exists()
