import numpy as np
import pytest

from everview.errors import InputError
from everview.outputs.ply import read_ply, write_ply


def _cloud(count):
    generator = np.random.default_rng(0)
    points = generator.normal(size=(count, 3)).astype(np.float32)
    return points, generator.integers(0, 256, (count, 3), dtype=np.uint8)


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_a_cloud_comes_back_as_it_was_written(tmp_path, count):
    points, colours = _cloud(count)
    write_ply(tmp_path / "a.ply", points, colours, comments=("unit: metres",))
    again, colours_again = read_ply(tmp_path / "a.ply")
    np.testing.assert_array_equal(again, points)
    np.testing.assert_array_equal(colours_again, colours)


def test_the_header_is_the_one_that_other_programs_know(tmp_path):
    write_ply(tmp_path / "a.ply", *_cloud(2), comments=("hello",))
    header, _, body = (tmp_path / "a.ply").read_bytes().partition(b"end_header\n")
    assert header.decode() == (
        "ply\nformat binary_little_endian 1.0\ncomment hello\nelement vertex 2\n"
        "property float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\n"
    )
    assert len(body) == 2 * 15


def test_a_cut_or_foreign_file_is_refused_by_name(tmp_path):
    write_ply(tmp_path / "cut.ply", *_cloud(5))
    with (tmp_path / "cut.ply").open("r+b") as file:
        file.truncate((tmp_path / "cut.ply").stat().st_size - 20)
    with pytest.raises(InputError, match=r"cut\.ply holds 3 of the 5 points"):
        read_ply(tmp_path / "cut.ply")
    (tmp_path / "foreign.ply").write_bytes(b"ply\nformat ascii 1.0\nend_header\n")
    with pytest.raises(InputError, match="another kind of PLY"):
        read_ply(tmp_path / "foreign.ply")
    (tmp_path / "text.ply").write_bytes(b"hello\n")
    with pytest.raises(InputError, match="is not a PLY file"):
        read_ply(tmp_path / "text.ply")
