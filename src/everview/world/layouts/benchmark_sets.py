"""Clips in the official layouts of benchmarks, written from the published descriptions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from everview.geometry.rotations import invert_rigid, quaternion_from_matrix
from everview.world.clip import WorldSequence
from everview.world.layouts import benchmark_files as files
from everview.world.layouts.files import (
    clean_depth,
    write_depth_floats,
    write_depth_steps,
    write_mask,
    write_picture,
)
from everview.world.layouts.marker import marked
from everview.world.layouts.plan import Writer

MILLIMETRE = 1e-3
SEVEN_SCENES = ("chess", "fire", "heads", "office", "pumpkin", "redkitchen", "stairs")
SINTEL = (
    "alley_2", "ambush_4", "ambush_5", "ambush_6", "cave_2", "cave_4", "market_2", "market_5",
    "market_6", "shaman_3", "sleeping_1", "sleeping_2", "temple_2", "temple_3",
    "alley_1", "ambush_2", "ambush_7", "bamboo_1", "bamboo_2", "bandage_1", "bandage_2",
    "mountain_1", "shaman_2",
)  # fmt: skip
"""All training sequences; first the fourteen of published video depth and trajectories."""
RENDERED_FOV = {
    "benchmark-7scenes": float(np.degrees(2 * np.arctan(320 / 525))),
    "benchmark-nrgbd": float(np.degrees(2 * np.arctan(320 / 554.2562584220408))),
}
"""Layout -> degrees that the longer side must span, where the set has one camera for all."""
LIDAR = torch.tensor(
    [
        [-0.012577, -0.999915, -0.003397, -0.03],
        [0.345639, -0.001159, -0.938367, -0.04],
        [0.938283, -0.012976, 0.345625, -0.03],
        [0.0, 0.0, 0.0, 1.0],
    ],
    dtype=torch.float64,
)
"""Long3D's published pose, of which the scan's frame is the inverse."""
SCAN_EVERY = 10


def seven_scenes(root: Path, clips: Sequence[WorldSequence]) -> None:
    """7-Scenes, with depth warped into the colour camera."""
    for number, clip in enumerate(clips):
        scene = root / SEVEN_SCENES[number % len(SEVEN_SCENES)]
        sequence = 1 + number // len(SEVEN_SCENES)
        lines = "".join(f"sequence{i}\n" for i in range(1, sequence + 1))
        files.write_text(scene / "TestSplit.txt", lines)
        folder = scene / f"seq-{sequence:02d}"
        for i, depth in enumerate(clean_depth(clip.depth)):
            stem = f"frame-{i:06d}"
            write_picture(folder / f"{stem}.color.png", clip.images[i])
            write_depth_steps(
                folder / f"{stem}.depth.proj.png", depth, step=MILLIMETRE, nothing=65535
            )
            pose = files.matrix_text(clip.world_from_camera[i])
            files.write_text(folder / f"{stem}.pose.txt", pose)


def nrgbd(root: Path, clips: Sequence[WorldSequence]) -> None:
    """Neural RGB-D: poses in OpenGL axes."""
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    for number, clip in enumerate(clips):
        scene = root / f"world_{number:03d}"
        for i, depth in enumerate(clean_depth(clip.depth)):
            write_picture(scene / "images" / f"img{i}.png", clip.images[i])
            write_depth_steps(scene / "depth" / f"depth{i}.png", depth, step=MILLIMETRE)
        poses = (clip.world_from_camera.cpu() @ flip).reshape(-1, 4)
        files.write_text(scene / "poses.txt", files.matrix_text(poses))


def eth3d(root: Path, clips: Sequence[WorldSequence]) -> None:
    """ETH3D, undistorted."""
    for number, clip in enumerate(clips):
        scene = root / f"world_{number:03d}"
        calibration = scene / "dslr_calibration_undistorted"
        height, width = clip.images.shape[2:]
        K = clip.intrinsics[0]
        camera = files.numbers(K[[0, 1, 0, 1], [0, 1, 2, 2]].tolist())
        files.write_text(
            calibration / "cameras.txt",
            f"# Camera list\n0 PINHOLE {width} {height} {camera}\n",
        )
        lines = ["# Image list with two lines of data per image:\n"]
        for i, depth in enumerate(clean_depth(clip.depth)):
            name = f"DSC_{i:04d}.JPG"
            write_jpeg(scene / "images" / "dslr_images_undistorted" / name, clip.images[i])
            files.write_raw_depth(scene / "ground_truth_depth" / "dslr_images" / name, depth)
            named = f"dslr_images_undistorted/{name}"
            lines.append(_colmap_line(i, clip.world_from_camera[i], named))
        files.write_text(calibration / "images.txt", "".join(lines))


def dtu(root: Path, clips: Sequence[WorldSequence]) -> None:
    """DTU in MVSNet's layout: millimetres, masks of the nearer half."""
    for number, clip in enumerate(clips):
        scan = root / f"scan{number + 1}"
        for i, depth in enumerate(clean_depth(clip.depth)):
            stem = f"{i:08d}"
            write_picture(scan / "images" / f"{stem}.jpg", clip.images[i])
            write_depth_floats(scan / "depths" / f"{stem}.npy", depth * 1000)
            write_mask(scan / "binary_masks" / f"{stem}.png", nearer_half(depth))
            camera = invert_rigid(clip.world_from_camera[i])
            camera[:3, 3] *= 1000
            text = f"extrinsic\n{files.matrix_text(camera)}\nintrinsic\n"
            text += f"{files.matrix_text(clip.intrinsics[i])}\n425.0 2.5\n"
            files.write_text(scan / "cams" / f"{stem}_cam.txt", text)


def sintel(root: Path, clips: Sequence[WorldSequence]) -> None:
    """MPI Sintel: images, depth, cameras; after the 23 names of the set come numbers."""
    home = root / "training"
    for number, clip in enumerate(clips):
        name = SINTEL[number] if number < len(SINTEL) else f"world_{number:03d}"
        for i, depth in enumerate(clean_depth(clip.depth)):
            stem = f"frame_{i + 1:04d}"
            write_picture(home / "final" / name / f"{stem}.png", clip.images[i])
            files.write_dpt(home / "depth" / name / f"{stem}.dpt", depth)
            camera = invert_rigid(clip.world_from_camera[i])
            path = home / "camdata_left" / name / f"{stem}.cam"
            files.write_cam(path, clip.intrinsics[i], camera)


def bonn(root: Path, clips: Sequence[WorldSequence]) -> None:
    """Bonn RGB-D Dynamic, prepared; names are times, those of colour and depth differ."""
    for number, clip in enumerate(clips):
        folder = root / "rgbd_bonn_dataset" / f"rgbd_bonn_world{number}"
        for i, depth in enumerate(clean_depth(clip.depth)):
            time = 1548266470 + i / 30
            write_picture(folder / "rgb_110" / f"{time:.5f}.png", clip.images[i])
            path = folder / "depth_110" / f"{time + 0.011:.5f}.png"
            write_depth_steps(path, depth, step=1 / 5000)


def kitti(root: Path, clips: Sequence[WorldSequence]) -> None:
    """KITTI depth, gathered by drive; the first depth file is number 5."""
    home = root / "depth_selection" / "val_selection_cropped"
    for number, clip in enumerate(clips):
        drive = f"2011_09_26_drive_{number:04d}_sync_02"
        for i, depth in enumerate(clean_depth(clip.depth)):
            name = f"{i + 5:010d}.png"
            write_picture(home / "image_gathered" / drive / name, clip.images[i])
            path = home / "groundtruth_depth_gathered" / drive / name
            write_depth_steps(path, depth, step=1 / 256)


def nyu(root: Path, clips: Sequence[WorldSequence]) -> None:
    """NYU Depth v2: all frames of all clips as single pictures."""
    number = 0
    for clip in clips:
        for image, depth in zip(clip.images, clean_depth(clip.depth), strict=True):
            write_picture(root / "val" / "nyu_images" / f"{number:05d}.png", image)
            write_depth_floats(root / "val" / "nyu_depths" / f"{number:05d}.npy", depth)
            number += 1


def co3d(root: Path, clips: Sequence[WorldSequence]) -> None:
    """CO3Dv2 annotations of a test: cameras in PyTorch3D's axes, two categories in turn."""
    flip = torch.tensor([-1.0, -1.0, 1.0])
    content: dict[str, dict[str, list[dict[str, object]]]] = {}
    for number, clip in enumerate(clips):
        category, name = ("apple", "teddybear")[number % 2], f"{number:03d}_1000_2000"
        frames = content.setdefault(category, {}).setdefault(name, [])
        for i, pose in enumerate(clip.world_from_camera.cpu()):
            path = f"{category}/{name}/images/frame{i:06d}.jpg"
            write_picture(root / path, clip.images[i])
            camera = invert_rigid(pose)
            rotation = (flip[:, None] * camera[:3, :3]).T
            translation = flip * camera[:3, 3]
            frames.append(
                {
                    "filepath": path,
                    "R": rotation.tolist(),
                    "T": translation.tolist(),
                    "focal_length": [2.0, 2.0],
                    "principal_point": [0.0, 0.0],
                }
            )
    for category, sequences in content.items():
        files.write_gzipped_json(root / "annotations" / f"{category}_test.jgz", sequences)


def scannet(root: Path, clips: Sequence[WorldSequence]) -> None:
    """ScanNet's test scenes, prepared; the pose of the second of four or more frames is lost."""
    for number, clip in enumerate(clips):
        scene = root / f"scene{number + 707:04d}_00"
        lines = []
        for i, pose in enumerate(clip.world_from_camera):
            write_picture(scene / "color_90" / f"frame_{i:04d}.jpg", clip.images[i])
            is_lost = i == 1 and len(clip.images) > 3
            values = [-np.inf] * 16 if is_lost else pose.flatten().tolist()
            lines.append(files.numbers(values) + "\n")
        files.write_text(scene / "pose_90.txt", "".join(lines))


def tum(root: Path, clips: Sequence[WorldSequence]) -> None:
    """TUM-dynamics, prepared."""
    for number, clip in enumerate(clips):
        folder = root / f"rgbd_dataset_freiburg3_walking_world{number}"
        lines = []
        for i, pose in enumerate(clip.world_from_camera):
            time = 1341846313 + i / 10
            write_picture(folder / "rgb_90" / f"{time:.6f}.png", clip.images[i])
            lines.append(files.tum_line(time, pose))
        files.write_text(folder / "groundtruth_90.txt", "".join(lines))


def long3d(root: Path, clips: Sequence[WorldSequence]) -> None:
    """Long3D: images, and one scan of what every tenth frame sees, in the scanner's frame."""
    for number, clip in enumerate(clips):
        scene = root / ("Classroom" if number == 0 else f"World{number}")
        for i, image in enumerate(clip.images):
            write_picture(scene / "image" / f"{i:06d}.png", image)
        seen = clip.points[::SCAN_EVERY][clip.valid[::SCAN_EVERY]].cpu().double()
        lidar = torch.linalg.inv(LIDAR)
        points = seen @ lidar[:3, :3].T + lidar[:3, 3]
        files.write_pcd(scene / "dense_cloud_map.pcd", points.numpy())


def nearer_half(depth: Tensor) -> Bool[Tensor, "H W"]:
    """In place of an object."""
    return (depth > 0) & (depth <= depth.median())


def write_jpeg(path: Path, image: Tensor) -> None:
    """A picture whose ending is in capitals, as cameras write it."""
    lower = path.with_suffix(".jpg")
    write_picture(lower, image)
    lower.rename(path)


def _colmap_line(number: int, pose: Tensor, name: str) -> str:
    camera = invert_rigid(pose.double())
    x, y, z, w = quaternion_from_matrix(camera[:3, :3]).tolist()
    return f"{number} {files.numbers([w, x, y, z, *camera[:3, 3].tolist()])} 0 {name}\n\n"


BENCHMARK_LAYOUTS: dict[str, Writer] = {
    "benchmark-7scenes": marked(seven_scenes),
    "benchmark-nrgbd": marked(nrgbd),
    "benchmark-eth3d": marked(eth3d),
    "benchmark-dtu": marked(dtu),
    "benchmark-sintel": marked(sintel),
    "benchmark-bonn": marked(bonn),
    "benchmark-kitti": marked(kitti),
    "benchmark-nyu": marked(nyu),
    "benchmark-co3d": marked(co3d),
    "benchmark-scannet": marked(scannet),
    "benchmark-tum": marked(tum),
    "benchmark-long3d": marked(long3d),
}
"""Layout -> writer, which also marks the folder as generated.

The names of training layouts stay free for those.
"""
