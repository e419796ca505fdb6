import json

import pytest

from everview.outputs.files import remove_partial_files, replace_file, write_json


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(partial):
        assert partial.suffix == ".txt"  # writers that choose the format by the ending
        partial.write_text("ne")
        assert path.read_text() == "old"
        partial.write_text("new")

    replace_file(path, write)
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        replace_file(path, lambda partial: partial.write_text("half") / 0)
    with pytest.raises(TypeError):
        replace_file(path, lambda partial: partial.write_text("half") + "")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_json_refuses_what_other_readers_would_refuse(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})


def test_what_a_killed_process_left_behind_is_removed_below_too(tmp_path):
    (tmp_path / "c").mkdir()
    names = ("a.partial.mp4", "c/0.89ab.partial", ".tmpAb12Cd", "c/.tmpZ9", "c/b.tmp")
    left = [tmp_path / name for name in names]
    for path in [*left, tmp_path / "keep.txt"]:
        path.write_text("x")
    remove_partial_files(tmp_path)
    assert [p.name for p in sorted(tmp_path.rglob("*"))] == ["c", "keep.txt"]
