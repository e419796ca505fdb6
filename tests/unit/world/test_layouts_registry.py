import dataclasses

import h5py
import numpy as np
import OpenEXR
import pytest
import torch
from PIL import Image

from everview.errors import ConfigError, MissingExtraError
from everview.world import sequence
from everview.world.layouts import extras
from everview.world.layouts.files import clean_depth, write_depth_floats, write_depth_steps
from everview.world.layouts.registry import LAYOUTS


@pytest.fixture(scope="module")
def clips():
    """Two clips to look at; do not change them."""
    return [sequence(seed, 4, size=(28, 42), kind="room") for seed in (1, 2)]


def _grey(path):
    """Values of a 16-bit image."""
    with Image.open(path) as image:
        assert image.mode == "I;16"
        return np.asarray(image)


FILES = {  # of the first clip's third frame, and of the set; from the description of each set
    "co3d": ("*/*/images/frame000002.jpg", "*/*/depths/frame000002.jpg.geometric.png",
             "*/*/images/frame000002.npz", "*/*/masks/*.png", "selected_seqs_train.json"),
    "wildrgbd": ("*/*/rgb/00002.jpg", "*/*/depth/00002.png", "*/*/metadata/00002.npz", "*/*/masks"),
    "arkitscenes": ("*/*/vga_wide/*.jpg", "*/*/lowres_depth/*.png", "*/*/new_scene_metadata.npz",
                    "all_metadata.npz"),
    "arkitscenes_highres": ("*/*/vga_wide/*.jpg", "*/*/highres_depth/*.png",
                            "*/*/scene_metadata.npz"),
    "scannetpp": ("*/images/*.jpg", "*/depth/*.png", "*/new_scene_metadata.npz",
                  "all_metadata.npz"),
    "scannet": ("scans_train/*/color/*.jpg", "scans_train/*/depth/*.png", "scans_train/*/cam/*.npz",
                "scans_train/*/new_scene_metadata.npz"),
    "hypersim": ("*/*/*rgb.png", "*/*/*depth.npy", "*/*/*cam.npz"),
    "blendedmvs": ("*/*.jpg", "*/*.exr", "*/*.npz", "new_overlap.h5"),
    "megadepth": ("*/*/*.jpg", "*/*/*.exr", "*/*/*.npz", "megadepth_sets_64.npz"),
    "waymo": ("*/*_1.jpg", "*/*_1.exr", "*/*_1.npz", "invalid_files.h5"),
    "vkitti2": ("*/*/Camera_0/*_rgb.jpg", "*/*/Camera_0/*_depth.png", "*/*/Camera_0/*_cam.npz"),
    "omniobject3d": ("*/rgb/*.png", "*/depth/*.npy", "*/cam/*.npz", "scale.json"),
    "spring": ("*/rgb/*.png", "*/depth/*.npy", "*/cam/*.npz"),
    "mvs_synth": ("*/rgb/*.jpg", "*/depth/*.npy", "*/cam/*.npz"),
    "point_odyssey": ("*/*/rgb/*.jpg", "*/*/depth/*.npy", "*/*/cam/*.npz"),
    "benchmark-7scenes": ("*/TestSplit.txt", "*/seq-01/frame-000002.color.png",
                          "*/seq-01/frame-000002.depth.proj.png", "*/seq-01/frame-000002.pose.txt"),
    "benchmark-nrgbd": ("*/images/img2.png", "*/depth/depth2.png", "*/poses.txt"),
    "benchmark-eth3d": ("*/images/dslr_images_undistorted/*.JPG",
                        "*/dslr_calibration_undistorted/cameras.txt",
                        "*/dslr_calibration_undistorted/images.txt",
                        "*/ground_truth_depth/dslr_images/*.JPG"),
    "benchmark-dtu": ("*/images/*.jpg", "*/depths/*.npy", "*/binary_masks/*.png",
                      "*/cams/*_cam.txt"),
    "benchmark-sintel": ("training/final/*/frame_0003.png", "training/depth/*/frame_0003.dpt",
                         "training/camdata_left/*/frame_0003.cam"),
    "benchmark-bonn": ("rgbd_bonn_dataset/*/rgb_110/*.png", "rgbd_bonn_dataset/*/depth_110/*.png"),
    "benchmark-kitti": (
        "depth_selection/val_selection_cropped/image_gathered/*_02/0000000007.png",
        "depth_selection/val_selection_cropped/groundtruth_depth_gathered/*_02/0000000007.png"),
    "benchmark-nyu": ("val/nyu_images/00002.png", "val/nyu_depths/00002.npy"),
    "benchmark-co3d": ("annotations/*_test.jgz", "*/*/images/frame000002.jpg"),
    "benchmark-scannet": ("*/color_90/*.jpg", "*/pose_90.txt"),
    "benchmark-tum": ("*/rgb_90/*.png", "*/groundtruth_90.txt"),
    "benchmark-long3d": ("*/image/*.png", "*/dense_cloud_map.pcd"),
    "sequences": ("*/images/000002.jpg", "*/depth/000002.png", "*/poses.txt", "*/sequence.json"),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_has_the_files_that_its_set_has(layout, clips, tmp_path):
    LAYOUTS[layout](tmp_path / "new", clips)
    for pattern in FILES[layout]:
        assert list((tmp_path / "new").glob(pattern)), pattern


def test_depth_is_stored_in_the_unit_of_the_set(clips, tmp_path):
    depth = clips[0].depth[2].numpy()
    for layout, pattern, unit in (
        ("wildrgbd", "*/*0/depth/00002.png", 1e-3), ("vkitti2", "Scene00/*/*/00002_depth.png", 1e-2)
    ):  # fmt: skip
        LAYOUTS[layout](tmp_path / layout, clips)
        (path,) = (tmp_path / layout).glob(pattern)
        np.testing.assert_allclose(_grey(path) * unit, depth, atol=0.51 * unit)
    LAYOUTS["omniobject3d"](tmp_path / "omni", clips)
    scale = 0.002
    stored = np.load(tmp_path / "omni" / "world_000" / "depth" / "00002.npy")
    np.testing.assert_allclose(stored / (1000 * scale), depth, rtol=1e-6)


def test_co3d_depth_spans_each_frames_own_range(clips, tmp_path):
    LAYOUTS["co3d"](tmp_path, clips)
    home = tmp_path / "world" / "clip_000"
    values = _grey(home / "depths" / "frame000001.jpg.geometric.png")
    with np.load(home / "images" / "frame000001.npz") as camera:
        largest = float(camera["maximum_depth"])
    assert values.max() == 65535
    np.testing.assert_allclose(values / 65535 * largest, clips[0].depth[1], atol=largest / 65535)


def test_poses_are_stored_exactly_and_name_their_frames(clips, tmp_path):
    LAYOUTS["arkitscenes"](tmp_path, clips)
    with np.load(tmp_path / "Training" / "00000001" / "new_scene_metadata.npz") as file:
        assert file["poses"].shape == (4, 4, 4)
        np.testing.assert_array_equal(file["poses"], clips[1].world_from_camera.double())
        np.testing.assert_array_equal(file["intrinsics"], clips[1].intrinsics.double())
        assert file["images"].tolist()[3] == "world_0003.033.jpg"


def test_lists_of_frames_count_within_the_set(clips, tmp_path):
    LAYOUTS["megadepth"](tmp_path / "mega", clips)
    with np.load(tmp_path / "mega" / "megadepth_sets_64.npz") as file:
        assert file["sets"].shape == (2, 64)
        assert file["sets"][1, :5].tolist() == [4, 5, 6, 7, -1]
        assert file["images"][4] == "0001/0/world_00000_o"
    LAYOUTS["blendedmvs"](tmp_path / "mvs", clips)
    with h5py.File(tmp_path / "mvs" / "new_overlap.h5") as file:
        scene = file[f"{1:024x}"]
        pairs = {
            tuple(p): s for p, s in zip(scene["indices"][()], scene["overlap"][()], strict=True)
        }
    assert pairs[0, 1] > pairs[0, 2] > 0.2 > pairs[0, 3]


def test_where_there_is_no_depth_the_files_say_so(clips, tmp_path):
    depth = clips[0].depth.clone()
    depth[:, :5], depth[:, 5:9] = 0, torch.inf
    clip = dataclasses.replace(clips[0], depth=depth)
    LAYOUTS["vkitti2"](tmp_path / "kitti", [clip])
    LAYOUTS["scannet"](tmp_path / "scannet", [clip])
    (sky,) = (tmp_path / "kitti").rglob("00001_depth.png")
    (none,) = (tmp_path / "scannet").rglob("depth/00001.png")
    assert (_grey(sky)[:9] == 65535).all()
    assert (_grey(none)[:9] == 0).all()
    assert (clean_depth(depth)[:, :9] == 0).all()


def test_floats_survive_exactly_and_other_endings_are_refused(tmp_path):
    depth = torch.rand(5, 7) + 1
    write_depth_floats(tmp_path / "a.exr", depth)
    with OpenEXR.File(str(tmp_path / "a.exr")) as file:
        np.testing.assert_array_equal(file.channels()["Y"].pixels, depth.numpy())
    with pytest.raises(ConfigError, match=r"goes to \.npy or \.exr; got a\.tiff"):
        write_depth_floats(tmp_path / "a.tiff", depth)


def test_depth_beyond_sixteen_bits_counts_as_none(tmp_path):
    write_depth_steps(tmp_path / "a.png", torch.tensor([[100.0, 0.001, 0.0]]), step=1e-3)
    assert _grey(tmp_path / "a.png").tolist() == [[0, 1, 0]]


def test_a_layout_that_needs_a_missing_package_says_how_to_get_it(clips, tmp_path, monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(extras, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r'pip install "everview\[data\]"'):
        LAYOUTS["waymo"](tmp_path, clips)
    LAYOUTS["spring"](tmp_path, clips)  # needs none
