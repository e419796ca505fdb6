"""Long streams: drift over time, and the cloud of the whole walk."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from everview.errors import ConfigError
from everview.evaluation.benchmarks.clip import EvalClip
from everview.evaluation.metrics.clouds import cloud_errors
from everview.evaluation.metrics.depth import depth_errors
from everview.evaluation.metrics.drift import revisit_errors
from everview.evaluation.metrics.poses import align_paths, checked_poses, moved_path
from everview.evaluation.metrics.voxels import thinned, voxel_means
from everview.evaluation.protocols import points, poses
from everview.evaluation.protocols.grids import check_size, truth_on_network
from everview.evaluation.protocols.reliability import confidence_curve
from everview.evaluation.protocols.scores import ClipScores, Meaning, Settings
from everview.evaluation.runs.store import StoredClip
from everview.geometry.alignment import umeyama
from everview.geometry.cameras import points_from_depth
from everview.geometry.rotations import invert_rigid

VOXEL = 0.05
"""Side of the cubes, in metres, in which clouds keep one point; also the limit of the F-score."""
APART = 100
"""Frames between two visits of one place."""
NEARBY = 0.5
"""Metres within which a place is the same."""

MEANINGS = {
    **{name: poses.TRAJECTORY[name] for name in ("ate", "rpe_translation", "rpe_rotation")},
    "ate_share": Meaning(meaning="ATE over the length of the true path"),
    "revisit": Meaning(
        meaning="error of the motion between two visits of a place, mean", unit=points.UNIT
    ),
    "abs_rel": Meaning(meaning="mean of |p - g| / g, one scale per clip"),
    "delta1": Meaning(meaning="share of pixels within a factor 1.25", better="higher"),
    **points.MEANINGS,
    "f_score": Meaning(meaning="F-score of points within 5 cm", better="higher"),
}


def defaults(_: str, __: str) -> dict[str, object]:
    """Settings of both long benchmarks."""
    return {
        "alignment": "sim3",
        "voxel": VOXEL,
        "largest_cloud": 1_000_000,
        "unit": "m",
        "average": "clips",
    }


def score_exact(clip: EvalClip, stored: StoredClip, settings: Settings) -> ClipScores:
    """Everything there is to say where poses and depth are known.

    Raises:
        ConfigError: if a prediction is not finite, or the camera stands still.
    """
    path = poses.score_trajectory(clip, stored, settings)
    truth, known = poses.true_poses(clip)
    estimated, true = checked_poses(stored.world_from_camera[known], truth)
    similarity = align_paths(estimated, true, alignment="sim3")
    aligned = moved_path(estimated, similarity)
    error = (aligned[:, :3, 3] - true[:, :3, 3]).norm(dim=-1)
    again = revisit_errors(aligned, true, apart=APART, nearby=NEARBY).translation
    scores = {**path.scores, "revisit": float(again.mean())}  # NaN if no place is seen twice
    scores["ate_share"] = scores["ate"] / path.details["path_length"]
    curves = {"frame": [float(i) for i in known], "position_error": error.tolist()}
    dense = [
        i for i in range(len(clip.frames)) if stored.has(i, "depth") or stored.has(i, "points")
    ]
    depth, curve = _depth(clip, stored, dense)
    clouds = _clouds(clip, stored, dense, settings)
    errors = cloud_errors(*clouds, thresholds=(settings["voxel"],))
    cloud = {**points.cloud_scores(errors), "f_score": errors.f_score[settings["voxel"]]}
    return ClipScores(
        scores={**scores, **depth, **cloud},
        details={**path.details, "dense_frames": len(dense), "points": len(clouds[1])},
        curves={**curves, **curve, **confidence_curve(clip, stored, settings, each_frame=False)},
    )


def _depth(
    clip: EvalClip, stored: StoredClip, dense: list[int]
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Depth under one scale per clip, and how the error grows."""
    found = {i: _depth_pair(clip, stored, i) for i in dense if stored.has(i, "depth")}
    pairs = {i: (p, g) for i, (p, g) in found.items() if (g > 0).any()}
    if not pairs:
        return {}, {}
    p, g = (torch.stack([pair[n] for pair in pairs.values()]) for n in (0, 1))
    whole = depth_errors(p, g, alignment="scale")
    scaled = p * whole.scale
    each = [
        depth_errors(ours, theirs, alignment="none").abs_rel
        for ours, theirs in zip(scaled, g, strict=True)
    ]
    curve = {"dense_frame": [float(i) for i in pairs], "abs_rel": each}
    return {"abs_rel": whole.abs_rel, "delta1": whole.delta1}, curve


def _depth_pair(clip: EvalClip, stored: StoredClip, index: int) -> tuple[Tensor, Tensor]:
    truth = clip.truth(index)
    if truth.depth is None or truth.intrinsics is None:
        raise ConfigError(f"frame {clip.frames[index]} lacks depth or intrinsics")
    check_size(truth.depth, stored.maps[index], clip.frames[index])
    depth, _ = truth_on_network(truth.depth, truth.intrinsics, stored.maps[index])
    return stored.map(index, "depth").double(), depth


def _clouds(
    clip: EvalClip, stored: StoredClip, dense: list[int], settings: Settings
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true points of all dense frames; what moves is in neither.

    The prediction is laid on the truth by a Sim(3) over corresponding points: the path of a walk
    along a corridor is almost a line, which leaves a turn about it open.

    Raises:
        ConfigError: if nothing is valid.
    """
    pairs = list(_frames(clip, stored, dense))
    if not any(len(true) for _, true in pairs):
        raise ConfigError("no frame has points that are known and stand still")
    ours, true = (np.concatenate([pair[n] for pair in pairs]) for n in (0, 1))
    similarity = umeyama(torch.from_numpy(ours), torch.from_numpy(true))
    ours = similarity.apply(torch.from_numpy(ours)).numpy()
    side, count, seed = settings["voxel"], settings["largest_cloud"], int(settings["seed"])
    return thinned(voxel_means(ours, side), count, seed), thinned(
        voxel_means(true, side), count, seed
    )


def _frames(
    clip: EvalClip, stored: StoredClip, dense: list[int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for index in dense:
        truth = clip.truth(index)
        if truth.depth is None or truth.intrinsics is None or truth.world_from_camera is None:
            raise ConfigError(f"frame {clip.frames[index]} lacks depth, intrinsics or pose")
        still = truth.depth if truth.static is None else truth.depth * truth.static
        depth, K = truth_on_network(still, truth.intrinsics, stored.maps[index])
        pose = truth.world_from_camera.double()
        true = points_from_depth(depth, invert_rigid(pose), K)[depth > 0]
        ours = stored.points(index).double()[depth > 0]
        if not ours.isfinite().all():
            raise ConfigError(f"frame {clip.frames[index]}: a predicted point is not finite")
        yield ours.numpy(), true.numpy()
