from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from everview.errors import InputError
from everview.frames.folders import natural_key, open_folder, open_glob, open_list
from everview.frames.reader import read


def test_natural_order_compares_numbers_as_numbers():
    names = ["img10.png", "img2.png", "img1.png", "IMG3.png", "img2b.png", "a.png", "007.png"]
    ordered = sorted(map(Path, names), key=natural_key)
    assert [path.name for path in ordered] == [
        "007.png", "a.png", "img1.png", "img2.png", "img2b.png", "IMG3.png", "img10.png",
    ]  # fmt: skip


def test_images_come_in_natural_order_with_their_index_for_time(make_folder):
    folder = make_folder(["img10.png", "img2.png", "img1.png"])
    frames = list(read(folder))
    assert [frame.name for frame in frames] == ["img1.png", "img2.png", "img10.png"]
    assert [frame.timestamp for frame in frames] == [0.0, 1.0, 2.0]
    assert [frame.index for frame in frames] == [0, 1, 2]


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.JPEG", "a.png", "a.WebP", "a.bmp", "a.tif", "a.TIFF", "a.JPG"]
)
def test_image_types_are_known_in_either_case(name, make_folder):
    assert len(list(read(make_folder([name])))) == 1


def test_other_and_hidden_files_are_passed_over(make_folder):
    folder = make_folder(["a.png", ".b.png"])
    (folder / "notes.txt").write_text("no image")
    (folder / "sub.png").mkdir()
    assert [frame.name for frame in read(folder)] == ["a.png"]


def test_a_folder_that_holds_images_is_read_from_there(make_folder):
    folder = make_folder(["inner.png"], "sequence/images").parent
    make_folder(["outer.png"], "sequence")
    with read(folder) as reader:
        assert reader.source == str(folder)
        assert [frame.name for frame in reader] == ["inner.png"]


def test_globs_lists_and_single_images_are_read(make_folder):
    folder = make_folder(["a1.png", "a2.png", "b1.png"])
    assert [frame.name for frame in read(f"{folder}/a*.png")] == ["a1.png", "a2.png"]
    assert [frame.name for frame in read(str(folder / "*"))] == ["a1.png", "a2.png", "b1.png"]
    assert [frame.name for frame in read(folder / "b1.png")] == ["b1.png"]
    backwards = [folder / "b1.png", str(folder / "a1.png")]
    assert [frame.name for frame in read(backwards)] == ["b1.png", "a1.png"]


def test_a_name_with_brackets_is_a_name_first(make_folder):
    folder = make_folder(["a.png"], "take[1]")
    assert len(list(read(str(folder)))) == 1
    assert len(list(read(str(folder / "a.png")))) == 1


def test_grey_images_become_rgb(tmp_path):
    Image.fromarray(np.full((20, 30), 100, np.uint8)).save(tmp_path / "grey.png")
    (frame,) = read(tmp_path)
    assert frame.image.shape == (3, 20, 30)
    assert frame.image.unique().tolist() == pytest.approx([100 / 255])


def test_a_damaged_image_is_flagged_and_the_rest_is_read(make_folder):
    folder = make_folder(["1.png", "2.png", "3.png"])
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:60])
    (folder / "0.png").write_bytes(b"")
    with read(folder) as reader:
        frames = list(reader)
        assert [frame.usable for frame in frames] == [False, True, False, True]
        assert all(f.flags[0].startswith("corrupt: ") for f in frames if not f.usable)
        assert frames[2].image.shape == (3, 48, 64)  # zeros in the size of the others
        assert not frames[2].image.any()
        assert [problem.split()[0] for problem in reader.problems] == ["0.png", "2.png"]


def test_a_folder_with_no_readable_image_is_an_error(make_folder):
    folder = make_folder(["1.png", "2.png"])
    for path in folder.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"not a single frame .*1\.png cannot be read"):
        list(read(folder))


def test_a_folder_without_images_tells_what_is_read(tmp_path):
    with pytest.raises(InputError, match=r"holds no images \(read are \.jpg .*\.tiff"):
        open_folder(tmp_path)
    with pytest.raises(InputError, match=r"matches no images \(read are \.jpg"):
        open_glob(str(tmp_path / "*.png"))


def test_a_list_must_hold_images(tmp_path):
    with pytest.raises(InputError, match=r"absent\.png does not exist"):
        open_list([tmp_path / "absent.png"])
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match=r"notes\.txt is no image"):
        open_list([tmp_path / "notes.txt"])
    with pytest.raises(InputError, match="the list of images is empty"):
        open_list([])
