"""Every layout by its name.

The plans are written from the published description of each set, not from our reader's, so that a
slip in one of the two turns a test red.
"""

from functools import partial

from everview.world.layouts import lists
from everview.world.layouts.benchmark_sets import BENCHMARK_LAYOUTS
from everview.world.layouts.plan import LayoutPlan, Writer
from everview.world.layouts.scenes import write_layout
from everview.world.layouts.sequence_folders import write_sequence_folders

PLANS = {
    "co3d": LayoutPlan(
        scene="world/clip_{scene:03d}",
        image="images/frame{frame:06d}.jpg",
        depth="depths/frame{frame:06d}.jpg.geometric.png",
        camera="images/frame{frame:06d}.npz",
        mask="masks/frame{frame:06d}.png",
        is_depth_relative=True,
        finish=lists.selected_sequences,
    ),
    "wildrgbd": LayoutPlan(
        scene="world/scene_{scene:03d}",
        image="rgb/{frame:05d}.jpg",
        depth="depth/{frame:05d}.png",
        camera="metadata/{frame:05d}.npz",
        mask="masks/{frame:05d}.png",
    ),
    "arkitscenes": LayoutPlan(
        scene="Training/{scene:08d}",
        image="vga_wide/world_{frame:04d}.033.jpg",
        depth="lowres_depth/world_{frame:04d}.033.png",
        scene_camera="new_scene_metadata.npz",
        groups=True,
        finish=lists.all_metadata,
    ),
    "arkitscenes_highres": LayoutPlan(
        scene="Training/{scene:08d}",
        image="vga_wide/world_{frame:04d}.033.jpg",
        depth="highres_depth/world_{frame:04d}.033.png",
        scene_camera="scene_metadata.npz",
    ),
    "scannetpp": LayoutPlan(
        scene="scene{scene:04d}",
        image="images/frame_{frame:06d}.jpg",
        depth="depth/frame_{frame:06d}.png",
        scene_camera="new_scene_metadata.npz",
        finish=lists.photographs,
    ),
    "scannet": LayoutPlan(
        scene="scans_train/scene{scene:04d}_00",
        image="color/{frame:05d}.jpg",
        depth="depth/{frame:05d}.png",
        camera="cam/{frame:05d}.npz",
        scene_camera="new_scene_metadata.npz",
    ),
    "hypersim": LayoutPlan(
        scene="ai_{scene:03d}_001/cam_00",
        image="{frame:06d}_rgb.png",
        depth="{frame:06d}_depth.npy",
        camera="{frame:06d}_cam.npz",
    ),
    "blendedmvs": LayoutPlan(
        scene="{scene:024x}",
        image="{frame:08d}.jpg",
        depth="{frame:08d}.exr",
        camera="{frame:08d}.npz",
        finish=lists.overlaps,
    ),
    "megadepth": LayoutPlan(
        scene="{scene:04d}/0",
        image="world_{frame:05d}_o.jpg",
        depth="world_{frame:05d}_o.exr",
        camera="world_{frame:05d}_o.npz",
        finish=lists.stored_sets,
    ),
    "waymo": LayoutPlan(
        scene="segment-{scene:05d}",
        image="{frame:05d}_1.jpg",
        depth="{frame:05d}_1.exr",
        camera="{frame:05d}_1.npz",
        finish=lists.invalid_files,
    ),
    "vkitti2": LayoutPlan(
        scene="Scene{scene:02d}/clone/Camera_0",
        image="{frame:05d}_rgb.jpg",
        depth="{frame:05d}_depth.png",
        depth_step=1e-2,
        sky_step=65535,
        camera="{frame:05d}_cam.npz",
    ),
    "omniobject3d": LayoutPlan(
        scene="world_{scene:03d}",
        image="rgb/{frame:05d}.png",
        depth="depth/{frame:05d}.npy",
        camera="cam/{frame:05d}.npz",
        unit=1000 * lists.OBJECT_SCALE,
        finish=lists.object_scales,
    ),
    "spring": LayoutPlan(
        scene="{scene:04d}",
        image="rgb/{frame:05d}.png",
        depth="depth/{frame:05d}.npy",
        camera="cam/{frame:05d}.npz",
    ),
    "mvs_synth": LayoutPlan(
        scene="{scene:04d}",
        image="rgb/{frame:05d}.jpg",
        depth="depth/{frame:05d}.npy",
        camera="cam/{frame:05d}.npz",
    ),
    "point_odyssey": LayoutPlan(
        scene="train/world_{scene:03d}",
        image="rgb/rgb_{frame:05d}.jpg",
        depth="depth/rgb_{frame:05d}.npy",
        camera="cam/rgb_{frame:05d}.npz",
    ),
}
"""Layouts that keep a file per part of a frame."""

LAYOUTS: dict[str, Writer] = {
    **{name: partial(write_layout, plan) for name, plan in PLANS.items()},
    "sequences": write_sequence_folders,
    **BENCHMARK_LAYOUTS,
}
"""Name -> function(folder, sequences) that writes the clips."""
