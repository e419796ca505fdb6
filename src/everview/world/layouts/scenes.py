"""One way of writing clips for all layouts that keep a file per part of a frame."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from everview.world.clip import WorldSequence
from everview.world.layouts.files import (
    LARGEST_STEP,
    clean_depth,
    write_arrays,
    write_depth_floats,
    write_depth_steps,
    write_mask,
    write_picture,
)
from everview.world.layouts.plan import LayoutPlan


def write_layout(plan: LayoutPlan, folder: Path, sequences: Sequence[WorldSequence]) -> None:
    """Write each clip as a scene, then what the set as a whole has.

    Raises:
        MissingExtraError: if the layout needs an optional package that is not installed.
    """
    for number, clip in enumerate(sequences):
        write_scene(plan, plan.scene_folder(folder, number), clip)
    if plan.finish is not None:
        plan.finish(folder, plan, sequences)


def write_scene(plan: LayoutPlan, home: Path, clip: WorldSequence) -> None:
    """Write the frames of a clip and their cameras."""
    depth = clean_depth(clip.depth) * plan.unit
    poses, intrinsics = stored_cameras(plan, clip)
    for frame in range(len(depth)):
        write_picture(home / plan.part(plan.image, frame), clip.images[frame])
        extra = _write_depth(plan, home / plan.part(plan.depth, frame), depth[frame])
        if plan.mask is not None:
            near = depth[frame] <= depth[frame].median()
            write_mask(home / plan.part(plan.mask, frame), near)
        if plan.camera is not None:
            write_arrays(
                home / plan.part(plan.camera, frame),
                intrinsics=intrinsics[frame],
                pose=poses[frame],
                **extra,
            )
    if plan.scene_camera is not None:
        names = [Path(plan.part(plan.image, frame)).name for frame in range(len(depth))]
        write_scene_cameras(plan, home, names, clip)


def write_scene_cameras(
    plan: LayoutPlan, home: Path, names: Sequence[str], clip: WorldSequence
) -> None:
    """The file with the cameras of all frames; `names` repeat when frames are there twice."""
    poses, intrinsics = stored_cameras(plan, clip)
    rows = [i % len(poses) for i in range(len(names))]
    halves = len(names) // 2
    groups = np.array([range(halves), range(len(names) - halves, len(names))])
    write_arrays(
        home / str(plan.scene_camera),
        images=np.array(names),
        intrinsics=intrinsics[rows],
        poses=poses[rows],
        **({"groups": groups} if plan.groups else {}),
    )


def stored_cameras(
    plan: LayoutPlan, clip: WorldSequence
) -> tuple[Float[np.ndarray, "s 4 4"], Float[np.ndarray, "s 3 3"]]:
    """Poses in the layout's unit, and intrinsics."""
    poses = clip.world_from_camera.cpu().double().numpy().copy()
    poses[:, :3, 3] *= plan.unit
    return poses, clip.intrinsics.cpu().double().numpy()


def _write_depth(
    plan: LayoutPlan, path: Path, depth: Float[Tensor, "H W"]
) -> dict[str, np.ndarray]:
    """Write depth; returns what the camera file has to say about it."""
    if path.suffix != ".png":
        write_depth_floats(path, depth)
        return {}
    step = plan.depth_step
    if plan.is_depth_relative:
        largest = max(float(torch.max(depth)), 1e-6)  # a frame without depth has no range
        step = largest / LARGEST_STEP
        write_depth_steps(path, depth, step=step)
        return {"maximum_depth": np.array(largest)}
    write_depth_steps(path, depth, step=step, nothing=plan.sky_step)
    return {}
