import dataclasses
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from everview.errors import ConfigError, InputError, MissingExtraError
from everview.training.datasets.camera_files import intrinsics_of, poses_of
from everview.training.datasets.mixture import parse_mixture
from everview.training.datasets.recognise import open_dataset, recognise
from everview.training.datasets.sets import PUBLISHED_MIXTURE, SETS
from everview.world.layouts import extras
from everview.world.layouts.registry import LAYOUTS

DEPTH_ROUNDING = {  # absolute, of what the format can hold
    "co3d": 1e-3, "wildrgbd": 6e-4, "arkitscenes": 6e-4, "arkitscenes_highres": 6e-4,
    "scannetpp": 6e-4, "scannet": 6e-4, "vkitti2": 6e-3,
}  # fmt: skip
LOSSLESS_PICTURES = ("hypersim", "omniobject3d", "spring")


def _views(dataset, clips):
    """Views of the ordered frames beside the clip and the frame that they must equal."""
    for scene, clip in zip(dataset.scenes, clips, strict=True):
        for i, view in enumerate(scene.views(range(len(clip.images)))):
            yield view, clip, i


@pytest.mark.parametrize("layout", SETS)
def test_every_set_gives_back_what_the_world_stored(layout, stored, clips):
    dataset = open_dataset(stored(layout), layout)
    for view, clip, i in _views(dataset, clips):
        tolerance = 0.003 if layout in LOSSLESS_PICTURES else 0.05
        assert (view.image - clip.images[i]).abs().mean() < tolerance
        near = DEPTH_ROUNDING.get(layout, 1e-6)
        error = (view.depth - clip.depth[i]).abs()[view.valid]
        assert error.max() < near
        assert view.valid.float().mean() > 0.97
        torch.testing.assert_close(
            view.world_from_camera, clip.world_from_camera[i].double(), rtol=0, atol=1e-12
        )
        torch.testing.assert_close(view.intrinsics, clip.intrinsics[i].double(), rtol=0, atol=0)
        assert view.is_metric == SETS[layout].is_metric


@pytest.mark.parametrize("layout", SETS)
def test_frames_come_in_order_of_time_and_time_grows(layout, stored, clips):
    for scene in open_dataset(stored(layout), layout).scenes:
        count = scene.num_ordered or len(scene)
        views = scene.views(range(count))
        assert [view.index for view in views] == list(range(count))
        times = [view.time for view in views]
        assert times == sorted(set(times))
        assert count == len(clips[0].images)


@pytest.mark.parametrize("layout", SETS)
def test_the_layout_is_recognised_by_its_files_whatever_the_folder_is_called(
    layout, stored, tmp_path
):
    elsewhere = shutil.copytree(stored(layout), tmp_path / "elsewhere")
    assert recognise(elsewhere) == layout


def test_the_published_mixture_has_39000_samples_of_15_sets():
    shares = parse_mixture(PUBLISHED_MIXTURE)
    assert len(shares) == 15
    assert sum(share.samples for share in shares) == 39_000


def test_scenes_are_listed_in_natural_order(clips, tmp_path):
    LAYOUTS["spring"](tmp_path, clips)
    (tmp_path / "0000").rename(tmp_path / "10")
    (tmp_path / "0001").rename(tmp_path / "9")
    assert [scene.name for scene in open_dataset(tmp_path, "spring").scenes] == ["9", "10"]


def test_frames_are_listed_in_natural_order(copy_of):
    root = copy_of("spring")
    for number, new in ((0, "9"), (1, "10"), (2, "101")):
        for folder, ending in (("rgb", "png"), ("depth", "npy"), ("cam", "npz")):
            path = root / "0000" / folder / f"{number:05d}.{ending}"
            path.rename(path.with_stem(new))
    files = open_dataset(root, "spring").scenes[0].files
    assert files == ("00003.png", "00004.png", "00005.png", "9.png", "10.png", "101.png")


def test_sky_of_virtual_kitti_is_no_depth(clips, tmp_path):
    depth = clips[0].depth.clone()
    depth[:, :10] = 0
    LAYOUTS["vkitti2"](tmp_path, [dataclasses.replace(clips[0], depth=depth)])
    (view,) = open_dataset(tmp_path, "vkitti2").scenes[0].views([2])
    assert view.sky[:10].all()
    assert not view.sky[10:].any()
    assert not view.valid[:10].any()
    assert (view.depth[:10] == 0).all()


def test_depth_beyond_a_sets_cut_is_not_valid(copy_of, clips):
    root = copy_of("mvs_synth")
    path = sorted(root.glob("*/depth/*.npy"))[0]
    depth = np.load(path)
    depth[0, 0], depth[0, 1], depth[0, 2], depth[0, 3] = 1001, np.inf, np.nan, -1
    np.save(path, depth)
    (view,) = open_dataset(root, "mvs_synth").scenes[0].views([0])
    assert not view.valid[0, :4].any()
    assert (view.depth[0, :4] == 0).all()
    assert 0.95 < view.valid.float().mean() < 0.985  # the farthest 2 % are cut
    assert view.depth[view.valid].max() < np.percentile(clips[0].depth[0], 98.5)


def test_depth_of_another_size_comes_on_the_images_grid(copy_of):
    root = copy_of("arkitscenes")
    for path in root.glob("*/*/lowres_depth/*.png"):
        image = Image.open(path)
        half = np.asarray(image)[::2, ::2]
        Image.fromarray(np.ascontiguousarray(half)).save(path)
    (view,) = open_dataset(root).scenes[0].views([1])
    assert view.depth.shape == view.image.shape[1:]


def test_scenes_of_the_high_resolution_set_are_left_out_of_the_low_one(copy_of, stored):
    root = copy_of("arkitscenes")
    assert len(open_dataset(root).scenes) == 2
    high = root.parent / "processed_arkitscenes_highres" / "Training" / "00000001"
    high.mkdir(parents=True)
    assert [scene.name for scene in open_dataset(root).scenes] == ["Training/00000000"]


def test_only_the_scenes_of_a_co3d_split_count(copy_of):
    root = copy_of("co3d")
    (root / "selected_seqs_train.json").write_text(json.dumps({"world": {"clip_001": [0]}}))
    assert [scene.name for scene in open_dataset(root).scenes] == ["world/clip_001"]
    assert len(open_dataset(root, split="other").scenes) == 2  # no such list: all


def test_two_scenes_of_megadepth_are_left_out(copy_of):
    root = copy_of("megadepth")
    (root / "0001").rename(root / "0015")
    assert [scene.name for scene in open_dataset(root).scenes] == ["0000/0"]


def test_photographs_of_scannetpp_have_no_place_in_its_video(stored, clips):
    scene = open_dataset(stored("scannetpp")).scenes[0]
    count = len(clips[0].images)
    assert (scene.num_ordered, len(scene)) == (count, 2 * count)
    assert scene.links.sets == (tuple(range(count, 2 * count)),)
    names = [view.label.rsplit("/", 1)[1] for view in scene.views(range(2 * count))]
    assert all(name.startswith("frame_") for name in names[:count])
    assert all(name.startswith("DSC") for name in names[count:])


def test_groups_of_arkitscenes_count_the_images_of_its_list(copy_of):
    root = copy_of("arkitscenes")
    folder = root / "Training" / "00000000"
    (folder / "vga_wide" / "world_0000.033.jpg").unlink()  # position 0 is now the second image
    scene = open_dataset(root).scenes[0]
    assert scene.links.sets == ((0, 1), (2, 3, 4))


def test_the_fifth_camera_of_waymo_is_left_out_and_the_fourth_has_a_smaller_gap(copy_of):
    root = copy_of("waymo")
    for path in list((root / "segment-00000").iterdir()):
        for camera in "45":
            shutil.copy(path, path.with_name(path.name.replace("_1.", f"_{camera}.")))
    scenes = open_dataset(root).scenes
    assert [scene.name for scene in scenes] == [
        "segment-00000/1", "segment-00000/4", "segment-00001/1"
    ]  # fmt: skip
    assert [scene.max_gap for scene in scenes] == [None, 4, None]


def test_bad_files_of_waymo_are_left_out(copy_of):
    root = copy_of("waymo")
    (root / "invalid_files.h5").unlink()
    with h5py.File(root / "invalid_files.h5", "w") as file:
        file["segment-00000"] = np.array([b"00001_1", b"00003_1"])
    scene = open_dataset(root).scenes[0]
    assert scene.files == ("00000_1.jpg", "00002_1.jpg", "00004_1.jpg", "00005_1.jpg")


def test_the_overlap_graph_of_blendedmvs_has_edges_above_a_fifth(stored):
    neighbours = open_dataset(stored("blendedmvs")).scenes[0].links.neighbours
    assert neighbours[0] == (1, 2)
    assert neighbours[2] == (0, 1, 3, 4)


def test_other_names_of_arrays_are_understood(copy_of, clips):
    root = copy_of("spring")
    for number, path in enumerate(sorted(root.glob("*/cam/*.npz"))):
        with np.load(path) as file:
            K, pose = file["intrinsics"], file["pose"]
        if number % 2:
            np.savez(path, K=np.array([K[0, 0], K[1, 1], K[0, 2], K[1, 2]]), cam2world=pose[:3])
        else:
            np.savez(path, camera_intrinsics=K, R_cam2world=pose[:3, :3], t_cam2world=pose[:3, 3])
    for view, clip, i in _views(open_dataset(root, "spring"), clips):
        torch.testing.assert_close(view.intrinsics, clip.intrinsics[i].double())
        torch.testing.assert_close(view.world_from_camera, clip.world_from_camera[i].double())


def test_intrinsics_may_be_numbers_of_a_pinhole_camera():
    expected = np.array([[50.0, 0, 35], [0, 60, 28], [0, 0, 1]])
    for stored in ([50, 60, 35, 28], [70, 56, 50, 60, 35, 28], expected):
        found = intrinsics_of({"K": np.array(stored)}, Path("camera.npz"))
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(InputError, match=r"intrinsics have the shape \(5,\)"):
        intrinsics_of({"K": np.zeros(5)}, Path("camera.npz"))
    with pytest.raises(InputError, match=r"poses have the shape \(2, 4\)"):
        poses_of({"pose": np.zeros((2, 4))}, Path("camera.npz"))


def _damage(root, pattern, content=b"no"):
    path = sorted(root.glob(pattern))[1]
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("layout", "pattern"),
    [
        ("co3d", "*/*/depths/*.png"),
        ("co3d", "*/*/images/*.npz"),
        ("spring", "*/depth/*.npy"),
        ("blendedmvs", "*/*.exr"),
        ("scannet", "*/*/color/*.jpg"),
    ],
)
def test_a_damaged_file_is_named(layout, pattern, copy_of):
    root = copy_of(layout)
    path = _damage(root, pattern)
    with pytest.raises(InputError) as caught:
        open_dataset(root, layout).scenes[0].views(range(4))
    assert str(path) in str(caught.value)


def test_a_camera_file_without_a_pose_says_what_it_has(copy_of):
    root = copy_of("spring")
    path = sorted(root.glob("*/cam/*.npz"))[0]
    np.savez(path, intrinsics=np.eye(3), something=np.zeros(3))
    with pytest.raises(InputError, match="has the arrays intrinsics, something; expected one"):
        open_dataset(root, "spring").scenes[0].views([0])


def test_an_image_without_a_camera_in_its_scenes_list_is_named(copy_of):
    root = copy_of("arkitscenes_highres")
    home = root / "Training" / "00000000"
    for folder, ending in (("vga_wide", "jpg"), ("highres_depth", "png")):
        shutil.copy(home / folder / f"world_0001.033.{ending}", home / folder / f"extra.{ending}")
    scene = open_dataset(root).scenes[0]
    with pytest.raises(InputError, match="has no camera of extra"):
        scene.views([0])


@pytest.mark.parametrize(("layout", "package"), [("waymo", "OpenEXR"), ("blendedmvs", "h5py")])
def test_a_missing_package_is_told_with_its_pip_line(layout, package, stored, monkeypatch):
    folder = stored(layout)

    def absent(name):
        if name == package:
            raise ImportError(name)
        return __import__(name)

    monkeypatch.setattr(extras, "import_module", absent)
    with pytest.raises(MissingExtraError, match=rf'{package}: pip install "everview\[data\]"'):
        open_dataset(folder, layout).scenes[0].views([0])


def test_a_folder_without_any_layout_says_which_there_are(tmp_path):
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(InputError, match=r"none of the known layouts .*co3d"):
        open_dataset(tmp_path)
    with pytest.raises(InputError, match="holds no scene of waymo: expected"):
        open_dataset(tmp_path, "waymo")
    with pytest.raises(ConfigError, match="'imagenet' is unknown; known are co3d"):
        open_dataset(tmp_path, "imagenet")
    with pytest.raises(InputError, match="does not exist"):
        open_dataset(tmp_path / "absent")


def test_a_folder_that_fits_several_layouts_asks_for_the_name(copy_of, stored, tmp_path):
    both = shutil.copytree(stored("arkitscenes"), tmp_path / "both")
    shutil.copytree(stored("arkitscenes_highres"), both, dirs_exist_ok=True)
    with pytest.raises(ConfigError, match="arkitscenes, arkitscenes_highres: say which with --set"):
        recognise(both)
