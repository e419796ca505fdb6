"""Errors of camera paths. Poses are world_from_camera, OpenCV axes.

Formulas: Sturm et al., A benchmark for the evaluation of RGB-D SLAM systems (2012), and the
alignment by Umeyama (1991); the numbers agree with the program `evo`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from everview.errors import ConfigError
from everview.evaluation.metrics.arrays import Array, as_double
from everview.geometry.alignment import Similarity, umeyama
from everview.geometry.rotations import invert_rigid, rigid

ALIGNMENTS = ("none", "scale", "se3", "sim3")
"""Names of all ways to align a path."""
NO_MOTION = 1e-9
"""Lengths below this count as standing still."""


@dataclass(frozen=True, kw_only=True)
class PathErrors:
    """Distances of camera centres from the truth, in units of the truth."""

    rmse: float
    """Root mean square: the absolute trajectory error (ATE)."""
    mean: float
    median: float
    scale: float
    """What positions were multiplied with."""
    rotation_degrees: float
    """Root mean square angle between orientations after the alignment (ARE)."""
    path_length: float
    """Of the true path."""


@dataclass(frozen=True, kw_only=True)
class MotionErrors:
    """Errors of the motion from each frame to a later one, one value per pair of frames."""

    rotation_degrees: Float[Tensor, " n"]
    """Angle between estimated and true relative rotation, 0 to 180."""
    translation: Float[Tensor, " n"]
    """Length of the error's translation, in the unit of the poses: with `rmse`, RPE-t."""
    direction_degrees: Float[Tensor, " n"]
    """Angle between estimated and true direction of motion, 0 to 180; 90, what a random direction
    has on average, where the estimate stands still; NaN where the truth does."""
    length_ratio: Float[Tensor, " n"]
    """Estimated over true distance; NaN where the truth stands still."""


def path_errors(
    world_from_camera: Float[Array, "s n 4"],
    truth: Float[Array, "t n 4"],
    *,
    alignment: str = "sim3",
) -> PathErrors:
    """Compare camera centres, in float64: the absolute trajectory error.

    Args:
        world_from_camera: estimated poses.
        truth: true poses of the same frames.
        alignment: `sim3` or `se3` by Umeyama; `scale`: the factor of the Sim(3) alone, as `evo`
            has it; `none`.

    Raises:
        ConfigError: if there are fewer than two poses, the numbers differ, a pose is not finite,
            or the true camera stands still while the alignment scales (any path then fits). An
            estimate on a line is aligned as well as it can be; one that stands still is moved to
            the middle of the true path.
    """
    estimated, true = checked_poses(world_from_camera, truth)
    similarity = align_paths(estimated, true, alignment=alignment)
    distance = (similarity.apply(estimated[:, :3, 3]) - true[:, :3, 3]).norm(dim=-1)
    return PathErrors(
        rmse=rmse(distance),
        mean=float(distance.mean()),
        median=float(distance.quantile(0.5)),
        scale=similarity.scale,
        rotation_degrees=rmse(
            rotation_degrees(true[:, :3, :3].mT @ similarity.rotation @ estimated[:, :3, :3])
        ),
        path_length=float(true[:, :3, 3].diff(dim=0).norm(dim=-1).sum()),
    )


def motion_errors(
    world_from_camera: Float[Array, "s n 4"], truth: Float[Array, "t n 4"], *, gap: int = 1
) -> MotionErrors:
    """Compare relative motions, in float64: the relative pose error.

    Args:
        world_from_camera: estimated poses, in the unit of the truth (see `moved_path`).
        truth: true poses of the same frames.
        gap: frames between the two poses of a pair; all pairs are taken.

    Raises:
        ConfigError: if there are not more than `gap` poses, the numbers differ, or a pose is not
            finite.
    """
    estimated, true = checked_poses(world_from_camera, truth)
    if not 1 <= gap < len(true):
        raise ConfigError(f"gap must be within 1 .. {len(true) - 1} for {len(true)} poses: {gap}")
    motion, true_motion = (invert_rigid(p[:-gap]) @ p[gap:] for p in (estimated, true))
    error = invert_rigid(true_motion) @ motion
    step, true_step = motion[:, :3, 3], true_motion[:, :3, 3]
    length, true_length = step.norm(dim=-1), true_step.norm(dim=-1)
    direction = torch.rad2deg(
        torch.atan2(torch.linalg.cross(step, true_step).norm(dim=-1), (step * true_step).sum(-1))
    )
    direction = torch.where(length < NO_MOTION, 90.0, direction)
    stands = true_length < NO_MOTION
    return MotionErrors(
        rotation_degrees=rotation_degrees(error[:, :3, :3]),
        translation=error[:, :3, 3].norm(dim=-1),
        direction_degrees=direction.masked_fill(stands, torch.nan),
        length_ratio=(length / true_length).masked_fill(stands, torch.nan),
    )


def moved_path(
    world_from_camera: Float[Tensor, "s 4 4"], similarity: Similarity
) -> Float[Tensor, "s 4 4"]:
    """The poses after a similarity of the world; rotations stay rotations."""
    rotation = similarity.rotation @ world_from_camera[:, :3, :3]
    return rigid(rotation, similarity.apply(world_from_camera[:, :3, 3]))


def align_paths(
    estimated: Float[Tensor, "s 4 4"], true: Float[Tensor, "s 4 4"], *, alignment: str
) -> Similarity:
    """Find the motion of the world that lays estimated camera centres on the true ones.

    Raises:
        ConfigError: see `path_errors`.
    """
    start, goal = estimated[:, :3, 3], true[:, :3, 3]
    identity = torch.eye(3, dtype=start.dtype)
    if alignment == "none":
        return Similarity(scale=1.0, rotation=identity, translation=torch.zeros_like(goal[0]))
    if alignment not in ALIGNMENTS:
        raise ConfigError(f"alignment must be {', '.join(ALIGNMENTS)}; got {alignment!r}")
    if _stands(goal) and alignment != "se3":
        raise ConfigError(
            "the true camera stands still, so that every path fits once it is scaled: leave this "
            "sequence out, or use alignment='se3' or 'none'"
        )
    if _stands(start) or _stands(goal):
        shift = goal.mean(dim=0) - start.mean(dim=0)
        return Similarity(scale=1.0, rotation=identity, translation=shift)
    found = umeyama(start, goal, with_scale=alignment != "se3", allow_line=True)
    if alignment == "scale":
        return Similarity(scale=found.scale, rotation=identity, translation=torch.zeros(3).double())
    return found


def rotation_degrees(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """Angle of a rotation, 0 to 180; exact for tiny angles too, which an arccos is not."""
    skew = rotation - rotation.mT
    sine = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], dim=-1).norm(dim=-1)
    trace = rotation.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.rad2deg(torch.atan2(sine, trace - 1))


def rmse(values: Float[Tensor, " n"]) -> float:
    """Root of the mean square."""
    return float(values.square().mean().sqrt())


def checked_poses(
    world_from_camera: Array, truth: Array
) -> tuple[Float[Tensor, "s 4 4"], Float[Tensor, "s 4 4"]]:
    """Both paths in float64, with a last row 0 0 0 1.

    Raises:
        ConfigError: see `path_errors`.
    """
    estimated, true = as_double(world_from_camera), as_double(truth)
    if len(estimated) != len(true):
        raise ConfigError(
            f"{len(estimated)} estimated and {len(true)} true poses: give the same frames of both"
        )
    if len(true) < 2:
        raise ConfigError(f"a path needs at least 2 poses, got {len(true)}")
    for name, poses in (("estimated", estimated), ("true", true)):
        bad = (~poses.isfinite()).flatten(1).any(dim=1).nonzero().flatten().tolist()
        if bad:
            raise ConfigError(
                f"{len(bad)} of {len(poses)} {name} poses are not finite (first: frame {bad[0]}): "
                "leave these frames out of both paths"
            )
    return rigid(estimated[:, :3, :3], estimated[:, :3, 3]), rigid(true[:, :3, :3], true[:, :3, 3])


def _stands(centres: Float[Tensor, "s 3"]) -> bool:
    return float((centres - centres[0]).norm(dim=-1).max()) < NO_MOTION
