"""Sequence folders: sequence.json, images, poses.txt and depth in millimetres."""

import json
from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from everview.world.clip import WorldSequence
from everview.world.layouts.files import clean_depth, write_depth_steps, write_picture

MILLIMETRE = 1e-3


def write_sequence_folders(folder: Path, sequences: Sequence[WorldSequence]) -> None:
    """Write each clip as a folder `world_000`, `world_001`, ..."""
    for number, clip in enumerate(sequences):
        _write(folder / f"world_{number:03d}", clip)


def _write(home: Path, clip: WorldSequence) -> None:
    depth = clean_depth(clip.depth)
    for frame, image in enumerate(clip.images):
        write_picture(home / "images" / f"{frame:06d}.jpg", image)
        write_depth_steps(home / "depth" / f"{frame:06d}.png", depth[frame], step=MILLIMETRE)
    (home / "poses.txt").write_text(_pose_lines(clip.world_from_camera))
    (home / "sequence.json").write_text(json.dumps(_description(home.name, clip), indent=1) + "\n")


def _pose_lines(poses: Float[Tensor, "s 4 4"]) -> str:
    """Name and 16 numbers, row by row; nine digits give float32 back exactly."""
    lines = ["# frame, then the 4x4 camera-to-world matrix, row by row, OpenCV camera axes"]
    for frame, pose in enumerate(poses.flatten(1).tolist()):
        lines.append(f"{frame:06d} " + " ".join(f"{value:.9g}" for value in pose))
    return "\n".join(lines) + "\n"


def _description(name: str, clip: WorldSequence) -> dict[str, object]:
    height, width = clip.images.shape[2:]
    K = clip.intrinsics[0]
    return {
        "name": name,
        "num_frames": len(clip.images),
        "width": width,
        "height": height,
        "channels": 3,
        "camera": {
            "model": "PINHOLE",
            "fx": float(K[0, 0]),
            "fy": float(K[1, 1]),
            "cx": float(K[0, 2]),
            "cy": float(K[1, 2]),
        },
        "pose": "camera_to_world, OpenCV axes, metres",
        "metric": True,
        "fps": None,
        "depth": {"scale_m_per_unit": MILLIMETRE, "invalid": 0, "registered_to_images": True},
        "kind": "procedural",
        "source": "everview.world",
    }
